"""Class names as queries, against plain loops."""

import numpy as np
import pyarrow as pa
import pytest

from lookalike.core.errors import UsageError
from lookalike.evaluation.zero_shot import Classes, evaluate_texts


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    count = 90
    return pa.table(
        {
            "id": np.arange(count)[::-1].copy(),  # not in the order of ids
            "label": pa.array([None if i % 17 == 0 else f"thing_{i % 5}" for i in range(count)]),
            "domain": [f"d{i % 3}" for i in range(count)],
            "split": ["test" if i % 4 else "train" for i in range(count)],
            "is_query": rng.random(count) < 0.5,
            "is_gallery": rng.random(count) < 0.7,
        }
    )


def slow(texts, vectors, classes, table, protocol):
    """Metrics per domain from the definitions, one query at a time."""
    table = table.sort_by("id").to_pylist()
    l2_normalize = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    scores = {}
    for text, label, domain in zip(texts, classes.labels, classes.domain, strict=True):
        domain = f"d{domain}"
        gallery = [
            i
            for i, row in enumerate(table)
            if row["split"] == "test" and row["is_gallery"] and (protocol == "merged" or row["domain"] == domain)
        ]
        cosines = l2_normalize(vectors[gallery]) @ l2_normalize(text)
        ranked = [table[gallery[i]] for i in np.argsort(-cosines, kind="stable")]
        hits = [row["label"] == label and row["domain"] == domain for row in ranked]
        n = sum(hits)
        precision = sum(hits[:5][: min(n, 5)]) / min(n, 5)
        average = sum(sum(hits[: i + 1]) / (i + 1) for i in range(min(100, len(hits))) if hits[i]) / min(n, 100)
        scores.setdefault(domain, []).append((precision, float(hits[0]), average))
    return {domain: np.mean(values, axis=0) for domain, values in scores.items()}


@pytest.mark.parametrize("protocol", ["merged", "separate"])
def test_equals_the_definitions(rows, protocol):
    rng = np.random.default_rng(1)
    classes = Classes.of(rows, "test")
    vectors = rng.normal(size=(len(rows), 7)).astype(np.float32)
    texts = rng.normal(size=(len(classes.labels), 7)).astype(np.float32)
    report = evaluate_texts(texts, vectors, classes, "test", protocol)
    expected = slow(texts, vectors, classes, rows, protocol)
    assert set(report.per_domain) == set(expected)
    for domain, values in expected.items():
        found = report.per_domain[domain]
        assert [found["mp@5"], found["recall@1"], found["map@100"]] == pytest.approx(values.tolist())
    means = np.mean(list(expected.values()), axis=0)
    assert list(report.metrics.values()) == pytest.approx(means.tolist())
    assert report.n_queries == len(classes.labels) == 15


def test_perfect_texts_have_perfect_scores(rows):
    classes = Classes.of(rows, "test")
    texts = np.eye(len(classes.labels), dtype=np.float32)
    codes = {name: i for i, name in enumerate(zip(classes.labels, classes.domain.tolist(), strict=True))}
    vectors = np.ones((len(rows), len(texts)), np.float32)
    for i, row in enumerate(rows.sort_by("id").to_pylist()):
        if row["label"]:
            vectors[i] = texts[codes[row["label"], int(row["domain"][1])]]
    assert set(evaluate_texts(texts, vectors, classes, "test").metrics.values()) == {1.0}


def test_templates(rows):
    classes = Classes.of(rows, "test")
    name = classes.labels[0].replace("_", " ")
    assert classes.texts("a photo of a {}, {}")[0] == f"a photo of a {name}, {name}"
    with pytest.raises(UsageError, match=r"has no \{\}"):
        classes.texts("a photo")


def test_a_domain_before_a_label_is_not_said():
    table = pa.table(
        {
            "id": range(3),
            "label": ["cars/ford_wagon", "cars/a/b", "cars"],
            "domain": ["cars", "cars", "cars"],
            "split": ["test"] * 3,
            "is_gallery": [True] * 3,
        }
    )
    assert sorted(Classes.of(table, "test").texts("{}")) == ["a/b", "cars", "ford wagon"]


def test_what_is_refused(rows):
    classes = Classes.of(rows, "test")
    texts, vectors = np.ones((15, 2), np.float32), np.ones((90, 2), np.float32)
    with pytest.raises(UsageError, match="15 classes, and 14"):
        evaluate_texts(texts[1:], vectors, classes, "test")
    with pytest.raises(UsageError, match="There are 90 rows"):
        evaluate_texts(texts, vectors[1:], classes, "test")
    texts[3] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        evaluate_texts(texts, vectors, classes, "test")
    with pytest.raises(UsageError, match="No row is in split"):
        Classes.of(rows, "nothing")
    empty = rows.set_column(1, "label", pa.nulls(90, pa.string()))
    with pytest.raises(UsageError, match="no class name"):
        Classes.of(empty, "test")
