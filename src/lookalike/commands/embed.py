"""lookalike embed: a model's features and embeddings, as columns of a collection."""

from dataclasses import dataclass
from typing import Literal

from lookalike.core.config import in_range, option
from lookalike.core.journal import note


@dataclass(frozen=True)
class Config:
    """Write a model's vectors into a collection; only images that have none yet are embedded."""

    collection: str = option(positional=True, metavar="COLL")
    """The collection whose images are embedded."""
    model: str = option(default="", metavar="MODEL")
    """The model: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub. Unless given,
    LOOKALIKE_MODEL, then the one that COLL was indexed with, then `laptop`."""
    runtime: Literal["auto", "jax", "onnx"] = "auto"
    """onnx: on the CPU, in float32. jax: on JAX's devices, in float32. auto: jax in bfloat16 if JAX can use an
    accelerator here, else onnx, with matrix products of eight bits where that is faster and close enough to float32."""
    batch: int = 64
    """Images that go through the model at once; a killed run does at most so many twice."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, float("inf"), "batch")


def main(config: Config) -> None:
    """Fill the columns, and print the name of the one that holds the embeddings."""
    print(run(config))


def run(config: Config) -> str:
    """Fill the columns; the name of the one that holds the embeddings."""
    from lookalike.commands.models import model_of
    from lookalike.data.collection import Collection
    from lookalike.vectors.column import ensure_embeddings
    from lookalike.vectors.runtime import load

    collection = Collection.open(config.collection)
    embedder = load(model_of(config.model, config.collection), config.runtime, config.batch)
    if embedder.cosine is not None:
        note(f"in eight bits: cosine {embedder.cosine:.4f} and more with float32, which `--runtime onnx` takes")
    return ensure_embeddings(embedder, collection).column
