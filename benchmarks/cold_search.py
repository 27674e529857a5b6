"""A cold `lookalike search`, MobileNetV2 and 10,000 rows: how long it takes, and where each tenth of a second goes.

    python benchmarks/cold_search.py                            10,000 rows, 5 rounds
    python benchmarks/cold_search.py --rows 100 --rounds 1      a smoke run
    python benchmarks/cold_search.py --beside DIR               also with DIR, as of `pip install --target DIR pandas`

Every search is a process of its own; files are in the page cache. The whole is timed from outside, as a person waits
for it. The parts are timed inside further processes, which import each library by itself and then search: their sum
is the whole but for the interpreter's own end. `first` is the search before which the graph had to be built.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.data.collection import SCHEMA, Collection
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import write_model
from lookalike.imaging.decode import encode_jpeg
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import MobileNetV2Config
from lookalike.vectors.runtime import load

PARTS = """
import gc, json, sys, time
gc.set_threshold(200_000, 20, 20)  # as `run` does
begun = last = time.time()
parts = {"python starts": begun - float(sys.argv[1])}

def lap(name):
    global last
    now = time.time()
    parts[name] = parts.get(name, 0) + now - last
    last = now

libraries = ("numpy", "unittest.mock", "jaxtyping", "PIL.Image", "pyarrow", "pyarrow.dataset")
for library in (*libraries, "lance", "safetensors", "onnxruntime"):
    __import__(library)
    lap(f"import {library}")
import lookalike.commands.search, lookalike.vectors.runtime, lookalike.retrieval.index
from lookalike.core.config import parse
lap("import lookalike")

def timed(owner, name, label):
    function = getattr(owner, name)
    def wrapper(*arguments, **options):
        lap("between")
        result = function(*arguments, **options)
        lap(label)
        return result
    setattr(owner, name, wrapper)

runtime, index = lookalike.vectors.runtime, lookalike.retrieval.index
timed(runtime, "load", "open the model directory")
timed(index.Index, "open", "read 64 numbers of every row")
timed(runtime.Embedder, "features", "the graph: open it and run it")
timed(lookalike.imaging.preprocess.Preprocess, "__call__", "preprocess the image")
timed(index.Index, "query", "compare with every row")
timed(index.Matches, "rows", "read the matches' rows")
from lookalike.commands import search
config = parse(search.Config, sys.argv[2:], prog="lookalike search", description="")
lap("parse the command line")
search.main(config)
lap("between")
assert not {"jax", "tyro", "typeguard"} & sys.modules.keys(), "a cold search must not import them"
print(json.dumps(parts), file=sys.stderr)
"""


def model_at(path: Path) -> None:
    """MobileNetV2 1.0 with random weights and a random projection to 64."""
    tower = MobileNetV2Config()
    preprocess = Preprocess(224, "crop", 256, "bilinear", (0.5,) * 3, (0.5,) * 3)
    config = EncoderConfig(tower, "mean", preprocess, ProjectionConfig("linear", tower.features, 64))
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        tensors[name] = (np.abs(value) if name.endswith("variance") else value).astype(np.float32)
    write_model(path, config, tensors, {})


def collection_at(path: Path, count: int, model: Path) -> None:
    """A collection of random images, indexed with random vectors under the model's name."""
    rng = np.random.default_rng(0)
    stored = [
        encode_jpeg(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)) for _ in range(64)
    ]
    columns = {
        "id": np.arange(count),
        "source": [f"images/{i}.jpg" for i in range(count)],
        "image": [stored[i % 64] for i in range(count)],
        "width": np.full(count, 256, np.int32),
        "height": np.full(count, 256, np.int32),
        "sha256": pa.array([i.to_bytes(32) for i in range(count)], pa.binary(32)),
        **{name: [f"{name} {i % 100}" for i in range(count)] for name in ("label", "domain", "split", "group")},
        "is_query": np.ones(count, bool),
        "is_gallery": np.ones(count, bool),
        "gone": np.zeros(count, bool),
        "stamp": [""] * count,
    }
    collection = Collection.create(path)
    collection.append(pa.table(columns, schema=SCHEMA))
    embedder = load(model, "onnx")
    vectors = rng.normal(size=(count, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made_by = {"fingerprint": embedder.fingerprint}
    collection.write_vectors(embedder.embedding_column, np.arange(count), vectors, made_by)
    noted = {"path": str(model), "fingerprint": embedder.fingerprint, "column": embedder.embedding_column}
    collection.update_card({"model": noted})
    (path.parent / "query.jpg").write_bytes(stored[0])


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall time of a process that must succeed, and its processor time, user and system."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", metavar="DIR", help="libraries that could be imported too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        environment = {**os.environ, "XDG_CACHE_HOME": f"{name}/cache", "JAX_PLATFORMS": ""}
        os.environ["XDG_CACHE_HOME"] = f"{name}/other"
        model_at(directory / "model")
        collection_at(directory / "collection", arguments.rows, directory / "model")
        search = [str(directory / "query.jpg"), "-i", str(directory / "collection")]
        whole = [sys.executable, "-c", "from lookalike.commands import run; run()", "search", *search]
        first, _ = seconds(whole, environment)
        more = environment | {"PYTHONPATH": os.pathsep.join(filter(None, (os.getenv("PYTHONPATH"), arguments.beside)))}
        totals, bare, worked, parts = [], [], [], []
        beside: list[tuple[float, float]] = []
        for _ in range(arguments.rounds):
            took, work = seconds(whole, environment)
            totals.append(took)
            worked.append(work)
            if arguments.beside:
                beside.append(seconds(whole, more))
            bare.append(seconds([sys.executable, "-c", "pass"], environment)[0])
            inside = [sys.executable, "-c", PARTS, str(time.time()), *search]
            done = subprocess.run(inside, env=environment, capture_output=True, text=True, check=True)
            parts.append(json.loads(done.stderr.splitlines()[-1]))
    print(f"cold `lookalike search`, {arguments.rows:,} rows, MobileNetV2, {arguments.rounds} rounds, medians\n")
    print(
        f"whole {statistics.median(totals):.2f} s ({min(totals):.2f} to {max(totals):.2f}); first {first:.2f} s; "
        f"processor {statistics.median(worked):.2f} s ({min(worked):.2f} to {max(worked):.2f}); "
        f"`python -c pass` {statistics.median(bare):.2f} s\n"
    )
    if beside:
        took, work = (np.array(values) for values in zip(*beside, strict=True))
        print(
            f"with `{Path(arguments.beside).name}` beside it: whole {np.median(took):.2f} s ({took.min():.2f} to "
            f"{took.max():.2f}), {np.median(took) / np.median(totals):.2f} times; processor {np.median(work):.2f} s "
            f"({work.min():.2f} to {work.max():.2f}), {np.median(work) / np.median(worked):.2f} times\n"
        )
    print("| part | seconds | share |\n| --- | ---: | ---: |")
    medians = {part: statistics.median(p.get(part, 0) for p in parts) for part in parts[0]}
    for part, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {part} | {value:.3f} | {value / sum(medians.values()):.0%} |")
    print(f"| sum | {sum(medians.values()):.3f} | |")


if __name__ == "__main__":
    main()
