"""Train steps of whole towers on a CPU against torch eager: MobileNetV2, ViT-Tiny and ViT-B/16 at 224 px.

    python benchmarks/tune.py                                            batches of 48, 32 and 8, 2 threads
    python benchmarks/tune.py --models mobilenet_v2 --batch 8 --rounds 1     a smoke run
    python benchmarks/tune.py --threads 1                                processor time, for a machine that is busy
    python benchmarks/tune.py --stored 512                               the whole way, from stored images

Both start from the same random weights and take the same normalised images through the tower, a projection to 64
numbers, ArcFace over 1,000 classes, the gradient, and AdamW over every tensor but the statistics of batch norms, which
stay as they are. Torch is the model of transformers with its default attention, batch norms in inference mode, and
fused AdamW. The losses of the first two steps must agree. Rounds are interleaved. Beside the time on the clock stands
the processor's: on a busy machine torch's threads wait for each other, and only its ratio with one thread says
something. Goals: 1.0, 1.2 and 1.1 times torch. Needs the group `reference`.

With `--stored N` a step's batch is drawn from N stored JPEGs, cropped, flipped and colored as in benchmarks/loader.py:
ours by the input stream of training, torch's by a DataLoader with `--workers` processes. The images differ, so losses
aren't compared. Goal: 1.1.
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "vit_tiny", "vit_b_16"])
parser.add_argument("--batch", type=int, default=0, help="images in a step; 0: each model's own")
parser.add_argument("--rounds", type=int, default=4)
parser.add_argument("--steps", type=int, default=1, help="steps in a round")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--stored", type=int, default=0, help="images on disk that steps begin with; 0: images in memory")
parser.add_argument("--workers", type=int, default=2, help="of torch's DataLoader")
parser.add_argument("--data", type=Path, default=os.environ.get("LOOKALIKE_DATA"), help="real images to store")
arguments = parser.parse_args()

os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

import loader
from lookalike.published.layouts import read_published
from lookalike.towers.ops import declare
from lookalike.towers.programs.jax import features, l2_normalize

SIZE, CLASSES, DIMENSION, MARGIN, SCALE, RATE = 224, 1000, 64, 0.3, 30.0, 1e-4
BATCHES = {"mobilenet_v2": 48, "vit_tiny": 32, "vit_b_16": 8}
GOALS = {"mobilenet_v2": 1.0, "vit_tiny": 1.2, "vit_b_16": 1.1}
Step = Callable[[Any, Any], float]  # of images and labels
Head = tuple[np.ndarray, np.ndarray]
Feed = Iterator[tuple[Any, Any]]

torch.set_num_threads(arguments.threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def model_of(name: str, images: np.ndarray) -> torch.nn.Module:
    """A model of transformers with random weights, batch norms fitted so that signals neither die nor burst."""
    torch.manual_seed(0)
    if name != "mobilenet_v2":
        width = {"vit_tiny": 192, "vit_b_16": 768}[name]
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64}
        quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return transformers.ViTModel(transformers.ViTConfig(**sizes, **quiet), add_pooling_layer=False).train()
    model = transformers.MobileNetV2Model(transformers.MobileNetV2Config(tf_padding=False)).train()
    with torch.no_grad():
        model(pixel_values=torch.from_numpy(images).permute(0, 3, 1, 2))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def head_of(width: int) -> Head:
    """Projection [F D] and centers [C D]."""
    rng = np.random.default_rng(1)
    return tuple(rng.standard_normal(shape, np.float32) / 8 for shape in ((width, DIMENSION), (CLASSES, DIMENSION)))  # type: ignore[return-value]


def ours(model: torch.nn.Module, head: Head, images: np.ndarray, label: np.ndarray) -> Step:
    """The step as JAX compiles it, its state donated."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        processor = {"size": {"height": SIZE, "width": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
        transformers.ViTImageProcessor(**processor).save_pretrained(directory)
        _, config, tensors = read_published(directory)
    tower = {name.removeprefix("tower."): jnp.asarray(t) for name, t in tensors.items() if name.startswith("tower.")}
    trained = {name for name, tensor in declare(config.tower).items() if tensor.trained}
    fixed = {name: t for name, t in tower.items() if name not in trained}
    learner = ({name: t for name, t in tower.items() if name in trained}, *map(jnp.asarray, head))
    optimizer = optax.adamw(RATE, weight_decay=0.01)

    def loss(learner: tuple, fixed: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        tower, weight, centers = learner
        if x.dtype == jnp.uint8:  # torch's workers do that
            x = (x.astype(jnp.float32) / 255 - 0.5) / 0.25
        embedding = l2_normalize(l2_normalize(features(config.tower, config.pooling, tower | fixed, x)) @ weight)
        cosine = embedding @ l2_normalize(centers).T
        true = jnp.take_along_axis(cosine, y[:, None], axis=1)[:, 0]
        hard = true * math.cos(MARGIN) - jnp.sqrt((1 - true) * (1 + true)) * math.sin(MARGIN)
        at_true = jnp.arange(CLASSES)[None, :] == y[:, None]
        return optax.softmax_cross_entropy_with_integer_labels(
            SCALE * jnp.where(at_true, hard[:, None], cosine), y
        ).mean()

    @partial(jax.jit, donate_argnums=0)
    def step(state: tuple, fixed: dict, x: jax.Array, y: jax.Array) -> tuple[tuple, jax.Array]:
        learner, moments = state
        value, gradient = jax.value_and_grad(loss)(learner, fixed, x, y)
        updates, moments = optimizer.update(gradient, moments, learner)
        return (optax.apply_updates(learner, updates), moments), value

    state, x, y = (learner, optimizer.init(learner)), jnp.asarray(images), jnp.asarray(label)
    begun = time.perf_counter()
    compiled = step.lower(state, fixed, x, y).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    print(f"  compiled in {time.perf_counter() - begun:.1f} s; {memory:.0f} MiB beside what goes in", flush=True)

    def once(x: np.ndarray, y: np.ndarray) -> float:
        nonlocal state
        state, value = compiled(state, fixed, x, y)
        return float(value)

    return once


def theirs(model: torch.nn.Module, head: Head) -> Step:
    """The same in torch."""
    weight, centers = (torch.nn.Parameter(torch.tensor(part)) for part in head)
    optimizer = torch.optim.AdamW([*model.parameters(), weight, centers], lr=RATE, weight_decay=0.01, fused=True)
    unit = torch.nn.functional.normalize

    def once(x: torch.Tensor, y: torch.Tensor) -> float:
        rows = torch.arange(len(y))
        optimizer.zero_grad()
        found = model(pixel_values=x)
        pooled = getattr(found, "pooler_output", None)
        pooled = found.last_hidden_state[:, 0] if pooled is None else pooled
        cosine = unit(unit(pooled) @ weight) @ unit(centers).T
        true = cosine[rows, y]
        hard = true * math.cos(MARGIN) - torch.sqrt((1 - true) * (1 + true)) * math.sin(MARGIN)
        logit = SCALE * cosine.index_put((rows, y), hard)
        loss = torch.nn.functional.cross_entropy(logit, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return once


def seconds(once: Step, feed: Feed) -> tuple[float, float]:
    """On the clock and of the processor, mean over the steps of a round."""
    clock, processor = time.perf_counter(), loader.spent()
    for _ in range(arguments.steps):
        once(*next(feed))
    return (time.perf_counter() - clock) / arguments.steps, (loader.spent() - processor) / arguments.steps


@contextmanager
def stored(batch: int) -> Iterator[dict[str, Feed]]:
    """Batches from images on disk, for either."""
    with tempfile.TemporaryDirectory() as home:
        collection, paths = loader.collected(Path(home), arguments.data, arguments.stored)
        own = loader.ours(collection, False, arguments.threads, batch)
        other = loader.peer(paths, arguments.workers, True, batch)
        with closing(own), closing(other):
            yield {
                "ours": ((found.images[0], (found.rows % CLASSES).astype(np.int32)) for found in own),
                "torch": ((x.contiguous(), y % CLASSES) for x, y in other),
            }


def measure(name: str) -> dict[str, float]:
    """Both contenders, their turns interleaved."""
    batch = arguments.batch or BATCHES[name]
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((batch, 14, 14, 3), np.float32)
    images, label = coarse.repeat(16, axis=1).repeat(16, axis=2), rng.integers(0, CLASSES, batch).astype(np.int32)
    model = model_of(name, images[:16])
    head = head_of(1280 if name == "mobilenet_v2" else model.config.hidden_size)
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(label).long()
    memory: dict[str, Feed] = {"ours": repeat((images, label)), "torch": repeat((x, y))}
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in memory}
    with stored(batch) if arguments.stored else nullcontext(memory) as feeds:
        if arguments.stored:  # before JAX has threads, which forked workers must not inherit: one model a call
            first = {who: next(feed) for who, feed in feeds.items()}
            images, label = first["ours"]
        contenders = {"ours": ours(model, head, images, label), "torch": theirs(model, head)}
        losses = {who: [once(*next(feeds[who])) for _ in range(2)] for who, once in contenders.items()}
        same = arguments.stored or np.allclose(losses["ours"], losses["torch"], rtol=1e-3)
        assert same, f"the contenders disagree: {losses}"
        for _ in range(arguments.rounds):
            for who, once in contenders.items():
                times[who].append(seconds(once, feeds[who]))
    row: dict[str, float] = {"batch": batch}
    for i, kind in enumerate(("clock", "processor")):
        own, other = ([found[i] for found in times[who]] for who in ("ours", "torch"))
        ratios = sorted(b / a for a, b in zip(own, other, strict=True))
        row |= {f"{kind}_ours": statistics.median(own), f"{kind}_torch": statistics.median(other)}
        row |= {f"{kind}_ratio": statistics.median(ratios), f"{kind}_low": ratios[0], f"{kind}_high": ratios[-1]}
        print(
            f"{name:14s} batch {batch:3d}  {kind:9s}  ours {statistics.median(own):6.3f} s  torch "
            f"{statistics.median(other):6.3f} s  x{statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}; goal {1.1 if arguments.stored else GOALS[name]})",
            flush=True,
        )
    return row


def main() -> None:
    rows = {name: measure(name) for name in arguments.models}
    print(json.dumps({"load": os.getloadavg()[0], **vars(arguments), "rows": rows}, default=str))


if __name__ == "__main__":
    main()
