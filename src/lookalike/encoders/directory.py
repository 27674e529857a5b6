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

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import EncoderError, LookalikeError
from lookalike.core.files import fingerprint, kind_of, new_directory, read_json, write_json
from lookalike.encoders.config import EncoderConfig, Tensors, TextSide, check_tensors, tensor_shapes
from lookalike.encoders.readme import readme, table
from lookalike.towers.ops import Shapes, shapes_of
from lookalike.towers.text import TextConfig

FORMAT = 1  # version of either side's form, written to its `config.json`
FOLDER = "text"  # the text side's name inside a model directory


def read_model(path: str | Path) -> tuple[EncoderConfig, Tensors]:
    """The encoder in the directory `path`; EncoderError if there is none, or its config and tensors do not fit."""
    config = read_config(path)
    if not (Path(path) / "model.safetensors").exists():
        raise no_tensors(Path(path))
    return config, _read_tensors(Path(path), tensor_shapes(config))


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
        names = [] if any(path.glob("*.safetensors")) else [file.name for file in path.iterdir()]
        nothing = EncoderError(f"`{path}` is not a model directory: it has no `config.json`.")
        raise pickles_only(path, names) or nothing from error
    except LookalikeError as error:
        raise EncoderError(f"`{path}` is not a model directory: {error.message}") from error
    if kind_of(path) == "run" and (path / "model").is_dir():
        raise EncoderError(f"`{path}` is a run, not a model directory.", hint=f"its encoder is `{path / 'model'}`")
    if not isinstance(data, dict) or data.get("type") != "EncoderConfig":
        raise EncoderError(
            f"`{path}` holds a model in another layout than ours.",
            hint=f"`lookalike pull {shlex.quote(str(path))} --out MODEL` converts it",
        )
    if data.pop("format", None) != FORMAT:
        raise EncoderError(f"`{path}` has another format than {FORMAT}.", hint="install the version that wrote it")
    try:
        config: EncoderConfig = from_json(EncoderConfig, data)
    except LookalikeError as error:
        raise EncoderError(f"The config of `{path}` can't be read: {error.message}") from error
    return config


def no_tensors(path: Path) -> EncoderError:
    """What is wrong with a directory that has a config and no safetensors."""
    return pickles_only(path, [file.name for file in path.iterdir()]) or EncoderError(
        f"`{path}` has no safetensors beside its config.", hint="copy or pull the model directory again"
    )


def pickles_only(where: Path | str, names: Iterable[str]) -> EncoderError | None:
    """What is wrong with a directory or a repository whose tensors are pickles; None if it has none of these.

    Its hint converts them. The names of its files are a stranger's: data in one quoted argument, no words of the shell.
    """
    pickles = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")) and "/" not in n)
    if not pickles:
        return None
    several = [name for name in pickles if name.startswith("pytorch_model-")]
    chosen = several or [name for name in pickles if name.endswith("pytorch_model.bin")][:1] or pickles[:1]
    target = "open_clip_model.safetensors" if chosen[0].startswith("open_clip") else "model.safetensors"
    code = (
        f"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for f in {json.dumps(chosen)} "
        f'for k, v in torch.load(f, map_location="cpu", weights_only=True).items()}}, "{target}")'
    )
    there = f"cd {shlex.quote(str(where))}"
    there = there if isinstance(where, Path) else f"hf download {where} --local-dir DIR && cd DIR"
    return EncoderError(
        f"`{where}` holds only pickles ({', '.join(pickles)}), which can run any code when read, so they are not.",
        hint=f"{there} && python -c {shlex.quote(code)}",
    )


def read_text(path: str | Path, *, tensors: bool = True) -> TextSide | None:
    """The text side of the model directory `path`, with or without its tensors; EncoderError if it is damaged."""
    folder = Path(path) / FOLDER
    if not (folder / "config.json").exists():
        return None
    try:
        data = read_json(folder / "config.json")
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise EncoderError(f"it has another format than {FORMAT}")
        image = str(data.pop("image", ""))
        config: TextConfig = from_json(TextConfig, data)
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except (LookalikeError, OSError, UnicodeDecodeError) as error:
        raise EncoderError(
            f"The text side of `{path}` can't be read: {getattr(error, 'message', error)}",
            hint="pull or train the model again",
        ) from error
    return TextSide(config, _read_tensors(folder, shapes_of(config)) if tensors else {}, tokenizer, image)


def _read_tensors(directory: Path, shapes: Shapes) -> Tensors:
    tensors = read_safetensors(directory / "model.safetensors")
    check_tensors(shapes, tensors, str(directory))
    return tensors


def read_safetensors(path: Path, prefix: str = "") -> Tensors:
    """Every tensor in the file whose name begins so, as it is stored."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  not a dict
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise EncoderError(f"`{path}` is damaged: {error}.", hint="get the file again") from error
    except FileNotFoundError as error:  # what it says of a file that may not be read, too
        raise EncoderError(f"`{path}` can't be opened.", hint="`ls -l` says who may read it") from error


def write_model(
    path: str | Path,
    config: EncoderConfig,
    tensors: Mapping[str, np.ndarray],
    card: dict[str, Any],
    text: TextSide | None = None,
) -> None:
    """Write the encoder as the new directory `path`, whole or not at all.

    `card` is what a reader of the model should know: "name", "license", "source", ...; it is saved as it is, and shown
    in `README.md`.
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
            folder, shapes = directory / FOLDER, shapes_of(text.config)
            check_tensors(shapes, text.tensors, str(folder))
            folder.mkdir()
            _write_side(folder, {"image": text.image, **to_json(text.config)}, shapes, text.tensors)
            (folder / "tokenizer.json").write_text(text.tokenizer, encoding="utf-8")


def _write_side(directory: Path, config: dict[str, Any], shapes: Shapes, tensors: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    write_json(directory / "config.json", {"format": FORMAT, **config})
    save_file({name: np.ascontiguousarray(tensors[name]) for name in shapes}, directory / "model.safetensors")


def fingerprint_of(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of weights and config, and of nothing else; 64 hex digits."""
    told = to_json(config)
    # Hashed under its first name, so that models keep their fingerprints.
    told["projection"]["unit_input"] = told["projection"].pop("l2_normalize_input")
    return fingerprint(json.dumps(told, sort_keys=True), *_digests(tensors))


def features_fingerprint_of(config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of what makes the features: tower, pooling, preprocessing, zooms; neither mirror nor projection."""
    parts: dict[str, Any] = {"tower": config.tower, "pooling": config.pooling, "preprocess": config.preprocess}
    parts |= {"zooms": config.zooms} if config.zooms else {}
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
    facts = {
        "tower": config.kind,
        "input": f"{config.preprocess.size} x {config.preprocess.size} px ({config.preprocess.mode})",
        "features": f"{config.tower.features} ({config.pooling} pooling)",
        "embedding": f"{config.projection.dimension} numbers of unit length ({config.projection.kind} projection)",
        **{key: value for key, value in card.items() if isinstance(value, (str, int, float)) and key != "name"},
        "fingerprint": f"`{whole}`",
    }
    code = f"import lookalike\n\nvectors = lookalike.load({name!r}).embed(['image.jpg'])"
    rows = table({key.replace("_", " "): value for key, value in facts.items()})
    return readme(card.get("name", name), code, rows, library="lookalike", licence=card.get("license"))
