"""A cold `likeness search`: how long from the shell to the answer, and where the time goes.

    python benchmarks/search.py                                 10,000 rows, MobileNetV2 with random weights
    python benchmarks/search.py --rows 500 --rounds 1           a smoke run

Each round starts new processes: an empty Python, the command itself, and the same steps one after the other with a
clock between them. Files are in the page cache, and the model's graph was built by an earlier call, as it is from the
second search on. Seconds are medians over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from likeness.data.collection import Collection
from likeness.data.images import encode_jpeg
from likeness.embedding.runtime import load
from likeness.models.config import EncoderConfig, ProjectionConfig, tensor_shapes, write_model
from likeness.models.preprocess import Preprocess
from likeness.models.towers import MobileNetV2Config

STEPS = """
import json, sys, time
steps, last = {}, float(sys.argv[3])
def step(name):
    global last
    now = time.time()
    steps[name], last = now - last, now
step("Python starts")
from likeness.commands import COMMANDS
from likeness.commands.search import Config
from likeness.core.config import parse
config = parse(Config, sys.argv[1:3], prog="likeness search", description="")
step("the command line is read")
from likeness.data.collection import Collection
step("import of Lance and Arrow")
card = Collection.open(config.collection).card["model"]
step("the collection is opened")
from likeness.embedding.runtime import load
import onnxruntime
step("import of ONNX Runtime")
embedder = load(card["path"])
step("the encoder is loaded")
from likeness.search.index import Index
index = Index.open(config.collection, embedder.embedding_column)
step("the vectors are read")
vectors = embedder.embed(config.images)
step("the picture is embedded")
matches = index.query(vectors, config.k)
step("the vectors are searched")
matches.rows(0)
step("the rows are read")
print(json.dumps(steps))
"""


def made_up(folder: Path, rows: int) -> tuple[str, str]:
    """A collection with embeddings of an encoder with random weights, and a picture to search with."""
    tower = MobileNetV2Config()
    config = EncoderConfig(
        tower,
        "mean",
        Preprocess(224, "crop", 256, "bilinear", (0.5,) * 3, (0.5,) * 3),
        ProjectionConfig("linear", tower.features, 64),
    )
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
        tensors[name] = (np.abs(value) + 0.5 if name.endswith("variance") else value).astype(np.float32)
    write_model(folder / "model", config, tensors, {"name": "random"})
    embedder = load(folder / "model")
    picture = encode_jpeg(rng.integers(0, 255, (256, 340, 3), np.uint8))
    (folder / "query.jpg").write_bytes(picture)
    embedder.embed([folder / "query.jpg"])
    collection = Collection.create(folder / "c")
    ids = np.arange(rows)
    columns = {"id": ids, "source": [f"{i}.jpg" for i in ids], "image": [picture] * rows, "stamp": ["1-1"] * rows}
    columns |= {name: pa.array([256] * rows, pa.int32()) for name in ("width", "height")}
    columns |= {name: [True] * rows for name in ("is_query", "is_gallery")}
    collection.append(
        pa.table(columns | {"gone": [False] * rows, "sha256": pa.array([bytes(32)] * rows, pa.binary(32))})
    )
    column = embedder.embedding_column
    collection.write_vectors(column, ids, rng.standard_normal((rows, 64), np.float32), {})
    collection.update_card({"model": {"path": str(folder / "model"), "fingerprint": "", "column": column}})
    return str(folder / "c"), str(folder / "query.jpg")


def timed(*arguments: str) -> tuple[float, str]:
    """Seconds and stdout of a new process."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, done.stdout


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="likeness-search-") as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        paths = made_up(Path(name), arguments.rows)
        empty, whole, steps = [], [], []
        for number in range(arguments.rounds + 1):  # the first one warms the page cache
            results = [
                timed("-c", "pass")[0],
                timed("-m", "likeness", "search", *paths)[0],
                json.loads(timed("-c", STEPS, *paths, repr(time.time()))[1]),
            ]
            if number:
                for values, result in zip((empty, whole, steps), results, strict=True):
                    values.append(result)
    report = {
        "an empty Python": round(statistics.median(empty), 3),
        "likeness search": round(statistics.median(whole), 3),
        "steps": {step: round(statistics.median(s[step] for s in steps), 3) for step in steps[0]},
        "settings": vars(arguments),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
