"""`knn` against a brute-force stable sort, faiss, and its own bounds."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.retrieval import coded, exact
from lookalike.retrieval.exact import knn


def slow_knn(queries, gallery, k, exclude=None):
    """One query after another, by a stable sort of every score: float64, so exact for small whole numbers."""
    k = min(k, len(gallery))
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for q, query in enumerate(queries):
        excluded = set() if exclude is None else set(np.atleast_1d(exclude[q]).tolist())
        found = [(-float(query.astype(np.float64) @ g.astype(np.float64)), i) for i, g in enumerate(gallery)]
        for j, (score, row) in enumerate(sorted(pair for pair in found if pair[1] not in excluded)[:k]):
            scores[q, j], rows[q, j] = -score, row
    return scores, rows


def small_pieces(
    patch, queries=3, few=2, chunk=64, panel=512, block=8, small_block=4, direct=1, gathered=64, alone=0, piece=50
):
    """Make every boundary of the search fall inside a problem of a few hundred rows."""
    for name, value in locals().items():
        if name != "patch":
            patch.setattr(exact, name.upper(), value)
    for name, value in {"CHUNK": 64, "GATHERED": 64, "HELD": 50}.items():
        patch.setattr(coded, name, value)


@st.composite
def problems(draw):
    shape = draw(st.tuples(st.integers(0, 8), st.integers(0, 700), st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = draw(st.sampled_from([1, 2, 5, 100]))  # 1 and 2: nearly every score is a tie
    queries = rng.integers(-high, high + 1, (shape[0], shape[2])).astype(np.float32)
    gallery = rng.integers(-high, high + 1, (shape[1], shape[2])).astype(np.float32)
    k = draw(st.sampled_from([1, 2, 5, 17, 40]))
    width = draw(st.sampled_from([None, 0, 1, 3, 200]))
    exclude = None if width is None else rng.integers(-1, max(1, shape[1]), (shape[0], width))
    if width == 1 and draw(st.booleans()):
        exclude = exclude[:, 0]
    return queries, gallery, k, exclude


@settings(max_examples=120, deadline=None)
@given(problems(), st.booleans(), st.booleans())
def test_equals_a_stable_sort_with_ties_to_the_lower_row(problem, pieces, by_codes):
    queries, gallery, k, exclude = problem
    with pytest.MonkeyPatch.context() as patch:
        if pieces:
            small_pieces(patch)
        if by_codes:
            patch.setattr(exact, "CODED", 0)
            patch.setattr(coded, "SURE", 10**6)  # never back to float32
        scores, rows = knn(queries, gallery, k, exclude)
    want_scores, want_rows = slow_knn(queries, gallery, k, exclude)
    np.testing.assert_array_equal(rows, want_rows)
    np.testing.assert_array_equal(scores, want_scores)


@pytest.mark.parametrize(("width", "k"), [(64, 5), (64, 100), (1280, 5), (1280, 100), (8192, 5)])
@pytest.mark.parametrize("way", ["direct", "float32", "codes"])
def test_copies_of_a_vector_come_in_the_order_of_their_rows(monkeypatch, width, k, way):
    """Real vectors, not small whole numbers: a copy must get the same score wherever it stands."""
    monkeypatch.setattr(exact, "DIRECT", 10**9 if way == "direct" else 1)
    monkeypatch.setattr(exact, "CODED", 0 if way == "codes" else 10**18)
    monkeypatch.setattr(exact, "PANEL", 4096)
    rng = np.random.default_rng(width + k)
    distinct = rng.standard_normal((300, width)).astype(np.float32)
    source = rng.integers(0, 300, 9001)
    queries = rng.standard_normal((5, width)).astype(np.float32)
    scores, rows = knn(queries, distinct[source], k)
    true = queries.astype(np.float64) @ distinct.astype(np.float64).T
    for q in range(5):
        want = np.lexsort((np.arange(9001), -true[q][source]))[:k]
        np.testing.assert_array_equal(rows[q], want)
        np.testing.assert_allclose(scores[q], true[q][source[want]], rtol=1e-5, atol=1e-3)


@pytest.mark.reference("faiss")
def test_finds_what_faiss_finds():
    import faiss

    rng = np.random.default_rng(5)
    queries, gallery = (rng.standard_normal((n, 64)).astype(np.float32) for n in (300, 30_000))
    index = faiss.IndexFlatIP(64)
    index.add(gallery)
    want_scores, want_rows = index.search(queries, 5)
    scores, rows = knn(queries, gallery, 5)
    np.testing.assert_allclose(scores, want_scores, rtol=1e-5)
    assert (rows == want_rows).mean() > 0.999  # faiss adds in another order: a near-tie may swap


@pytest.mark.parametrize("sure", [0, 2048])
@pytest.mark.parametrize(("spread", "center"), [(1.0, 0.0), (0.01, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("k", [5, 40])
def test_codes_find_what_is_nearest(monkeypatch, sure, spread, center, k):
    """Of random directions, of vectors that nearly are one, and where codes leave too much open.

    Scores are sums in another order than a product of matrices has, so that a near tie may swap.
    """
    rng = np.random.default_rng(6)
    queries, gallery = ((center + spread * rng.standard_normal((n, 64))).astype(np.float32) for n in (300, 20_000))
    gallery[:50] = gallery[50:100]
    exclude = rng.integers(-1, 20_000, (300, 3))
    tasks, again = [], []
    by_bar, two_level = coded.by_bar, exact._two_level
    monkeypatch.setattr(coded, "by_bar", lambda *rest: tasks.append(1) or by_bar(*rest))
    monkeypatch.setattr(exact, "_two_level", lambda *rest: again.append(1) or two_level(*rest))
    monkeypatch.setattr(exact, "CODED", 0)
    monkeypatch.setattr(coded, "SURE", sure)
    monkeypatch.setattr(coded, "SURE_OF_K", 8 * (sure > 0))  # 0: every search is made again in float32
    scores, rows = knn(queries, gallery, k, exclude)
    assert tasks
    assert bool(again) == (sure == 0)
    true = queries.astype(np.float64) @ gallery.astype(np.float64).T
    np.put_along_axis(true, np.where(exclude < 0, exclude.max(axis=1, keepdims=True), exclude), -np.inf, axis=1)
    best = -np.sort(-true, axis=1)[:, :k]
    np.testing.assert_allclose(scores, best, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), best, rtol=2e-6, atol=2e-6)


def test_strided_and_other_float_types_are_searched_as_float32():
    rng = np.random.default_rng(1)
    queries, gallery = rng.standard_normal((7, 24)), rng.standard_normal((900, 24))
    want = knn(queries.astype(np.float32), gallery.astype(np.float32), 9)
    wide = np.zeros((1800, 48))
    wide[::2, ::2] = gallery
    for q, g in [
        (queries, gallery),
        (np.asfortranarray(queries), np.asfortranarray(gallery)),
        (queries, wide[::2, ::2]),
    ]:
        scores, rows = knn(q, g, 9)
        np.testing.assert_array_equal(rows, want[1])
        np.testing.assert_array_equal(scores, want[0])
        assert scores.dtype == np.float32


def test_half_precision_is_exact_in_float32():
    rng = np.random.default_rng(2)
    queries, gallery = (rng.standard_normal((n, 16)).astype(np.float16) for n in (4, 500))
    want = knn(queries.astype(np.float32), gallery.astype(np.float32), 3)
    np.testing.assert_array_equal(knn(queries, gallery, 3)[1], want[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["queries", "gallery"])
def test_refuses_numbers_that_are_not_finite(bad, where):
    queries, gallery = np.ones((3, 4), np.float32), np.ones((2000, 4), np.float32)
    {"queries": queries, "gallery": gallery}[where][-1, -1] = bad
    with pytest.raises(ValueError, match=f"{where} hold a number that is not finite"):
        knn(queries, gallery, 2)


def test_memory_follows_what_there_is_not_what_is_asked_for():
    queries, gallery = np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32)
    scores, rows = knn(queries, gallery, 10**12, np.arange(3))
    assert rows.tolist() == [[1, 2, 3, -1], [0, 2, 3, -1], [0, 1, 3, -1]]
    assert scores[:, 3].tolist() == [-np.inf] * 3
    assert knn(queries, gallery[:0], 10**12)[1].shape == (3, 0)


def test_a_gallery_whose_largest_number_is_known_is_not_looked_through(monkeypatch):
    seen = []
    original = exact._largest
    monkeypatch.setattr(
        exact, "_largest", lambda vectors, name, apply: seen.append(name) or original(vectors, name, apply)
    )
    queries, gallery = np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(knn(queries, gallery, 2, largest=1.0)[1], knn(queries, gallery, 2)[1])
    assert seen == ["queries", "gallery", "queries"]
    with pytest.raises(ValueError, match="overflow"):
        knn(np.full((1, 4), 1e20, np.float32), gallery, 1, largest=1e20)


def test_refuses_vectors_whose_products_overflow():
    with pytest.raises(ValueError, match="overflow"):
        knn(np.full((1, 4), 1e20, np.float32), np.full((9, 4), 1e20, np.float32), 1)


def test_refuses_a_k_of_zero():
    with pytest.raises(ValueError, match="at least 1"):
        knn(np.ones((1, 4), np.float32), np.ones((9, 4), np.float32), 0)


def test_everything_excluded_finds_nothing():
    queries, gallery = np.ones((2, 4), np.float32), np.ones((300, 4), np.float32)
    scores, rows = knn(queries, gallery, 3, np.tile(np.arange(300), (2, 1)))
    assert (rows == -1).all()
    assert (scores == -np.inf).all()


def test_what_fills_up_the_last_block_is_never_best(monkeypatch):
    """Every score is negative, so the zeros behind the ragged end would win."""
    small_pieces(monkeypatch)
    gallery = -np.arange(1, 302, dtype=np.float32)[:, None]
    scores, rows = knn(np.ones((2, 1), np.float32), gallery, 1)
    assert rows.tolist() == [[0], [0]]
    assert scores.tolist() == [[-1], [-1]]


def test_an_interrupted_search_does_not_finish_what_waits(monkeypatch):
    small_pieces(monkeypatch, panel=150)
    done = []

    def interrupt(before, after):
        raise KeyboardInterrupt

    original = exact._direct
    monkeypatch.setattr(exact, "merged", interrupt)
    monkeypatch.setattr(exact, "_direct", lambda *rest: done.append(1) or original(*rest))
    vectors = np.ones((3000, 4), np.float32)
    with pytest.raises(KeyboardInterrupt):
        knn(vectors, vectors[:300], 40)
    assert len(done) < 1800  # of 2,000


def test_does_not_write_to_its_inputs():
    queries, gallery = np.ones((4, 4), np.float32), np.ones((800, 4), np.float32)
    exclude = np.arange(4)
    for array in (queries, gallery, exclude):
        array.flags.writeable = False
    assert knn(queries, gallery, 2, exclude)[1].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("k", "kind", "coded", "distinct"),
    [
        (5, "float32", 0, 10_000),
        (100, "float64", 0, 10_000),
        (5, "float32", 1, 10_000),
        (100, "float64", 1, 10_000),
        (30, "float32", 1, 1000),  # ten copies of each
        (30, "float32", 1, 1),  # all are equal, and codes leave everything open
    ],
)
def test_memory_stays_within_what_is_stated(k, kind, coded, distinct):
    """10,000 x 10,000 whole would be 400 MB."""
    script = f"""
        import sys, numpy as np
        from pathlib import Path
        import onnx.helper, onnxruntime
        from lookalike.core.machine import cores
        from lookalike.retrieval import exact

        exact.CODED = 0 if {coded} else 10**18

        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

        vectors = np.random.default_rng(0).standard_normal(({distinct}, 64)).astype("{kind}")
        vectors = np.tile(vectors, (10_000 // {distinct}, 1))
        before = peak()
        scores, rows = exact.knn(vectors, vectors, {k}, np.arange(10_000))
        grown = peak() - before - (scores.nbytes + rows.nbytes) / 2**20
        print(grown, cores(), exact.working_memory(64, {k}) / 2**20)
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    grown, cores, stated = map(float, out.stdout.split())
    assert grown < stated
    assert grown < cores * 32 + coded * 32 or distinct == 1
    assert grown > 1  # it is measured at all


def test_leaves_jax_alone():
    script = "import lookalike.retrieval.exact, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
