"""`by_bar` against a stable sort of float64 scores, whatever its bars are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.retrieval import coded, codes, excluded
from lookalike.retrieval.exact import knn


def search(queries, gallery, k, exclude=None):
    rows = codes.code_rows(gallery, coded.CHUNK, map)
    return coded.by_bar(queries, gallery, k, excluded.pairs(exclude, len(gallery)), rows)


def slow(queries, gallery, k, exclude=None):
    """Every score in float64, exact for small whole numbers; one stable sort a query."""
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    for q, rows in enumerate([] if exclude is None else exclude):
        scores[q, rows[(rows >= 0) & (rows < len(gallery))]] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, rows, axis=1)
    fill = ((0, 0), (0, k - rows.shape[1]))
    return (
        np.pad(best, fill, constant_values=-np.inf),
        np.pad(np.where(best == -np.inf, -1, rows), fill, constant_values=-1),
    )


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, size, width = draw(st.integers(1, 9)), draw(st.sampled_from([1, 30, 700, 3000])), draw(st.integers(1, 5))
    high = draw(st.sampled_from([1, 3, 50]))  # 1: nearly every score is a tie
    queries = rng.integers(-high, high + 1, (count, width)).astype(np.float32)
    gallery = rng.integers(-high, high + 1, (size, width)).astype(np.float32)
    if draw(st.booleans()):
        gallery = gallery[np.argsort(gallery[:, 0])]  # what is alike lies together
    exclude = rng.integers(-1, size + 2, (count, draw(st.sampled_from([1, 40, 4000]))))
    return queries, gallery, draw(st.sampled_from([1, 4, 30, 300])), draw(st.sampled_from([None, exclude]))


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([40, 10**6]), st.data())
def test_finds_the_best_whatever_the_bars_are(problem, held, data):
    """Bars that no row reaches, that all reach, and the likely ones; pairs that are scored at once or in turns."""
    queries, gallery, k, exclude = problem
    count = len(queries)
    bars = st.lists(st.floats(-5000, 5000), min_size=count, max_size=count).map(np.array)
    given_bars = data.draw(st.none() | st.lists(bars, max_size=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded, "HELD", held)
        patch.setattr(coded, "CHUNK", 64)
        patch.setattr(coded, "SURE", 10**6)
        if given_bars is not None:
            patch.setattr(coded, "_likely", lambda search: given_bars)
        scores, rows = search(queries, gallery, k, exclude)
    want_scores, want_rows = slow(queries, gallery, k, exclude)
    np.testing.assert_array_equal(rows, want_rows)
    np.testing.assert_array_equal(scores, want_scores)


def looked_at(patch):
    """Counts the pairs that are scored in float32."""
    counts, original = [], coded._pair_scores
    patch.setattr(coded, "_pair_scores", lambda *rest: counts.append(len(rest[-1])) or original(*rest))
    return counts


@pytest.mark.parametrize("period", [1, 16, 1000])
@pytest.mark.parametrize("k", [1, 5, 100, 600])
def test_few_rows_are_looked_at(monkeypatch, period, k):
    """Also where what is alike comes every 16 rows, or one of so many: the sample has a share of each."""
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((period, 64))
    gallery = (centers[np.arange(32_000) % period] + 0.5 * rng.standard_normal((32_000, 64))).astype(np.float32)
    queries = (centers[np.arange(200) % period] + 0.5 * rng.standard_normal((200, 64))).astype(np.float32)
    counts = looked_at(monkeypatch)
    scores, rows = search(queries, gallery, k)
    want = slow(queries, gallery, k)
    np.testing.assert_allclose(scores, want[0], rtol=1e-5, atol=1e-4)
    assert (rows == want[1]).mean() > 0.995  # sums in another order: a near tie may swap
    assert 200 * k <= sum(counts) < 200 * (6 * k + 300)


def test_a_query_whose_best_are_all_in_the_sample_is_asked_again(monkeypatch):
    """The third best of the sample is then above the fifth best of all."""
    rng = np.random.default_rng(4)
    gallery = rng.standard_normal((20_000, 16)).astype(np.float32)
    queries = np.ones((3, 16), np.float32)
    sampled = []
    original = excluded.of_rows
    monkeypatch.setattr(excluded, "of_rows", lambda pairs, rows: sampled.append(rows) or original(pairs, rows))
    search(queries, gallery, 5)
    gallery[sampled[0][[10, 200, 400, 700]]] = 10 - np.arange(4)[:, None]
    searches, reaching = [], coded._reaching
    monkeypatch.setattr(coded, "_reaching", lambda *rest: searches.append(rest) or reaching(*rest))
    _, rows = search(queries, gallery, 5)
    np.testing.assert_array_equal(rows, slow(queries, gallery, 5)[1])
    assert len(searches) == 2


def test_rows_that_all_are_alike_are_left_undecided(monkeypatch):
    queries, gallery = np.ones((40, 8), np.float32), np.ones((20_000, 8), np.float32)
    with pytest.raises(coded.UndecidedError):
        search(queries, gallery, 20)
    from lookalike.retrieval import exact

    monkeypatch.setattr(exact, "CODED", 0)
    scores, rows = knn(queries, gallery, 20)
    assert (rows == np.arange(20)).all()
    assert (scores == 8).all()


def test_thousands_of_copies_are_found_in_the_order_of_their_rows():
    rng = np.random.default_rng(5)
    gallery = rng.standard_normal((30_000, 32)).astype(np.float32)
    copies = np.sort(rng.choice(30_000, 1500, replace=False))
    gallery[copies] = 2 * gallery[copies[0]]
    queries = np.concatenate([gallery[copies[:1]], rng.standard_normal((4, 32)).astype(np.float32)])
    _, rows = search(queries, gallery, 40)
    np.testing.assert_array_equal(rows[0], copies[:40])
    np.testing.assert_array_equal(rows[1:], slow(queries[1:], gallery, 40)[1])


@pytest.mark.reference("faiss")
@pytest.mark.parametrize("k", [5, 100, 400])
def test_finds_what_faiss_finds(k):
    import faiss

    rng = np.random.default_rng(6)
    queries, gallery = (rng.standard_normal((n, 64)).astype(np.float32) for n in (300, 40_000))
    index = faiss.IndexFlatIP(64)
    index.add(gallery)
    want_scores, want_rows = index.search(queries, k)
    scores, rows = search(queries, gallery, k)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-5)
    assert (rows == want_rows).mean() > 0.999
