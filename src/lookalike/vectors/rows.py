"""Features and images of some rows of a collection, in order."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core.journal import Progress
from lookalike.core.shapes import Ids
from lookalike.data.collection import Collection
from lookalike.encoders.config import EncoderConfig, declared
from lookalike.imaging.decode import decode
from lookalike.vectors.column import ensure_features
from lookalike.vectors.runtime import BATCH, Embedder, prepared

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder

Features = Float32[np.ndarray, "N F"]


def cached_features(
    embedder: Embedder, collection: Collection, ids: Ids, mirror: bool
) -> tuple[Features, Features | None]:
    """Features of the rows `ids`, and of their mirror images if asked for; computed and stored where missing.

    In float32 on every machine, as `embedder` must be: a run must not depend on which one embedded first.
    """

    def column(name: str) -> Features:
        every, vectors = collection.vectors(name)
        return vectors[np.searchsorted(every, ids)]

    names = ensure_features(embedder, collection, mirror)
    embedder.engine.rest()
    features, *mirrored = map(column, names)
    return features, mirrored[0] if mirror else None


def made_features(encoder: "Encoder", collection: Collection, ids: Ids, mirror: bool) -> Float32[np.ndarray, "N V F"]:
    """Features of the rows' images, and of their mirror images if asked for, of an encoder that has no directory."""
    import jax

    if jax.default_backend() == "cpu":
        run = Embedder.of(encoder).features
    else:
        from lookalike.core.mesh import shared

        stacked = {name for name, tensor in declared(encoder.config).items() if tensor.blocks}
        features = shared(type(encoder).features, encoder, stacked)

        def run(images: UInt8[np.ndarray, "B S S 3"]) -> Float32[np.ndarray, "B F"]:
            return features(filled(images))[: len(images)]

    found = []
    for images in stored_images(encoder.config, collection, ids):
        found.append(np.stack([run(view) for view in ([images, images[:, :, ::-1]] if mirror else [images])], axis=1))
    return np.concatenate(found)


def stored_images(config: EncoderConfig, collection: Collection, ids: Ids) -> Iterator[UInt8[np.ndarray, "B S S 3"]]:
    """Images of the rows `ids` as the encoder takes them, a batch at a time; progress is said."""
    places = range(0, len(ids), BATCH)
    data = (collection.take(ids[i : i + BATCH], ["image"])["image"].to_pylist() for i in places)
    with Progress("embed", "images", len(ids)) as bar:
        for images in prepared(data, lambda image: config.preprocess(decode(image))):
            yield np.stack(images)
            bar.advance(len(images))


def filled(images: UInt8[np.ndarray, "B S S 3"], count: int = BATCH) -> UInt8[np.ndarray, "N S S 3"]:
    """Images filled up to a whole batch, so that nothing is compiled for the last one."""
    return np.concatenate([images, np.zeros((count - len(images), *images.shape[1:]), images.dtype)])
