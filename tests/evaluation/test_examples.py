"""What single queries find, against a slow loop; their mean is the report's when all are looked at."""

import numpy as np
import pyarrow as pa
import pytest

from lookalike.evaluation import examples as module
from lookalike.evaluation.examples import examples
from lookalike.evaluation.protocols import evaluate


def drawn(count=60):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(count, 8)).astype(np.float32)
    label = rng.integers(0, 9, count)
    rows = pa.table(
        {
            "id": 10 * np.arange(count),
            "label": [f"{i}" for i in label],
            "domain": ["cars"] * count,
            "group": [f"{i // 2}" if i % 3 else None for i in range(count)],
            "split": ["test" if i % 5 else "train" for i in range(count)],
            "is_query": [i % 4 != 1 for i in range(count)],
            "is_gallery": [i % 7 != 1 for i in range(count)],
        }
    )
    return vectors, rows


def slow(vectors, rows):
    unit, table = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rows.to_pylist()
    inside = [i for i, row in enumerate(table) if row["split"] == "test"]
    for q in inside:
        if not table[q]["is_query"]:
            continue
        own = table[q]["group"]
        gallery = [
            g for g in inside
            if table[g]["is_gallery"] and g != q and not (own is not None and table[g]["group"] == own)
        ]  # fmt: skip
        relevant = sum(table[g]["label"] == table[q]["label"] for g in gallery)
        if not relevant:
            continue
        best = sorted(gallery, key=lambda g: -float(unit[q] @ unit[g]))[:5]
        hits = [table[g]["label"] == table[q]["label"] for g in best]
        reach = min(5, relevant)
        yield 10 * q, sum(hits[:reach]) / reach, [(10 * g, float(unit[q] @ unit[g]), h) for g, h in zip(best, hits, strict=True)]  # fmt: skip  # noqa: E501


def test_each_query_finds_what_a_slow_loop_finds():
    vectors, rows = drawn()
    found, expected = examples(vectors, rows), list(slow(vectors, rows))
    assert [each.id for each in found] == [i for i, _, _ in expected]
    for each, (_, precision, matches) in zip(found, expected, strict=True):
        assert each.precision == pytest.approx(precision)
        assert [(i, hit) for i, _, hit in each.found] == [(i, hit) for i, _, hit in matches]
        np.testing.assert_allclose([s for _, s, _ in each.found], [s for _, s, _ in matches], atol=1e-6)
    assert np.mean([each.precision for each in found]) == pytest.approx(evaluate(vectors, rows).metrics["mp@5"])


def test_of_many_queries_some_are_looked_at(monkeypatch):
    vectors, rows = drawn()
    every = [each.id for each in examples(vectors, rows)]
    monkeypatch.setattr(module, "MOST", 7)
    some = [each.id for each in examples(vectors, rows)]
    assert 4 <= len(some) <= 7
    assert set(some) < set(every)
