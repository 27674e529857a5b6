"""Whose licence counts: groups by name, and the strictest of several."""

import pytest

from lookalike.targets.model_card import ORDER, licences, strictest, terms_of


@pytest.mark.parametrize(
    ("licence", "group"),
    [
        ("CC0-1.0", "public domain"),
        ("mit", "attribution"),
        ("Apache-2.0", "attribution"),
        ("bsd-3-clause", "attribution"),
        ("cc-by-4.0", "attribution"),
        ("CC BY 2.0", "attribution"),
        ("cc-by-sa-4.0", "share alike"),
        ("CC BY-SA", "share alike"),
        ("gpl-3.0", "share alike"),
        ("agpl-3.0", "share alike"),
        ("openrail", "restricted use"),
        ("creativeml-openrail-m", "restricted use"),
        ("dinov3-license", "restricted use"),
        ("cc-by-nd-4.0", "no derivatives"),
        ("cc-by-nc-4.0", "non-commercial"),
        ("CC-BY-NC-SA-4.0", "non-commercial"),
        ("cc-by-nc-nd-4.0", "non-commercial"),
        ("non-commercial research only", "non-commercial"),
        ("other", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_groups(licence: str | None, group: str):
    assert terms_of(licence).name == group


def test_the_order_has_reasons_and_ends_with_what_nobody_knows():
    assert [terms.name for terms in ORDER][-1] == "unknown"
    assert all(terms.reason for terms in ORDER)


def test_the_strictest_is_named():
    verdict = strictest({"the weights": "mit", "the data": "cc-by-nc-4.0", "more data": "cc-by-4.0"})
    assert (verdict.licence, verdict.of, verdict.terms.name) == ("cc-by-nc-4.0", "the data", "non-commercial")
    assert strictest({"the weights": "cc-by-nc-4.0", "the data": None}).licence == "unknown"


def test_all_that_a_model_was_made_from_takes_part():
    first = {"name": "clip", "source": "openai/clip", "license": "mit"}
    second = {
        "name": "a",
        "data": "/x/one.coll",
        "images": {"rows": 5, "licences": {"cc0-1.0": 5}},
        "began_from": first,
    }
    third = {"name": "b", "data": "/x/two.coll", "began_from": second}
    assert licences(third) == {
        "the data `two.coll`": None,
        "5 images of `one.coll`": "cc0-1.0",
        "the weights `openai/clip`": "mit",
    }
    assert licences({"name": "pulled", "source": "a/b"}) == {"the weights `a/b`": None}
    assert licences({"name": "from scratch", "data": "c", "images": {"rows": 1, "licences": {"mit": 1}}}) == {
        "1 images of `c`": "mit"
    }
