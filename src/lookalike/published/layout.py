"""What a published layout is, and how a tower is read from one and written in one.

A layout is two tables (`table.py`) and what no table can say. What is written is read back by the same layout.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, below, check_tensors, tensor_shapes
from lookalike.encoders.fit import adapt, resized
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.processors import from_transformers
from lookalike.published.stored import INDEX, Published, described_by, understood
from lookalike.published.table import Field, Form, Key, Names, gather, keys_of, read_fields, scatter, write_fields
from lookalike.towers import Tower, ViTConfig
from lookalike.towers.ops import shapes_of

Found = Mapping[str, tuple[int, ...]]
"""Shapes of the tensors that a file holds, by their names without the prefix."""

Parts = tuple[EncoderConfig, Tensors]


@dataclass(frozen=True, kw_only=True)
class TowerFiles:
    """How a tower lies in a directory."""

    files: tuple[str, str] = ("config.json", "model.safetensors")
    """Names of the config and of the tensors."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether a config of that name is of this layout."""
    names: Names | Callable[[Any], Names]
    """The key table, or the one for the config of a tower."""
    forms: Mapping[str, Form] | Callable[[Any], Mapping[str, Form]] = lambda _: {}
    """How some tensors are laid out, where that is not as usual."""
    anchor: str
    """One of their names that every file has, by which the prefix is found."""
    prefixes: tuple[str, ...] = ("",)
    """What may stand before the names of the table; export writes the first."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensors that are known and not needed (whole names, prefix included)."""
    joined: Callable[[Tensors], Tensors] = lambda tensors: tensors
    """What becomes ours of tensors that the table has gathered by our names."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Pieces of names as other writers of the same layout have them, and as the table has them."""

    def described(self, path: Path) -> dict[str, Any] | None:
        """The config in a directory; None if there is none of this layout."""
        config = path / self.files[0]
        found = described_by(config) if config.exists() else {}
        return found if self.matches(found) else None

    def stored(self, there: Collection[str]) -> str | None:
        """The file of tensors, or the index of several, among the files that are there; None if it is not."""
        return next((name for name in (self.files[1], self.files[1] + INDEX) if name in there), None)

    def place(self, published: Published) -> tuple[str, Found] | None:
        """What stands before the names in a file, and the shapes without it; None if it has no such tower."""
        prefix = next((prefix for prefix in self.prefixes if prefix + self.anchor in published.shapes), None)
        if prefix is None:
            return None
        return prefix, {name.removeprefix(prefix): shape for name, shape in published.shapes.items()}

    def keys(self, tower: Any) -> tuple[Key, ...]:
        """Where the tensors of a tower are; LookupError or AttributeError if there is no place for one."""
        names = self.names(tower) if callable(self.names) else self.names
        return keys_of(tower, names, self.forms(tower) if callable(self.forms) else self.forms)

    def tensors(self, published: Published, tower: Any, prefix: str) -> Tensors:
        """The tower's tensors from an open file."""
        with understood(published.path, self.files[1]):
            return self.joined(gather(published, self.keys(tower), shapes_of(tower), prefix, self.ignored))


@dataclass(frozen=True, kw_only=True)
class Layout(TowerFiles):
    """A published form of a model directory."""

    library: Literal["transformers", "timm", "open_clip"]
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
    classes: Mapping[str, str],
    fields: Sequence[Field],
    *,
    written: Callable[[Any], str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    seen: Callable[[Found], dict[str, Any]] = lambda _: {},
    told: Callable[[dict[str, Any], Found], dict[str, Any]] = lambda described, _: described,
    outputs: Mapping[str, str] = MappingProxyType({"mean": "pooler_output"}),
    ignored: tuple[str, ...] = (),
    **facts: Any,
) -> Layout:
    """A layout of transformers, whose features are by attention where a tower has that, else by the first pooling.

    `classes` are by `model_type`; the last, or that which is `written` for a tower, can hold a tower alone. `fields`
    lack the number of channels. Our fields that all towers share are `fixed`, others `seen` in the shapes; `told` is
    the part of a config that describes the tower. `outputs` of the class are by pooling; `{prefix}` stands for the
    number of tokens before the patches. `ignored` lacks what may stand behind any tower, or beside its tokens.
    """
    fields = (*fields, Field(None, "num_channels", 3))

    def read(path: Path, described: dict[str, Any], shapes: Found) -> tuple[Tower, Any]:
        ours = read_fields(fields, told(described, shapes), path)
        made = tower(**{**ours, **(fixed or {}), **seen(shapes)})
        return made, "attention" if "attention" in made.poolings else made.poolings[0]

    def describe(config: EncoderConfig) -> dict[str, Any] | None:
        words = write_fields(fields, config.tower) if isinstance(config.tower, tower) else None
        if words is None:
            return None
        kind = written(config.tower) if written else list(classes)[-1]
        name = classes[kind] + ("WithProjection" if getattr(config.tower, "head", None) else "")
        return {"architectures": [name], "model_type": kind, "image_size": config.preprocess.size, **words}

    def features(config: EncoderConfig) -> str | None:
        found = outputs.get(config.pooling)
        if found and getattr(config.tower, "head", None):
            return "image_embeds"
        return found and found.replace("{prefix}", str(getattr(config.tower, "prefix", 0)))

    how = {"prepare": lambda path, _described, _tower: from_transformers(path), "describe": describe}
    return Layout(
        library="transformers",
        matches=lambda described: described.get("model_type") in list(classes),
        read=read,
        features=features,
        ignored=(*ignored, "*classifier.*", "*pooler.dense.*", "*embeddings.mask_token", "*embeddings.position_ids"),
        **(how | facts),
    )


def import_model(layout: Layout, path: Path, size: int | None = None, stride: int | None = None) -> Parts:
    """Our config and tensors from a directory in `layout`; the projection is the identity.

    `size` is the side of the input and `stride` the distance between a ViT's patches, in pixels; None: as published.
    Both are asked here, and not later, so that positions are interpolated once, from those that are stored.
    EncoderError names tensors that are missing, left over, of a wrong shape, or no floats of 16 or 32 bits.
    """
    described = described_by(path / layout.files[0])
    published = Published(path, layout.files[1], layout.renamed)
    if (place := layout.place(published)) is None:
        raise EncoderError(
            f"`{path / layout.files[1]}` has no tensor `{layout.prefixes[0]}{layout.anchor}`: it is no image tower "
            f"of the kind that `{layout.files[0]}` describes."
        )
    prefix, theirs = place
    with understood(path, layout.files[0]):
        tower, pooling = layout.read(path, described, theirs)
        wanted = layout.prepare(path, described, tower)
        stored = resized(wanted, tower.only_size or wanted.size) if layout.resizes else wanted
        projection = ProjectionConfig("identity", tower.features, tower.features)
        config = EncoderConfig(tower, pooling, stored, projection)
        layout.keys(tower)
    tensors = {f"tower.{name}": tensor for name, tensor in layout.tensors(published, tower, prefix).items()}
    check_tensors(tensor_shapes(config), tensors, str(path))
    wanted = wanted if size is None else resized(wanted, size)
    if wanted == config.preprocess and stride is None:
        return config, tensors
    config, tensors = adapt(config, tensors, size=wanted.size, stride=stride)
    return replace(config, preprocess=wanted), tensors


def export_tensors(layout: Layout, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The tower's tensors under the names of `layout`: what `import_model` would turn back into ours."""
    beside = {layout.prefixes[0] + name: tensor for name, tensor in layout.beside(config.tower).items()}
    return scatter(layout.keys(config.tower), below("tower", tensors), layout.prefixes[0]) | beside


def holds(layout: Layout, tower: Tower) -> bool:
    """Whether the layout has a place for every tensor of a tower."""
    try:
        return bool(layout.keys(tower))
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

    Returns what the layout's importer reads from there, which is the encoder to the bit; EncoderError if it is another.
    """
    write_json(path / layout.files[0], described)
    write_tensors(path / layout.files[1], export_tensors(layout, config, tensors))
    read, found = import_model(layout, path)
    if not same_tower(read.tower, config.tower) or any(not np.array_equal(found[n], tensors[n]) for n in found):
        words = f"A layout of {layout.library} has no place for this {config.kind}: another one would come back."
        raise EncoderError(words)
    return read, found


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file as torch's libraries expect it, with the counters of batch norms that they keep."""
    from safetensors.numpy import save_file

    means = [name for name in tensors if name.endswith(".running_mean")]
    counters = {f"{name.removesuffix('running_mean')}num_batches_tracked": np.zeros((), np.int64) for name in means}
    save_file({**tensors, **counters}, path, metadata={"format": "pt"})
