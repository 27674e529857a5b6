"""What a published layout is, and how a tower is read from one and written in one.

A layout is two tables, of keys (`table.py`) and of fields (`fields.py`), and what no table can say. What is written is
read back by the same layout, so that it can't be right in one direction only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, check_tensors, tensor_shapes
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.fields import Field, read_fields, write_fields
from lookalike.published.fit import adapt, resized
from lookalike.published.processors import from_transformers
from lookalike.published.stored import Published, described_by, part, understood
from lookalike.published.table import Key, gather, scatter
from lookalike.towers import Tower, ViTConfig
from lookalike.towers.programs.declare import shapes_of

Found = Mapping[str, tuple[int, ...]]
"""Shapes of the tensors that a file holds, by their names without the prefix."""

Parts = tuple[EncoderConfig, Tensors]


@dataclass(frozen=True)
class Layout:
    """A published form of a model directory."""

    library: Literal["transformers", "timm", "open_clip"]
    """Whose it is."""
    files: tuple[str, str]
    """Names of the config and of the tensors."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether a config of that name is of this layout."""
    anchor: str
    """A name of the table that every file has, by which the prefix is found."""
    keys: Callable[[Any], tuple[Key, ...]]
    """The table for the config of a tower."""
    read: Callable[[Path, dict[str, Any], Found], tuple[Tower, Any]]
    """Tower and pooling from the config and the shapes of the tensors; the path is for errors."""
    prepare: Callable[[Path, dict[str, Any], Any], Preprocess]
    """The preprocessing, from the directory, its config and the tower."""
    describe: Callable[[EncoderConfig], dict[str, Any] | None] = lambda _: None
    """The way back of `read`: the content of the config; None if the layout has no words for this encoder."""
    features: Callable[[EncoderConfig], str | None] = lambda _: None
    """Which output of the library's model are the features, as Python behind a dot; None: none is."""
    restated: Callable[[EncoderConfig, Tensors], Parts] = lambda config, tensors: (config, tensors)
    """The same function as the layout has it, where one of ours has several forms."""
    prefixes: tuple[str, ...] = ("",)
    """What may stand before the names of the table; export writes the first."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensors that are known and not needed (whole names, prefix included)."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Pieces of names as other writers of the same layout have them, and as the table has them."""
    beside: Callable[[Any], Tensors] = lambda _: {}
    """Tensors (by the config of a tower) that the layout has and no features depend on: `ignored` on the way in."""
    resizes: bool = False
    """Whether the reference brings stored positions to the size of its processor."""
    pairs: bool = False
    """Whether its towers learned from image-text pairs, with mean and std of their own."""
    note: str = ""
    """What must be said of every model in it."""


def transformers(
    tower: type,
    types: tuple[str, ...],
    named: Callable[[Any], tuple[str, str]],
    fields: Sequence[Field],
    *,
    fixed: Mapping[str, Any] | None = None,
    seen: Callable[[Found], dict[str, Any]] = lambda _: {},
    told: Callable[[dict[str, Any], Found], dict[str, Any]] = lambda described, _: described,
    pooling: Callable[[Any], str] = lambda _: "class",
    **facts: Any,
) -> Layout:
    """A layout of transformers.

    Args:
        tower: The class of its towers.
        types: The values of `model_type`.
        named: `model_type` and class that hold a tower.
        fields: The table.
        fixed: Our fields that all of its towers share.
        seen: Our fields that the shapes of the tensors tell.
        told: The part of a config that describes the tower.
        pooling: How transformers makes features of a tower.
        facts: More fields of `Layout`.
    """

    def read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[Tower, Any]:
        ours = read_fields(fields, told(described, shapes), path)
        made = tower(**{**ours, **(fixed or {}), **seen(shapes)})
        return made, pooling(made)

    def describe(config: EncoderConfig) -> dict[str, Any] | None:
        words = write_fields(fields, config.tower) if isinstance(config.tower, tower) else None
        if words is None:
            return None
        kind, name = named(config.tower)
        return {"architectures": [name], "model_type": kind, "image_size": config.preprocess.size, **words}

    return Layout(
        "transformers",
        ("config.json", "model.safetensors"),
        lambda described: described.get("model_type") in types,
        read=read,
        **{"prepare": lambda path, _described, _tower: from_transformers(path), "describe": describe, **facts},
    )


def token_features(config: EncoderConfig) -> str | None:
    """Behind the last norm, which these classes of transformers have in both of their outputs."""
    tokens = f"last_hidden_state[:, {config.tower.prefix if isinstance(config.tower, ViTConfig) else 0}:].mean(dim=1)"
    return {"class": "pooler_output", "attention": "pooler_output", "mean": tokens}.get(config.pooling)


def map_features(config: EncoderConfig) -> str | None:
    """The mean over a map, which is what these classes of transformers pool by."""
    return "pooler_output" if config.pooling == "mean" else None


def part_of(name: str) -> Callable[[dict[str, Any], Found], dict[str, Any]]:
    """For `told`: what a config has under `name`, or all of it."""
    return lambda described, _: part(described, name) or described


def import_model(
    layout: Layout, path: Path, size: int | None = None, stride: int | None = None
) -> tuple[EncoderConfig, Tensors]:
    """Our config and tensors from a directory in `layout`; the projection is the identity.

    Args:
        layout: The layout.
        path: The directory.
        size: Side of the input, in pixels; None: as published. Here, and not later, so that positions are interpolated
            once, from those that are stored.
        stride: Distance between a ViT's patches, in pixels; None: as published.

    Raises:
        EncoderError: A tensor is missing, left over, of a wrong shape, or of a dtype that isn't a float of 16 or 32
            bits; the message names them.
    """
    described = described_by(path / layout.files[0])
    with Published(path, layout.files[1], layout.renamed) as published:
        prefix = _prefix(layout, published.shapes, path)
        theirs = {name.removeprefix(prefix): shape for name, shape in published.shapes.items()}
        with understood(path, layout.files[0]):
            tower, pooling = layout.read(path, described, theirs)
            wanted = layout.prepare(path, described, tower)
            stored = resized(wanted, tower.only_size or wanted.size) if layout.resizes else wanted
            projection = ProjectionConfig("identity", tower.features, tower.features)
            config = EncoderConfig(tower, pooling, stored, projection)
            keys, shapes = layout.keys(tower), shapes_of(tower)
        gathered = gather(published, keys, shapes, prefix, layout.ignored)
        tensors = {f"tower.{name}": tensor for name, tensor in gathered.items()}
    check_tensors(tensor_shapes(config), tensors, str(path))
    wanted = wanted if size is None else resized(wanted, size)
    if wanted == config.preprocess and stride is None:
        return config, tensors
    config, tensors = adapt(config, tensors, size=wanted.size, stride=stride)
    return replace(config, preprocess=wanted), tensors


def _prefix(layout: Layout, names: Found, path: Path) -> str:
    for prefix in layout.prefixes:
        if prefix + layout.anchor in names:
            return prefix
    raise EncoderError(
        f"`{path / layout.files[1]}` has no tensor `{layout.prefixes[0]}{layout.anchor}`: it is no image tower of the "
        f"kind that `{layout.files[0]}` describes."
    )


def export_tensors(layout: Layout, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The tower's tensors under the names of `layout`: what `import_model` would turn back into ours."""
    tower = {name.removeprefix("tower."): tensor for name, tensor in tensors.items() if name.startswith("tower.")}
    beside = {layout.prefixes[0] + name: tensor for name, tensor in layout.beside(config.tower).items()}
    return scatter(layout.keys(config.tower), tower, layout.prefixes[0]) | beside


def holds(layout: Layout, tower: Tower) -> bool:
    """Whether the layout has a place for every tensor of a tower."""
    try:
        return {key.ours for key in layout.keys(tower)} == set(shapes_of(tower))
    except (AttributeError, LookupError):  # a table is made for towers of its own kind
        return False


def described_in(layout: Layout, config: EncoderConfig) -> dict[str, Any] | None:
    """The config file of an encoder in `layout`; None if it has no place for it: another tower would come back."""
    described = layout.describe(config)
    if described is None or not layout.matches(described) or not holds(layout, config.tower):
        return None
    nothing = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(config.tower).items()}
    shapes = {name: array.shape for name, array in scatter(layout.keys(config.tower), nothing, "").items()}
    try:
        tower, pooling = layout.read(Path(), described, shapes)
    except EncoderError:
        return None
    same = pooling == config.pooling or layout.library == "transformers"  # there, `features` tells them apart
    return described if same and same_tower(tower, config.tower) else None


def same_tower(one: Tower, other: Tower) -> bool:
    """Whether two towers compute the same. How positions come to another size is each library's own affair."""
    if isinstance(one, ViTConfig) and isinstance(other, ViTConfig):
        one, other = (replace(t, resampling="bicubic", pool_hidden=t.pool_hidden or t.hidden) for t in (one, other))
    return one == other


def write_layout(
    layout: Layout, described: Mapping[str, Any], config: EncoderConfig, tensors: Mapping[str, np.ndarray], path: Path
) -> Parts:
    """The two files of an encoder in `layout`; the preprocessing is in the directory already, or in `described`.

    Returns:
        What the layout's importer reads from the directory, which is the encoder to the bit.

    Raises:
        EncoderError: The layout can't hold this tower: another one would come back.
    """
    write_json(path / layout.files[0], described)
    write_tensors(path / layout.files[1], export_tensors(layout, config, tensors))
    read, found = import_model(layout, path)
    if not same_tower(read.tower, config.tower) or any(not np.array_equal(found[n], tensors[n]) for n in found):
        kind = type(config.tower).__name__.removesuffix("Config")
        raise EncoderError(f"A layout of {layout.library} has no place for this {kind}: another one would come back.")
    return read, found


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as torch's libraries expect it, with the counters of batch norms that they keep."""
    from safetensors.numpy import save_file

    counters = {
        f"{name.removesuffix('running_mean')}num_batches_tracked": np.zeros((), np.int64)
        for name in tensors
        if name.endswith(".running_mean")
    }
    save_file({**tensors, **counters}, path, metadata={"format": "pt"})
