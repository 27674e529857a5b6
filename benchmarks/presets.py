"""Images a second of every preset on this CPU, as `embed` runs them, with random weights.

    python benchmarks/presets.py --write                  all of them: the figures of `lookalike pull --all`
    python benchmarks/presets.py mobilenet-v2 --seconds 1     a smoke run

`float32` is ONNX Runtime with the float32 graph. `auto` is what `embed` takes: eight bits where the features keep a
cosine of 0.999, else the same as `float32`. Trained weights may decide otherwise than random ones. A graph is timed for
`--seconds`, and for as many images at least as there are threads, after one to warm up.
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("names", nargs="*", help="presets; all if none is given")
parser.add_argument("--seconds", type=float, default=4)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--write", action="store_true", help="keep the figures where `lookalike pull --list` reads them")
arguments = parser.parse_args()

if hasattr(os, "sched_setaffinity"):  # lookalike takes as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import numpy as np

from lookalike.core.journal import note, table
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors, tensor_shapes
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.presets import PRESETS, SPEEDS, Preset
from lookalike.vectors.engines import LEAST_COSINE, OnnxEngine, lowest_cosine, write_graph


def encoder(preset: Preset) -> tuple[EncoderConfig, Tensors]:
    """The preset's tower with random weights that keep signals at their size."""
    half = (0.5, 0.5, 0.5)
    preprocess = Preprocess(preset.size, "squash", preset.size, "bicubic", half, half)
    features = preset.tower.features
    config = EncoderConfig(preset.tower, preset.pooling, preprocess, ProjectionConfig("identity", features, features))
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in tensor_shapes(config).items():
        part = name.split(".")[-1]
        if part == "bias" or part == "mean":
            tensors[name] = np.zeros(shape, np.float32)
        elif len(shape) - name.startswith("tower.blocks.") < 2:
            tensors[name] = np.ones(shape, np.float32)
        else:
            fan_in = int(np.prod(shape[:-1])) if ".conv." in name else shape[-2]
            tensors[name] = rng.standard_normal(shape, np.float32) * np.float32(fan_in**-0.5)
    return config, tensors


def rate(graph: Path, config: EncoderConfig) -> float:
    """Images a second."""
    side = config.preprocess.size
    engine = OnnxEngine(graph, config.tower.features, batch=arguments.threads)
    images = np.random.default_rng(1).integers(0, 256, (arguments.threads, side, side, 3), dtype=np.uint8)
    engine.features(images)
    begun, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begun < arguments.seconds:
        engine.features(images)
        count += len(images)
    return count / (time.perf_counter() - begun)


def measured(preset: Preset) -> dict[str, float]:
    """Images a second of one preset."""
    config, tensors = encoder(preset)
    with tempfile.TemporaryDirectory() as directory:
        graphs = {}
        for int8 in (False, True):
            (Path(directory) / str(int8)).mkdir()
            graphs[int8] = write_graph(Path(directory) / str(int8), config, tensors, int8)
        del tensors
        exact = rate(graphs[False], config)
        fast = exact
        if b"MatMulInteger" in graphs[True].read_bytes():
            cosine = lowest_cosine(graphs[False], graphs[True], preset.size, preset.tower.features)
            note(f"cosine of eight bits: {cosine:.5f}")
            if cosine >= LEAST_COSINE:
                fast = rate(graphs[True], config)
    return {"float32": float(f"{exact:.3g}"), "auto": float(f"{fast:.3g}")}


def main() -> None:
    found: dict[str, dict[str, float]] = {}
    for name in arguments.names or PRESETS:
        same = next((n for n in found if PRESETS[n].tower == PRESETS[name].tower), None)
        note(name)
        found[name] = found[same] if same else measured(PRESETS[name])
        gc.collect()
        if arguments.write:
            kept = json.loads(SPEEDS.read_text()) if SPEEDS.exists() else {}
            SPEEDS.write_text(json.dumps(dict(sorted({**kept, **found}.items())), indent=1) + "\n")
    print(
        table(["preset", "float32, images/s", "auto, images/s"], [[n, *map(str, f.values())] for n, f in found.items()])
    )


if __name__ == "__main__":
    main()
