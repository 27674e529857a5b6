"""Texts to vectors in the space of an encoder's embeddings, for encoders that still have their text side."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lookalike.core.errors import EncoderError, UsageError
from lookalike.encoders.config import TextSide
from lookalike.encoders.directory import FOLDER, read_config, read_text
from lookalike.encoders.tokenizer import Tokenizer
from lookalike.towers.text import TextConfig
from lookalike.vectors import cache
from lookalike.vectors.engines import OnnxEngine
from lookalike.vectors.runtime import BATCH, Embedder, load


def load_text(path: str | Path, image: Embedder | None = None) -> "TextEmbedder":
    """The text side of the encoder in the model directory `path`, ready to embed.

    Args:
        path: A model directory with a text side.
        image: The same encoder, if it is loaded already. Texts run where it runs.

    Raises:
        EncoderError: There is no encoder, it has no text side, or one that belongs to other image features.
        UsageError: The `tokenizers` library is not installed.
    """
    read_config(path)
    side = read_text(path, tensors=False)
    if side is None:
        raise EncoderError(
            f"`{path}` has no text side, so it can't be asked with words.",
            hint="CLIP, OpenCLIP and SigLIP have one, with the projected features of their image tower: "
            "`lookalike pull clip-vit-b-32 --out MODEL`; training a projection keeps it, training the tower does not",
        )
    image = image or load(path)
    if side.image != image.features_fingerprint:
        raise EncoderError(
            f"The text side of `{path}` belongs to other image features ({side.image[:8]}) than it makes now "
            f"({image.features_fingerprint[:8]}), so that its texts would mean nothing.",
            hint=f"remove `{Path(path) / FOLDER}`, or pull the model again",
        )
    tokenizer = Tokenizer(side.tokenizer, side.config, str(Path(path) / FOLDER / "tokenizer.json"))
    if image.engine.name == "jax":
        return TextEmbedder(tokenizer, image, JaxTexts(_side(path)))
    return TextEmbedder(tokenizer, image, _onnx(path, side.config, side.image))


class TextEmbedder:
    """A text side that is ready: texts to features, features to embeddings of unit length."""

    def __init__(self, tokenizer: Tokenizer, image: Embedder, engine: "OnnxEngine | JaxTexts") -> None:
        self._tokenizer, self._image, self._engine = tokenizer, image, engine

    @property
    def dimension(self) -> int:
        """Numbers in an embedding (D)."""
        return self._image.dimension

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "N D"]:
        """Embeddings of unit length, through the same projection as those of images.

        Raises:
            UsageError: `texts` is one text instead of several.
        """
        features = self.features(texts)
        # A text has no mirror image: where images are the mean of both, it stands for both.
        return self._image.project(features, features if self._image.config.mirror else None)

    def features(self, texts: Sequence[str]) -> Float32[np.ndarray, "N F"]:
        """Features in the space of the image tower's, as the tower gives them; not of unit length."""
        if isinstance(texts, str):
            raise UsageError(f"`embed` takes several texts, and was given {texts!r} alone.", hint="embed([text])")
        if foreign := [text for text in texts if not isinstance(text, str)]:
            raise UsageError(
                f"`embed` takes texts, and was given {foreign[0]!r} among them.", hint="embed([str(x), ...])"
            )
        return self._engine.each("ids", [self._tokenizer(text) for text in texts])


class JaxTexts:
    """The text tower on JAX's first device: one program for one fixed shape, texts filled up to the whole context."""

    def __init__(self, side: TextSide) -> None:
        import jax
        import jax.numpy as jnp

        from lookalike.towers.programs.jax import features

        self._config = side.config
        self._tensors = {name: jnp.asarray(tensor) for name, tensor in side.tensors.items()}
        self._run = jax.jit(partial(features, side.config, "class"))

    def each(self, _name: str, items: Sequence[np.ndarray]) -> Float32[np.ndarray, "N F"]:
        """The features of texts, given by their ids, each of its own length."""
        parts = [np.empty((0, self._config.features), np.float32)]
        for start in range(0, len(items), BATCH):
            some = items[start : start + BATCH]
            ids = np.zeros((BATCH, self._config.context), np.int32)  # what follows the end of a text changes nothing
            for row, item in zip(ids, some, strict=False):
                row[: len(item)] = item
            parts.append(np.asarray(self._run(self._tensors, ids))[: len(some)])
        return np.concatenate(parts)


def _side(path: str | Path) -> TextSide:
    side = read_text(path)
    assert side is not None
    return side


def _onnx(path: str | Path, config: TextConfig, image: str) -> OnnxEngine:
    def make(directory: Path) -> cache.Known:
        cache.write_text_graph(directory, config, _side(path).tensors)
        return cache.Known("", image)  # nothing asks for the fingerprint of a text side

    _, graph, temporary = cache.graph_of(Path(path) / FOLDER, False, make)
    return OnnxEngine(graph, config.features, batch=BATCH, temporary=temporary)
