"""The tensors alone, under the names of the layout that the tower was published in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.encoders.config import EncoderConfig, Tensors
from lookalike.encoders.directory import read_safetensors
from lookalike.export.parts import Export, Target, Written
from lookalike.export.published import PROJECTION, kind, read_back, write_projection
from lookalike.published.layout import Layout, described_in, export_tensors, holds, write_tensors
from lookalike.published.layouts import WEIGHTS
from lookalike.published.stored import Published
from lookalike.published.table import gather
from lookalike.towers.programs.declare import shapes_of


def write(export: Export, directory: Path) -> Written:
    """`model.safetensors`, and `projection.safetensors` if there is one."""
    config, name = export.config, layout_of(export.config, export.card)
    file = directory / "model.safetensors"
    if name is None:
        own = {
            n.removeprefix("tower."): np.ascontiguousarray(t)
            for n, t in export.tensors.items()
            if n.startswith("tower.")
        }
        write_tensors(file, own)
        found = {f"tower.{n}": t for n, t in read_safetensors(file).items() if not n.endswith("num_batches_tracked")}
    else:
        write_tensors(file, export_tensors(WEIGHTS[name], config, export.tensors))
        found = _gathered(WEIGHTS[name], config, directory)
    projected = write_projection(config, export.tensors, directory)
    lines = ["from safetensors.numpy import load_file", "", "tower = load_file('model.safetensors')"]
    lines += [f"projection = load_file('{PROJECTION}')"] if projected else []
    layout = f"the layout {name}" if name else f"our own names, since a {kind(config)} is published in no other"
    keeps = f"Tensors alone, float32: the tower in {layout}." + (
        f" `{PROJECTION}` has `weight` [features, dimension] and `bias` [dimension]." if projected else ""
    )
    return Written("\n".join(lines) + "\n", keeps, embeds=False, read_back=read_back(config, config, found, directory))


def layout_of(config: EncoderConfig, card: Mapping[str, Any]) -> str | None:
    """The layout that the tower came in, or else the one of transformers; None: neither has a place for it."""
    origin: Any = card
    while isinstance(origin, Mapping):
        if (name := origin.get("layout")) in WEIGHTS and holds(WEIGHTS[name], config.tower):
            return str(name)
        origin = origin.get("began_from")
    holders = (n for n, layout in WEIGHTS.items() if layout.library == "transformers" and described_in(layout, config))
    return next(holders, None)


def _gathered(layout: Layout, config: EncoderConfig, directory: Path) -> Tensors:
    with Published(directory, "model.safetensors", layout.renamed) as published:
        shapes, keys = shapes_of(config.tower), layout.keys(config.tower)
        found = gather(published, keys, shapes, layout.prefixes[0], layout.ignored)
    return {f"tower.{name}": tensor for name, tensor in found.items()}


TARGET = Target(write, "safetensors")
