"""Texts to token ids, by the `tokenizers` library and a file `tokenizer.json` that says all of it. No JAX here.

A tokenizer of ours is complete: lower-casing, marks of beginning and end, cutting to the context and filling up stand
in the file, where `published/tokenizers.py` puts them, so that nothing remains to be done or forgotten here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Int64

from lookalike.core.errors import EncoderError, UsageError
from lookalike.towers.text import TextConfig


class Tokenizer:
    """What turns texts into the ids that a text tower takes."""

    def __init__(self, described: str, config: TextConfig, where: str) -> None:
        """From the content of the `tokenizer.json` at `where`; EncoderError if it is not the one of this tower."""
        self._tokens, self._vocabulary, self._where = parsed(described, where), config.vocabulary, where
        cut, filled = self._tokens.truncation or {}, self._tokens.padding or {}
        lengths = cut.get("max_length"), filled.get("length")
        if lengths != (config.context, config.context if config.whole else None):
            raise EncoderError(
                f"`{where}` cuts texts to {lengths[0]} tokens and fills them up to {lengths[1]}; "
                f"its tower takes {config.context}.",
                hint="`lookalike pull` writes it as its tower needs it",
            )

    def __call__(self, text: str) -> Int64[np.ndarray, " T"]:
        """The ids of one text; EncoderError if the tower has no such token."""
        # What isn't text, such as half a surrogate pair, is not for the library, which panics at it.
        plain = text.encode("utf-8", "replace").decode("utf-8")
        ids = np.array(self._tokens.encode(plain).ids, np.int64)
        if ids.max(initial=0) >= self._vocabulary:
            raise EncoderError(
                f"`{self._where}` gives token {ids.max()}, and its tower knows {self._vocabulary:,} tokens.",
                hint="copy the tokenizer.json that belongs to the weights, and pull again",
            )
        return ids


def parsed(described: str, where: str) -> Any:
    """The library's object for the content of a `tokenizer.json`; errors as `Tokenizer`."""
    with library(f"`{where}` is no tokenizer that the `tokenizers` library reads") as tokenizers:
        return tokenizers.Tokenizer.from_str(described)


@contextmanager
def library(refusal: str) -> Iterator[Any]:
    """The `tokenizers` library; UsageError if it isn't there, EncoderError with `refusal` if it refuses something."""
    try:
        import tokenizers

        yield tokenizers
    except ModuleNotFoundError as error:
        raise UsageError(
            "Reading texts needs the `tokenizers` library, which is not installed.",
            hint="pip install 'lookalike[text]'",
        ) from error
    except Exception as error:
        if type(error) is not Exception:  # the library has no kind of its own; any other is a bug and stays one
            raise
        raise EncoderError(f"{refusal}: {error}.", hint="get the file again") from error
