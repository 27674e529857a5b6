"""Protocols against a slow loop over images, and what they refuse."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.errors import CollectionError, UsageError
from lookalike.evaluation import trials
from lookalike.evaluation.protocols import evaluate
from lookalike.evaluation.roles import Roles


def slow_evaluate(vectors, rows, split, protocol):
    """One query after another; rounding the cosines makes copies of a direction tie here too."""
    unit = [v / np.linalg.norm(v) if np.linalg.norm(v) else v for v in vectors.astype(np.float64)]
    unit = np.asarray(unit, np.float32).astype(np.float64)
    inside = [i for i, row in enumerate(rows) if split in ("all", row["split"])]
    domains, skipped = {}, 0
    for q in inside:
        if not rows[q]["is_query"]:
            continue
        gallery = [g for g in inside if rows[g]["is_gallery"] and g != q]
        same_domain = [g for g in gallery if rows[g]["domain"] == rows[q]["domain"]]
        if protocol == "separate":
            gallery = same_domain
        if rows[q]["group"] is not None:
            gallery = [g for g in gallery if not (g in same_domain and rows[g]["group"] == rows[q]["group"])]
        label = rows[q]["label"]
        relevant = {g for g in gallery if g in same_domain and label is not None and rows[g]["label"] == label}
        n_q = len(relevant)
        if n_q == 0:
            skipped += 1
            continue
        ranked = sorted(gallery, key=lambda g: (-np.round(unit[q] @ unit[g], 5), g))
        hits = [g in relevant for g in ranked]
        precision = [sum(hits[: r + 1]) / (r + 1) for r in range(len(hits)) if hits[r] and r < 100]
        mp5 = sum(hits[: min(n_q, 5)]) / min(n_q, 5)
        name = rows[q]["domain"] or "none"
        domains.setdefault(name, []).append((mp5, float(hits[0]), sum(precision) / min(n_q, 100)))
    return domains, skipped


# Few directions, whose cosines stay apart by far more than rounding; copies of one tie exactly.
DIRECTIONS = np.random.default_rng(7).standard_normal((7, 3)).astype(np.float32)


@st.composite
def casts(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 40))

    def some(choices):
        return [choices[i] for i in rng.integers(0, len(choices), count)]

    rows = [
        {"id": 3 * i + 1, "label": a, "domain": b, "split": c, "group": d, "is_query": e, "is_gallery": f}
        for i, (a, b, c, d, e, f) in enumerate(
            zip(
                some(draw(st.sampled_from([["a", "b"], ["a", "b", None], ["a", "b", "c", "d"]]))),
                some(draw(st.sampled_from([["x"], ["x", "y"], ["x", "y", None]]))),
                some(["test", "test", "train", None]),
                some(draw(st.sampled_from([[None], [None, "g", "h"], ["g", "h"]]))),
                some([True, True, False]),
                some([True, True, False]),
                strict=True,
            )
        )
    ]
    lengths = np.float32([0.5, 1, 4])[rng.integers(0, 3, (count, 1))]
    vectors = DIRECTIONS[rng.integers(0, len(DIRECTIONS), count)] * lengths
    return vectors, rows, draw(st.sampled_from(["test", "all"])), draw(st.sampled_from(["merged", "separate"]))


def one_class(rows, split):
    """Whether there is a query, and nothing in the gallery that it could find wrongly."""
    inside = [row for row in rows if split in ("all", row["split"])]
    gallery = [(row["domain"] or "none", row["label"]) for row in inside if row["is_gallery"]]
    queries = [(row["domain"] or "none", row["label"]) for row in inside if row["is_query"] and row["label"]]
    return any(all(found == query for found in gallery) for query in queries) and bool(gallery)


SCHEMA = pa.schema(
    [("id", pa.int64())]
    + [(name, pa.string()) for name in ("label", "domain", "split", "group")]
    + [("is_query", pa.bool_()), ("is_gallery", pa.bool_())]
)


@settings(max_examples=80, deadline=None)
@given(casts(), st.sampled_from([1, 100, 2**21]))
def test_equals_a_slow_loop(case, excluded):
    vectors, rows, split, protocol = case
    domains, skipped = slow_evaluate(vectors, rows, split, protocol)
    table = pa.Table.from_pylist(rows, SCHEMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "HELD", excluded)
        if alone := one_class(rows, split):
            with pytest.raises(UsageError, match="has one class"):
                evaluate(vectors, table, split=split, protocol=protocol)
        try:
            report = evaluate(vectors, table, split=split, protocol=protocol)
        except UsageError:
            assert alone or not domains
            return
    assert not alone
    roles = Roles.of(table, split)
    np.testing.assert_array_equal(roles.rows[roles.measurable()], report.per_query.rows)
    assert report.n_skipped == skipped
    assert report.n_queries == sum(map(len, domains.values()))
    assert set(report.per_domain) == set(domains)
    for name, values in domains.items():
        got = report.per_domain[name]
        assert got["n_queries"] == len(values)
        means = np.mean(values, axis=0)
        np.testing.assert_allclose([got["mp@5"], got["recall@1"], got["map@100"]], means, atol=1e-9)
    macro = np.mean([np.mean(values, axis=0) for values in domains.values()], axis=0)
    micro = np.mean([one for values in domains.values() for one in values], axis=0)
    np.testing.assert_allclose(list(report.metrics.values()), macro, atol=1e-9)
    np.testing.assert_allclose(list(report.metrics_by_query.values()), micro, atol=1e-9)


def small(count=8, **columns):
    labels = [f"l{i // 2}" for i in range(count)]
    table = {"id": list(range(count)), "label": labels, "split": ["test"] * count, **columns}
    return np.eye(count, dtype=np.float32), pa.table({k: v for k, v in table.items() if v is not None})


def test_missing_columns_take_their_defaults():
    vectors, table = small(split=None)
    report = evaluate(vectors, table, split="all")
    assert report.n_queries == 8
    assert list(report.per_domain) == ["none"]
    assert report.collection is None


def test_one_class_is_refused_as_a_measure_and_said_of_a_domain():
    vectors, table = small(4, label=["a"] * 4)
    with pytest.raises(UsageError, match="has one class: every match is right, whatever the vectors") as refused:
        evaluate(vectors, table)
    assert "`--split all` takes every row" in refused.value.hint
    vectors, table = small(6, domain=["x", "x", "x", "x", "y", "y"])
    for protocol, words in (("merged", "told from others"), ("separate", "whatever the vectors")):
        report = evaluate(vectors, table, protocol=protocol)
        assert report.one_class == ["y"]
        assert "\none class alone: y; " in report.table()
        assert words in report.table()


def test_the_query_itself_is_left_out_by_id_even_when_copies_come_first():
    """Dropping the first hit would drop the relevant copy (the lower id) and keep the query itself."""
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (4, 1))
    table = pa.table({"id": [0, 1, 2, 3], "label": ["a", "a", "b", "b"], "split": ["test"] * 4})
    report = evaluate(vectors, table)
    # Queries 0 to 3 find first: 1 (relevant), 0 (relevant), 0 (not), 0 (not).
    assert report.metrics["recall@1"] == 0.5


def test_rows_are_taken_in_the_order_of_ids():
    vectors, table = small()
    vectors = vectors[np.arange(8) // 2 * 2]  # each pair alike
    shuffled = table.take(pa.array([5, 0, 7, 2, 1, 6, 3, 4]))
    assert evaluate(vectors, shuffled).metrics["mp@5"] == 1.0


def test_length_does_not_matter_and_zero_vectors_are_allowed():
    rng = np.random.default_rng(0)
    vectors, table = small(40)
    vectors = rng.standard_normal((40, 7)).astype(np.float32)
    vectors[3] = 0
    want = evaluate(vectors, table).to_json()
    scale = 10.0 ** rng.integers(-15, 15, (40, 1))
    assert evaluate((vectors * scale).astype(np.float32), table).to_json() == want
    assert evaluate(vectors.astype(np.float64) * scale * 1e100, table).to_json() == want


def test_refuses_a_wrong_count():
    vectors, table = small()
    with pytest.raises(UsageError, match=r"There are 8 rows, and the vectors have the shape \[7, 8\]") as error:
        evaluate(vectors[:7], table)
    assert "i-th row by id" in error.value.hint


def test_refuses_what_is_not_finite_only_in_rows_that_take_part():
    vectors, table = small(split=["test"] * 6 + ["train"] * 2)
    vectors[7, 0] = np.nan
    assert evaluate(vectors, table).n_queries == 6
    vectors[4, 0] = np.inf
    with pytest.raises(UsageError, match="Row 4 of the vectors holds a number that is not finite"):
        evaluate(vectors, table)


def test_names_the_splits_that_there_are():
    vectors, table = small(split=["train"] * 5 + [None] * 3)
    with pytest.raises(UsageError, match="No row is in split `test`; rows per split: `train` 5, no split 3") as error:
        evaluate(vectors, table)
    assert "--split all" in error.value.hint


def test_refuses_a_split_without_queries_or_gallery():
    vectors, table = small(is_query=[False] * 8)
    with pytest.raises(UsageError, match="none of them is a query"):
        evaluate(vectors, table)
    vectors, table = small(is_gallery=[False] * 8)
    with pytest.raises(UsageError, match="none of them is a gallery image"):
        evaluate(vectors, table)


def test_refuses_when_nothing_is_relevant():
    vectors, table = small(label=[f"only{i}" for i in range(8)])
    with pytest.raises(UsageError, match="nothing to measure"):
        evaluate(vectors, table)


def test_refuses_a_table_without_labels():
    vectors, table = small(label=None)
    with pytest.raises(CollectionError, match="no column `label`"):
        evaluate(vectors, table)
