"""`likeness embed MODEL COLL`: a model's features and embeddings, as columns of a collection."""

from dataclasses import dataclass
from typing import Literal

from likeness.core.config import option


@dataclass(frozen=True)
class Config:
    """Write a model's vectors into a collection; only pictures that have none yet are embedded."""

    model: str = option(positional=True, metavar="MODEL")
    """A model directory."""
    collection: str = option(positional=True, metavar="COLL")
    """The collection whose pictures are embedded."""
    runtime: Literal["auto", "jax", "onnx"] = "auto"
    """onnx: on the CPU. jax: on JAX's devices. auto: jax if JAX can use an accelerator here, else onnx."""
    batch: int = 64
    """Pictures that go through the model at once; a killed run does at most so many twice."""


def main(config: Config) -> None:
    """Fill the columns, and print the name of the one that holds the embeddings."""
    from likeness.core.errors import UsageError
    from likeness.data.collection import Collection
    from likeness.embedding.column import ensure_embeddings
    from likeness.embedding.runtime import load

    if config.batch < 1:
        raise UsageError(f"--batch is {config.batch}; expected 1 or more.")
    collection = Collection.open(config.collection)
    print(ensure_embeddings(load(config.model, config.runtime, config.batch), collection))
