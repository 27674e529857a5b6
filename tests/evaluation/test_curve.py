"""Smaller vectors: what is kept of numbers, against arithmetic by hand; the table's places."""

import numpy as np
import pyarrow as pa

from lookalike.evaluation import curve as module
from lookalike.evaluation.protocols import evaluate


def test_what_is_stored():
    vectors = np.array([[0.6, -0.8, 0.0], [1.0, 0.0, -0.25]], np.float32)
    assert module.eight_bits(vectors).tolist() == [[76, -102, 0], [127, 0, -32]]
    assert module.signs(vectors).tolist() == [[1, -1, 1], [1, 1, -1]]
    np.testing.assert_array_equal(module.half(vectors), vectors.astype(np.float16).astype(np.float32))
    assert module.eight_bits(np.zeros((2, 3), np.float32)).tolist() == [[0, 0, 0]] * 2


def test_the_first_numbers_are_measured():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 10
    vectors = np.concatenate([rng.normal(size=(10, 12))[label], 3 * rng.normal(size=(60, 28))], axis=1)
    rows = pa.table({"id": np.arange(60), "label": [str(c) for c in label]})
    points = module.curve(vectors, lambda short: evaluate(short, rows, "all"))
    assert [(p["dimension"], p["stored"], p["bytes"]) for p in points if p["stored"] != "f16"] == [
        (40, "f32", 160), (40, "int8", 40), (40, "binary", 5),
        (32, "f32", 128), (32, "int8", 32), (32, "binary", 4),
        (16, "f32", 64), (16, "int8", 16), (16, "binary", 2),
        (8, "f32", 32), (8, "int8", 8), (8, "binary", 1),
    ]  # fmt: skip
    by = {(p["dimension"], p["stored"]): p["metrics"]["mp@5"] for p in points}
    assert by[40, "f32"] == evaluate(vectors, rows, "all").metrics["mp@5"]
    assert by[8, "f32"] == evaluate(vectors[:, :8], rows, "all").metrics["mp@5"] == 1.0  # no noise among the first
    assert by[8, "f32"] > by[40, "f32"]
    headers, lines = module.lines(points)
    assert headers[:3] == ["numbers", "stored", "bytes"]
    assert len(lines) == 16
