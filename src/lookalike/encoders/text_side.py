"""The text side of an encoder: the subdirectory `text/` of a model directory. No JAX here.

    MODEL/text/config.json         the tower, and the features of the image side that its texts belong to
               model.safetensors   its tensors
               tokenizer.json      what turns texts into its tokens

The image side does not know of it: config, fingerprint and vectors are the same with and without. The text side knows
the fingerprint of the image features that it was trained to meet. A projection behind these features may change, since
texts go through the same one; with any other tower or preprocessing the texts would mean nothing, and are refused.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lookalike.core.config import from_json, to_json
from lookalike.core.errors import EncoderError, LookalikeError
from lookalike.core.files import read_json, write_json
from lookalike.encoders.config import (
    EncoderConfig,
    Tensors,
    ViTConfig,
    check_tensors,
    read_safetensors,
    write_safetensors,
)
from lookalike.towers.programs.declare import shapes_of
from lookalike.towers.text import TextConfig

FOLDER = "text"
"""Its name inside a model directory."""

FORMAT = 1
"""Version of the form, written to its `config.json`."""


@dataclass(frozen=True)
class TextSide:
    """All that turns a text into features, but for the projection, which is the encoder's."""

    config: TextConfig
    tensors: Tensors
    """Those of `shapes_of(config)`."""
    tokenizer: str
    """The content of `tokenizer.json`."""
    image: str
    """Fingerprint of the image features that the texts belong to, 64 hex digits."""

    def write(self, directory: Path) -> None:
        """Write `text/` into a model directory that is being made."""
        check_tensors(shapes_of(self.config), self.tensors, f"{directory / FOLDER}")
        folder = directory / FOLDER
        folder.mkdir()
        write_json(folder / "config.json", {"format": FORMAT, "image": self.image, **to_json(self.config)})
        write_safetensors(folder / "model.safetensors", shapes_of(self.config), self.tensors)
        (folder / "tokenizer.json").write_text(self.tokenizer, encoding="utf-8")


def meets(published: EncoderConfig, config: EncoderConfig) -> bool:
    """Whether the features of `config` lie in the space of those of `published`, whose weights they are made with.

    Another side or other statistics of the input, or overlapping patches, leave it so; another layer, pooling or head
    does not.
    """
    tower = config.tower
    if isinstance(tower, ViTConfig) and isinstance(published.tower, ViTConfig):
        tower = replace(tower, size=published.tower.size, stride=published.tower.stride)
    return tower == published.tower and config.pooling == published.pooling


def read_text(path: str | Path) -> TextSide | None:
    """The text side of the model directory `path`, complete and checked; None if it has none.

    Raises:
        EncoderError: It is damaged or incomplete.
    """
    described = read_text_config(path)
    if described is None:
        return None
    config, image = described
    folder = Path(path) / FOLDER
    tensors = read_safetensors(folder / "model.safetensors")
    check_tensors(shapes_of(config), tensors, str(folder))
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
