"""What a target is, what it is given, and what it gives back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_card
from lookalike.encoders.config import EncoderConfig, Tensors, TextSide
from lookalike.targets import TARGETS


@dataclass(frozen=True)
class Export:
    """An encoder, and how it is wanted."""

    config: EncoderConfig
    tensors: Mapping[str, np.ndarray]
    card: Mapping[str, Any]
    preprocess: bool = True  # whether resizing and cropping go into the model, where the target is a graph
    int8: bool = False  # whether large matrices are whole numbers of 8 bits, where the target can hold them
    text: TextSide | None = None  # for the target that takes one along


@dataclass(frozen=True)
class Written:
    """What a target wrote."""

    code: str  # Python lines, run in the directory, that load it and define `embed(path)`: an image file to its vector
    keeps: str  # one or two sentences for the README: what of the encoder is inside, and what is not
    read_back: tuple[EncoderConfig, Tensors] | None = None  # as our own importer reads it, for layouts that it knows


@dataclass(frozen=True)
class Target:
    """All that the house knows of a target: a value of its file."""

    write: Callable[[Export, Path], Written]  # into an empty directory; EncoderError for what it has no place for
    library: str = ""  # `library_name` on the Hub, if that has one for it
    needs: tuple[str, ...] = ()  # modules without which it can't write
    reads: tuple[str, ...] = ()  # those that its README's lines import; none: they define no `embed`
    packages: Mapping[str, str] = field(default_factory=dict)  # module -> what installs it, if of another name
    graph: bool = False  # whether it is made of our own graph, which can leave the preprocessing out
    int8: bool = False  # whether it can hold whole numbers of 8 bits
    text: bool = False  # whether it takes the text side along


def target_of(name: str) -> Target:
    """The target of that name in `TARGETS`; imports its file."""
    module, _, value = TARGETS[name].partition(":")
    target: Target = getattr(import_module(module), value or "TARGET")
    return target


def refused(sentence: str, hint: str = "`--to onnx` takes every encoder") -> EncoderError:
    """What a target has no place for."""
    return EncoderError(sentence, hint=hint)


def lineage(card: Any) -> Iterator[Mapping[str, Any]]:
    """A card, and those of what its encoder began from."""
    while isinstance(card, Mapping):
        yield card
        blend = card.get("blend")
        for part in blend if isinstance(blend, list) else ():
            yield from lineage(part.get("card") if isinstance(part, Mapping) else None)
        card = card.get("began_from")


def data_of(model: str | Path) -> list[str]:
    """Where the collections lay that an encoder, and what it began from, learned from, as their cards say."""
    cards = [each for card in lineage(read_card(model)) for each in (card, card.get("unlabelled"))]
    named = [card.get("data") for card in cards if isinstance(card, Mapping)]
    return [place for place in named if isinstance(place, str)]
