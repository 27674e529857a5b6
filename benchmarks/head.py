"""Training a head on cached features: our step, torch eager as the field writes it, torch.compile with our formula.

    python benchmarks/head.py                          full size: 1280 -> 64 -> 17,691 classes, batch 1024, 2 threads
    python benchmarks/head.py --classes 500 --batch 64 --rounds 1     a smoke run

Rounds are interleaved: each measures every contender and the matrix product that stands for the machine's peak, so
that ratios hold on a busy machine. `ours` is the step of the library with everything the `head` recipe has around it
(unit length, geometry off, gradient norm in the metrics). Needs torch (group `reference`).
"""

# ruff: noqa: E402  thread settings come before the libraries that read them

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--features", type=int, default=1280)
parser.add_argument("--dimension", type=int, default=64)
parser.add_argument("--chunk", type=int, default=1024, help="classes whose logits we hold at a time; 0: all")
parser.add_argument("--classes", type=int, default=17691)
parser.add_argument("--batch", type=int, default=1024)
parser.add_argument("--rounds", type=int, default=4)
parser.add_argument("--steps", type=int, default=3, help="steps in a round")
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()

os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as the process may use cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])

import jax.numpy as jnp
import numpy as np
import torch

from lookalike.losses import ArcFace
from lookalike.training.config import HeadStage, Optimizer
from lookalike.training.learner import Fixed
from lookalike.training.optimizer import make_optimizer
from lookalike.training.step import Batch, Learner, Running, first_state, make_objective, make_step

MARGIN, SCALE, RATE = 0.3, 30.0, 1e-3
Step = Callable[[], float]


def made_up() -> tuple[np.ndarray, ...]:
    """Features, labels, and first weights that every contender starts from."""
    rng = np.random.default_rng(0)
    features = np.abs(rng.standard_normal((arguments.batch, arguments.features), np.float32))
    label = rng.integers(0, arguments.classes, arguments.batch).astype(np.int32)
    weight = rng.standard_normal((arguments.features, arguments.dimension), np.float32) / 8
    centers = rng.standard_normal((arguments.classes, arguments.dimension), np.float32) / 8
    return features, label, weight, centers


def ours() -> Step:
    """The library's own step."""
    features, label, weight, centers = made_up()
    rates = Optimizer(learning_rate=RATE, centers_learning_rate=RATE, weight_decay=0.01, warmup=0.0)
    config = HeadStage(loss=ArcFace(MARGIN, SCALE), chunk=arguments.chunk, optimizer=rates, batch=arguments.batch)
    optimizer = make_optimizer(config.optimizer, 10**9, {"projection.weight"})
    projection = {"weight": jnp.asarray(weight), "bias": jnp.zeros(arguments.dimension)}
    learner = Learner({}, projection, {"weight": jnp.asarray(centers[:, None])})
    state, fixed = first_state(learner, optimizer, Running({}, {}), averaged=False), Fixed({}, {})
    sizes = np.ones(arguments.classes, np.int64)
    objective = make_objective(config, lambda _tower, _fixed, inputs: inputs, sizes)
    step = make_step(objective, optimizer, config, 0, epoch_steps=1.0)
    batch = Batch(jnp.asarray(features)[:, None], jnp.asarray(label))

    def once() -> float:
        nonlocal state
        state, metrics = step(state, fixed, batch)
        return float(metrics["loss"])

    return once


def torch_step(loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], compiled: bool) -> Step:
    """Projection, unit lengths, cosines, `loss_of`, backward, AdamW."""
    features, label, weight, centers = (torch.tensor(array) for array in made_up())
    label = label.long()
    weight, bias, centers = (torch.nn.Parameter(t) for t in (weight, torch.zeros(arguments.dimension), centers))
    optimizer = torch.optim.AdamW([weight, bias, centers], lr=RATE, weight_decay=0.01)

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize
        return loss_of(unit(unit(x) @ weight + bias) @ unit(centers).T, y)

    run = torch.compile(forward) if compiled else forward

    def once() -> float:
        optimizer.zero_grad()
        loss = run(features, label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return once


def as_the_field_writes_it(cosine: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """sqrt(1 - cos^2) over all classes, one-hot, cross-entropy (the widely copied ArcFace layer)."""
    sine = torch.sqrt((1.0 - cosine**2).clamp(1e-9, 1))
    phi = cosine * math.cos(MARGIN) - sine * math.sin(MARGIN)
    phi = torch.where(cosine > math.cos(math.pi - MARGIN), phi, cosine - math.sin(math.pi - MARGIN) * MARGIN)
    one_hot = torch.zeros_like(cosine).scatter_(1, label.view(-1, 1), 1.0)
    return torch.nn.functional.cross_entropy(SCALE * (one_hot * phi + (1.0 - one_hot) * cosine), label)


def with_our_formula(cosine: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Our formula, word for word (lookalike.losses)."""
    true = cosine.gather(1, label[:, None])[:, 0].clamp(-1, 1)
    sine = torch.sqrt(((1 - true) * (1 + true)).clamp_min(1e-6))
    turned = true * math.cos(MARGIN) - sine * math.sin(MARGIN)
    hard = torch.where(true >= -math.cos(MARGIN), turned, true - MARGIN * math.sin(MARGIN))
    at_true = torch.arange(cosine.shape[1])[None, :] == label[:, None]
    logit = SCALE * torch.where(at_true, hard[:, None], cosine)
    return (SCALE + torch.log(torch.exp(logit - SCALE).sum(1)) - SCALE * hard).mean()


def peak() -> Callable[[], object]:
    """The matrix product whose rate is called the machine's peak: 2048 x 2048, float32, by torch."""
    a = torch.ones(2048, 2048)
    return lambda: torch.mm(a, a)


def seconds(once: Callable[[], object], times: int) -> float:
    """Mean over `times` calls."""
    begun = time.perf_counter()
    for _ in range(times):
        once()
    return (time.perf_counter() - begun) / times


def main() -> None:
    torch.set_num_threads(arguments.threads)
    contenders: dict[str, Step] = {
        "ours": ours(),
        "torch eager, as the field writes it": torch_step(as_the_field_writes_it, compiled=False),
        "torch eager, our formula": torch_step(with_our_formula, compiled=False),
        "torch.compile, our formula": torch_step(with_our_formula, compiled=True),
    }
    product = peak()
    first = {name: once() for name, once in contenders.items()}  # compiles
    for once in contenders.values():
        once()  # torch.compile compiles the optimiser's and the second call's shapes too
    assert max(first.values()) - min(first.values()) < 1e-3, f"the contenders disagree: {first}"
    times: dict[str, list[float]] = {name: [] for name in [*contenders, "peak"]}
    for _ in range(arguments.rounds):
        times["peak"].append(seconds(product, 3))
        for name, once in contenders.items():
            times[name].append(seconds(once, arguments.steps))
    # Per step: the projection forward and its weight's gradient, the cosines forward and both gradients.
    flops = 2 * arguments.batch * arguments.dimension * (2 * arguments.features + 3 * arguments.classes)
    rate = 2 * 2048**3 / statistics.median(times["peak"])
    rows = {}
    for name in contenders:
        ratios = [theirs / mine for theirs, mine in zip(times[name], times["ours"], strict=True)]
        middle = statistics.median(times[name])
        rows[name] = {
            "steps_per_second": round(1 / middle, 2),
            "share_of_peak": round(flops / middle / rate, 3),
            "ours_is_faster_by": round(statistics.median(ratios), 2),
            "first_loss": first[name],
        }
        share, faster = rows[name]["share_of_peak"], rows[name]["ours_is_faster_by"]
        print(f"{name:38s} {1 / middle:7.2f} steps/s  {share:6.1%} of peak  x{faster}")
    gflops = round(rate / 1e9, 1)
    print(json.dumps({"peak_gflops": gflops, "load": os.getloadavg()[0], **vars(arguments), "rows": rows}))


if __name__ == "__main__":
    main()
