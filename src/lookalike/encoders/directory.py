"""An encoder as a directory, written whole or not at all. No JAX here.

    MODEL/config.json             the config
          model.safetensors       the tensors, checked by name, shape and dtype before they are used
          card.json, README.md    what a reader of the model should know
          text/config.json        the text tower, and the features of the image side that its texts belong to
               model.safetensors  its tensors
               tokenizer.json     what turns texts into its tokens

The image side does not know of the text side: config, fingerprint and vectors are the same with and without. The text
side knows the fingerprint of the image features that it was trained to meet. A projection behind these features may
change, since texts go through the same one; with any other tower or preprocessing the texts would mean nothing, and
are refused.
"""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import EncoderError, LookalikeError
from lookalike.core.files import fingerprint, kind_of, new_directory, read_json, write_json
from lookalike.encoders.config import EncoderConfig, Tensors, TextSide, check_tensors, tensor_shapes
from lookalike.encoders.pickles import is_pickle, no_tensors
from lookalike.encoders.readme import readme, table
from lookalike.towers.programs.declare import Shapes, shapes_of
from lookalike.towers.text import TextConfig

FORMAT = 1
"""Version of either side's form, written to its `config.json`."""

FOLDER = "text"
"""The text side's name inside a model directory."""


def read_model(path: str | Path) -> tuple[EncoderConfig, Tensors]:
    """The encoder in the directory `path`, complete and checked.

    Raises:
        EncoderError: There is no encoder, or its config and tensors do not fit each other.
    """
    path = Path(path)
    config = read_config(path)
    if not (path / "model.safetensors").exists():
        raise no_tensors(path)
    return config, _read_tensors(path, tensor_shapes(config))


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


def read_text(path: str | Path) -> TextSide | None:
    """The text side of the model directory `path`, complete and checked; None if it has none.

    Raises:
        EncoderError: It is damaged or incomplete.
    """
    described = read_text_config(path)
    if described is None:
        return None
    config, image = described
    tensors = _read_tensors(Path(path) / FOLDER, shapes_of(config))
    return TextSide(config, tensors, read_tokenizer_file(path), image)


def read_text_config(path: str | Path) -> tuple[TextConfig, str] | None:
    """The text tower of the model directory `path`, and the fingerprint that it belongs to; None if it has none."""
    file = Path(path) / FOLDER / "config.json"
    if not file.exists():
        return None
    try:
        data: Any = read_json(file)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise EncoderError(f"it has another format than {FORMAT}")
        image = str(data.pop("image", ""))
        config: TextConfig = from_json(TextConfig, data)
    except LookalikeError as error:
        raise EncoderError(
            f"The text side of `{path}` can't be read: {error.message}", hint="pull or train the model again"
        ) from error
    return config, image


def read_tokenizer_file(path: str | Path) -> str:
    """The content of `text/tokenizer.json` of the model directory `path`."""
    file = Path(path) / FOLDER / "tokenizer.json"
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EncoderError(f"`{file}` can't be read: {error}.", hint="pull or train the model again") from error


def _read_tensors(directory: Path, shapes: Shapes) -> Tensors:
    tensors = read_safetensors(directory / "model.safetensors")
    check_tensors(shapes, tensors, str(directory))
    return tensors


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
    text: TextSide | None = None,
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
        write_json(directory / "card.json", {**card, "fingerprint": whole})
        known = card if text is None else {**card, "text": f"up to {text.config.context} tokens"}
        (directory / "README.md").write_text(_readme(config, known, whole, Path(path).name), encoding="utf-8")
        _write_side(directory, to_json(config), tensor_shapes(config), tensors)
        if text is not None:
            check_tensors(shapes_of(text.config), text.tensors, f"{directory / FOLDER}")
            (directory / FOLDER).mkdir()
            head = {"image": text.image, **to_json(text.config)}
            _write_side(directory / FOLDER, head, shapes_of(text.config), text.tensors)
            (directory / FOLDER / "tokenizer.json").write_text(text.tokenizer, encoding="utf-8")


def _write_side(directory: Path, config: dict[str, Any], shapes: Shapes, tensors: Mapping[str, np.ndarray]) -> None:
    write_json(directory / "config.json", {"format": FORMAT, **config})
    write_safetensors(directory / "model.safetensors", shapes, tensors)


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
