"""An encoder as a value, and as a directory: `config.json`, `model.safetensors`, `card.json`, `README.md`. No JAX here.

Everything is checked by name, shape and dtype before it is used, and a directory is written whole or not at all.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from lookalike.core.config import from_json, option, to_json
from lookalike.core.errors import EncoderError, LookalikeError
from lookalike.core.files import fingerprint, kind_of, new_directory, read_json, write_json
from lookalike.encoders.pickles import is_pickle, no_tensors
from lookalike.encoders.readme import readme, table
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import NORM_PARTS as NORM_PARTS
from lookalike.towers import Bottleneck as Bottleneck
from lookalike.towers import Conv as Conv
from lookalike.towers import ConvNetConfig as ConvNetConfig
from lookalike.towers import ConvNeXtConfig as ConvNeXtConfig
from lookalike.towers import EfficientNetConfig as EfficientNetConfig
from lookalike.towers import MobileNetV2Config as MobileNetV2Config
from lookalike.towers import SwinConfig as SwinConfig
from lookalike.towers import Tower as Tower
from lookalike.towers import ViTConfig as ViTConfig
from lookalike.towers.ops import Pooling as Pooling
from lookalike.towers.programs.declare import Shapes as Shapes
from lookalike.towers.programs.declare import Tensor, bias, declare, matrix

if TYPE_CHECKING:
    from lookalike.encoders.text_side import TextSide

T = TypeVar("T")

Tensors = dict[str, np.ndarray]
"""Tensor name -> float32 array."""

FORMAT = 1
"""Version of the directory's form, written to `config.json`."""


@dataclass(frozen=True)
class ProjectionConfig:
    """Features to embedding: `l2_normalize(x @ weight + bias)`, or `l2_normalize(x)` for identity."""

    kind: Literal["identity", "linear"]
    """linear: from PCA or trained; its tensors are `projection.weight` [F D] and `projection.bias` [D]."""
    features: int
    """Numbers that come in (F)."""
    dimension: int
    """Numbers that go out (D)."""
    l2_normalize_input: bool = option(default=True, was="unit_input")
    """Whether the features are brought to length 1 first."""

    def __post_init__(self) -> None:
        if self.kind == "identity" and self.features != self.dimension:
            raise EncoderError(f"An identity projection can't turn {self.features} numbers into {self.dimension}.")

    def declare(self) -> dict[str, Tensor]:
        """Every tensor."""
        if self.kind == "identity":
            return {}
        return {"weight": matrix(self.features, self.dimension), "bias": bias(self.dimension)}


@dataclass(frozen=True)
class EncoderConfig:
    """All that turns an image into an embedding, but for the numbers in the tensors."""

    tower: Tower
    """The backbone."""
    pooling: Pooling
    """How tokens become features: the class token (ViT alone), their mean, their generalised mean with p = 3
    (convolutional towers, whose tokens aren't negative), or a learned probe's attention (ViT with such a head)."""
    preprocess: Preprocess
    """How an image becomes the tower's input."""
    projection: ProjectionConfig
    """How features become the embedding."""
    mirror: bool = False
    """Whether the features are the mean of those of the image and of its mirror image."""

    def __post_init__(self) -> None:
        if self.pooling not in self.tower.poolings:
            kind = type(self.tower).__name__.removesuffix("Config")
            raise EncoderError(
                f"Pooling {self.pooling!r} does not go with the tower ({kind}).",
                hint=f"for this one: {', '.join(self.tower.poolings)}",
            )
        if self.tower.only_size not in (None, self.preprocess.size):
            raise EncoderError(
                f"Images of {self.preprocess.size} px can't enter a tower for {self.tower.only_size} px."
            )
        if self.projection.features != self.tower.features:
            raise EncoderError(
                f"The projection takes {self.projection.features} numbers, the tower gives {self.tower.features}."
            )


def tensor_shapes(config: EncoderConfig) -> Shapes:
    """Name and shape of every tensor of the encoder; all are float32."""
    return {name: tensor.shape for name, tensor in declared(config).items()}


def declared(config: EncoderConfig) -> dict[str, Tensor]:
    """Every tensor of the encoder by its name: its shape, how it starts, whether it learns and decays."""
    tower = {f"tower.{name}": tensor for name, tensor in declare(config.tower).items()}
    return tower | {f"projection.{name}": tensor for name, tensor in config.projection.declare().items()}


def below(part: Literal["tower", "projection"], tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors of one part, by their names in it."""
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def check_tensors(shapes: Shapes, tensors: Mapping[str, np.ndarray], where: str) -> None:
    """EncoderError, naming every tensor that is missing, unknown, of a wrong shape or dtype, or not finite."""
    faults = [f"`{name}` is missing" for name in shapes if name not in tensors]
    faults += [f"`{name}` is unknown" for name in tensors if name not in shapes]
    for name in shapes.keys() & tensors.keys():
        found = tensors[name]
        if found.shape != shapes[name]:
            faults.append(f"`{name}` has shape {list(found.shape)}, expected {list(shapes[name])}")
        elif found.dtype != np.float32:
            faults.append(f"`{name}` is {found.dtype}, expected float32")
        elif not np.isfinite(found.sum(dtype=np.float64)):
            faults.append(f"`{name}` holds values that are not finite")
    if faults:
        faults.sort()
        more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise EncoderError(
            f"The tensors of `{where}` do not fit its config: {'; '.join(faults[:8])}{more}.",
            hint="get or make the model directory again: `lookalike pull ... --out MODEL`",
        )


def read_model(path: str | Path) -> tuple[EncoderConfig, Tensors]:
    """The encoder in the directory `path`, complete and checked.

    Raises:
        EncoderError: There is no encoder, or its config and tensors do not fit each other.
    """
    path = Path(path)
    config = read_config(path)
    if not (path / "model.safetensors").exists():
        raise no_tensors(path)
    tensors = read_safetensors(path / "model.safetensors")
    check_tensors(tensor_shapes(config), tensors, str(path))
    return config, tensors


def read_config(path: str | Path) -> EncoderConfig:
    """The config of the encoder in the directory `path`; EncoderError if it is none of ours."""
    path = Path(path)
    if not path.is_dir():
        raise EncoderError(
            f"There is no model directory `{path}`.",
            hint="`lookalike pull PRESET --out MODEL` gets one, `lookalike train` makes one",
        )
    try:
        data = read_json(path / "config.json")
    except FileNotFoundError as error:
        if any(path.glob("*.safetensors")) or not any(is_pickle(file.name) for file in path.iterdir()):
            raise EncoderError(f"`{path}` is not a model directory: it has no `config.json`.") from error
        raise no_tensors(path) from error
    except LookalikeError as error:
        raise EncoderError(f"`{path}` is not a model directory: {error.message}") from error
    if kind_of(path) == "run" and (path / "model").is_dir():
        raise EncoderError(f"`{path}` is a run, not a model directory.", hint=f"its encoder is `{path / 'model'}`")
    if not isinstance(data, dict) or data.get("type") != "EncoderConfig":
        raise EncoderError(
            f"`{path}` holds a model in another layout than ours.",
            hint=f"`lookalike pull {path} --out MODEL` converts it",
        )
    if data.pop("format", None) != FORMAT:
        raise EncoderError(f"`{path}` has another format than {FORMAT}.", hint="install the version that wrote it")
    try:
        config: EncoderConfig = from_json(EncoderConfig, data)
    except LookalikeError as error:
        raise EncoderError(f"The config of `{path}` can't be read: {error.message}") from error
    return config


def read_safetensors(path: Path) -> Tensors:
    """Every tensor in the file as it is stored; EncoderError if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise EncoderError(f"`{path}` is damaged: {error}.", hint="get the file again") from error
    except FileNotFoundError as error:  # what it says of a file that may not be read, too
        raise EncoderError(f"`{path}` can't be opened.", hint="`ls -l` says who may read it") from error


def write_safetensors(path: Path, shapes: Shapes, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the tensors named in `shapes`, in that order; OSError where the disk is full."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(tensors[name]) for name in shapes}, path)
    except SafetensorError as error:
        if "os error 28" in str(error):  # the library hides the errno that tells a full disk
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def write_model(
    path: str | Path,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    card: dict[str, Any],
    text: "TextSide | None" = None,
) -> None:
    """Write the encoder as the directory `path`, whole or not at all.

    Args:
        path: Must not exist, or be empty.
        config: The encoder's config.
        tensors: Exactly those of `tensor_shapes(config)`.
        card: What a reader of the model should know: "name", "license", "source", ...; saved as it is in `card.json`
            and shown in the model card `README.md`.
        text: The text side, if there is one that belongs to this tower.
    """
    check_tensors(tensor_shapes(config), tensors, str(path))
    whole = fingerprint_of(config, tensors)
    if text is not None and text.image != features_fingerprint_of(config, tensors):
        raise EncoderError(f"The text side for `{path}` belongs to other image features, so it is not written.")
    with new_directory(path, "encoder") as directory:
        write_json(directory / "config.json", {"format": FORMAT, **to_json(config)})
        write_json(directory / "card.json", {**card, "fingerprint": whole})
        known = card if text is None else {**card, "text": f"up to {text.config.context} tokens"}
        (directory / "README.md").write_text(_readme(config, known, whole, Path(path).name), encoding="utf-8")
        write_safetensors(directory / "model.safetensors", tensor_shapes(config), tensors)
        if text is not None:
            text.write(directory)


def fingerprint_of(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of weights and config, and of nothing else; 64 hex digits."""
    told = to_json(config)
    # Hashed under its first name, so that models keep their fingerprints.
    told["projection"]["unit_input"] = told["projection"].pop("l2_normalize_input")
    return fingerprint(json.dumps(told, sort_keys=True), *_digests(tensors))


def features_fingerprint_of(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of what makes the features: tower, pooling, preprocessing; neither mirror nor projection."""
    parts = {"tower": config.tower, "pooling": config.pooling, "preprocess": config.preprocess}
    made = {name: tensor for name, tensor in tensors.items() if name.startswith("tower.")}
    return fingerprint(json.dumps(to_json(parts), sort_keys=True), *_digests(made))


def _digests(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Name, shape and content of each tensor; one at a time, so that a large tower is never held twice."""
    lines = []
    for name, tensor in sorted(tensors.items()):
        content = hashlib.sha256(np.ascontiguousarray(tensor, dtype="<f4").data).hexdigest()
        lines.append(f"{name} {list(tensor.shape)} {content}")
    return lines


def _readme(config: EncoderConfig, card: dict[str, Any], whole: str, name: str) -> str:
    """The model card: facts, and how to use it."""
    facts = {
        "tower": type(config.tower).__name__.removesuffix("Config"),
        "input": f"{config.preprocess.size} x {config.preprocess.size} px ({config.preprocess.mode})",
        "features": f"{config.tower.features} ({config.pooling} pooling)",
        "embedding": f"{config.projection.dimension} numbers of unit length ({config.projection.kind} projection)",
        **{key: value for key, value in card.items() if isinstance(value, (str, int, float)) and key != "name"},
        "fingerprint": f"`{whole}`",
    }
    code = f"import lookalike\n\nvectors = lookalike.load({name!r}).embed(['image.jpg'])"
    rows = table({key.replace("_", " "): value for key, value in facts.items()})
    return readme(card.get("name", name), code, rows, library="lookalike", licence=card.get("license"))
