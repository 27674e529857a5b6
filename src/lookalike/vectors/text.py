"""Texts to vectors in the space of an encoder's embeddings, for encoders that still have their text side."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lookalike.core.errors import EncoderError, UsageError
from lookalike.encoders.directory import FOLDER, read_config, read_text
from lookalike.encoders.tokenizer import Tokenizer
from lookalike.vectors.engines import Engine, JaxEngine, Known, opened, write_graph
from lookalike.vectors.runtime import BATCH, Embedder, load


def load_text(path: str | Path, image: Embedder | None = None) -> "TextEmbedder":
    """The text side of the encoder in the model directory `path`, ready to embed.

    `image` is the same encoder, if it is loaded already; texts run where it runs. EncoderError if there is none, it has
    no text side, or one that belongs to other image features; UsageError without the `tokenizers` library.

    >>> la.load_text("clip").embed(["a kettle", "a cup"]).shape
    (2, 12)
    """
    read_config(path)
    side, folder = read_text(path, tensors=False), Path(path) / FOLDER
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
            hint=f"remove `{folder}`, or pull the model again",
        )
    config, belongs = side.config, side.image
    tokenizer = Tokenizer(side.tokenizer, config, str(folder / "tokenizer.json"))
    if image.engine.name == "jax":
        from lookalike.towers.programs.jax import features

        # Texts are filled up to the whole context; what follows the end of one changes nothing.
        run, blank = partial(features, config, "class"), np.zeros(config.context, np.int32)
        engine = JaxEngine(run, _tensors(path), blank, config.features, BATCH, "float32")
        return TextEmbedder(tokenizer, image, engine)

    def make(directory: Path) -> Known:
        write_graph(directory, config, _tensors(path))
        return Known("", belongs)  # nothing asks for the fingerprint of a text side

    return TextEmbedder(tokenizer, image, opened(folder, config.features, make, batch=BATCH)[1])


def _tensors(path: str | Path) -> Mapping[str, np.ndarray]:
    side = read_text(path)
    assert side is not None
    return side.tensors


class TextEmbedder:
    """A text side that is ready: texts to features, features to embeddings of unit length.

    >>> words = la.load_text("clip")
    >>> words.dimension, words.embed(["a kettle"]).dtype
    (12, dtype('float32'))
    """

    def __init__(self, tokenizer: Tokenizer, image: Embedder, engine: Engine) -> None:
        self._tokenizer, self._image, self._engine = tokenizer, image, engine
        self.dimension = image.dimension

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "N D"]:
        """Embeddings of unit length, through the same projection as those of images; UsageError: it is one text."""
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
        return self._engine.features([self._tokenizer(text) for text in texts])
