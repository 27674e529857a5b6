"""The report's document and table."""

import json

import numpy as np

from lookalike.evaluation.report import PerQuery, Report


def report(**changes):
    values = {"mp@5": np.array([1.0, 0.5, 0.0]), "recall@1": np.array([1.0, 1.0, 0.0])}
    fields = {
        **PerQuery(values, np.array(["x", "x", "y"]), np.array([4, 5, 7])).summary(),
        "n_queries": 3,
        "n_skipped": 2,
        "protocol": "merged",
        "split": "test",
        "definition": {"mp@5": "as it is"},
        "model": "ab" * 32,
        "collection": None,
    }
    return Report(**(fields | changes))


def test_means_over_domains_and_over_queries():
    found = report()
    assert found.metrics == {"mp@5": (0.75 + 0.0) / 2, "recall@1": 0.5}
    assert found.metrics_by_query == {"mp@5": 0.5, "recall@1": 2 / 3}
    assert found.per_domain == {
        "x": {"mp@5": 0.75, "recall@1": 1.0, "n_queries": 2},
        "y": {"mp@5": 0.0, "recall@1": 0.0, "n_queries": 1},
    }


def test_json_has_exactly_the_promised_keys():
    document = json.loads(json.dumps(report().to_json()))
    assert list(document) == [
        "metrics",
        "half_width",
        "metrics_by_query",
        "per_domain",
        "half_width_per_domain",
        "n_queries",
        "n_skipped",
        "protocol",
        "split",
        "definition",
        "model",
        "collection",
        "one_class",
        "leakage",
    ]
    assert document["per_domain"]["x"]["n_queries"] == 2
    assert document["collection"] is None
    assert document["half_width"] == {"mp@5": None, "recall@1": None}  # domain y has a single class
    assert document["half_width_per_domain"]["x"]["recall@1"] == 0.0


def test_table():
    assert report().table() == (
        "domain               mp@5  recall@1  queries\n"
        "-----------------  ------  --------  -------\n"
        "x                  0.7500    1.0000        2\n"
        "y                  0.0000    0.0000        1\n"
        "mean over domains  0.3750    0.5000\n"
        "  95 % interval\n"
        "mean over queries  0.5000    0.6667        3\n"
        "2 queries without a relevant image in the gallery are left out\n"
        "no 95 % interval: a single class of queries in y"
    )
    assert "left out" not in report(n_skipped=0).table()
