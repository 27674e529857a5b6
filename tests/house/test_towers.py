"""A tower is one class and one line: the table names each file, and a tower from anywhere is read by all programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jax.numpy as jnp
import numpy as np
import onnxruntime

import lookalike
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import Tower
from lookalike.towers.ops import Attention, Conv, Ops, Pooling, Value, declare, operations, parameters
from lookalike.towers.programs.jax import features
from lookalike.towers.programs.onnx import build

SHARED = {"__init__", "ops", "text"}


def test_every_file_has_a_tower_and_every_tower_a_file() -> None:
    folder = Path(lookalike.__file__).parent / "towers"
    files = {path.stem for path in folder.glob("*.py")} - SHARED
    assert {kind.__module__.rpartition(".")[2] for kind in get_args(Tower)} == files


@dataclass(frozen=True)
class Mixed:
    """A tower that nobody has."""

    width: int
    poolings: tuple[Pooling, ...] = ("mean",)
    only_size: int | None = None

    @property
    def features(self) -> int:
        return self.width

    def forward(self, ops: Ops, image: Value, pooling: Pooling) -> Value:
        x = ops.conv(Conv("stem", 3, self.width, 3, 2), image, eps=1e-2)
        x = ops.repeat("blocks", 2, [self._block], ops.apply("silu", x))
        return ops.pool(x, pooling)

    def _block(self, ops: Ops, x: Value) -> Value:
        y = ops.attend("attention", ops.norm("norm", x, 1e-2), Attention(heads=2))
        return ops.apply("add", x, ops.linear("attention.out", y, self.width, scale="scale"))


def test_shapes_kinds_cost_jax_and_onnx_follow_from_the_forward() -> None:
    tower, rng = Mixed(8), np.random.default_rng(0)
    declared = declare(tower)
    assert declared["blocks.attention.qkv.weight"].shape == (2, 8, 24)
    assert {name for name, tensor in declared.items() if tensor.decays} == {
        "stem.conv.weight",
        "blocks.attention.qkv.weight",
        "blocks.attention.out.weight",
    }
    assert {name for name, tensor in declared.items() if not tensor.trained} == {"stem.norm.mean", "stem.norm.variance"}
    assert parameters(tower) == 27 * 8 + 16 + 2 * (16 + 8 * 24 + 24 + 8 * 8 + 8 + 8)
    attended = 2 * (8 * 24 * 64 + 2 * 64 * 64 * 8 + 64 * 64)
    assert operations(tower, 16) == 2 * (64 * 27 * 8 + attended)
    tensors = {n: (t.start + 0.3 * np.abs(rng.normal(size=t.shape))).astype(np.float32) for n, t in declared.items()}
    preprocess = Preprocess(16, "squash", 16, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    images = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    normalised = (images / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    by_jax = features(tower, "mean", {n: jnp.asarray(t) for n, t in tensors.items()}, jnp.asarray(normalised))
    graph = build(tower, "mean", preprocess, tensors).SerializeToString()
    (by_graph,) = onnxruntime.InferenceSession(graph).run(None, {"images": images})
    np.testing.assert_allclose(by_graph, by_jax, rtol=1e-4, atol=1e-5)
