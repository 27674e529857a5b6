"""Groups against what they promise, checked pair by pair; bars and pairs of vectors against loops."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.shapes import l2_normalize
from lookalike.data.apart import all_pairs, rows_apart, without
from lookalike.exploring.groups import WHY, Nodes, firsts, groups_of, near_links, to_centers, vector_links
from lookalike.retrieval import alike
from lookalike.retrieval.alike import alike_pairs, first_alike

NONE = np.zeros((0, 2), np.int64)


def linked(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]}), np.int64).reshape(-1, 2)


pairs_of_rows = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=25).map(linked)


@settings(deadline=None)
@given(pairs_of_rows, pairs_of_rows, st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_a_group_is_a_star_and_never_holds_what_is_apart(near: np.ndarray, apart: np.ndarray, same: list[int]) -> None:
    digests = [bytes([row]) * 32 for row in range(12)]
    pixels = [bytes([value]) * 16 for value in same]
    nodes = Nodes.by_pixels(digests, pixels, apart)
    at_nodes = linked([tuple(nodes.of[pair].tolist()) for pair in near])
    groups = groups_of(digests, nodes, [vector_links(at_nodes, np.ones(len(at_nodes), np.float32))], apart)
    told = {tuple(pair) for pair in apart.tolist()}
    likely = {tuple(nodes.first[pair].tolist()) for pair in at_nodes}

    def are_alike(a: int, b: int) -> bool:
        one, other = sorted((int(nodes.first[nodes.of[a]]), int(nodes.first[nodes.of[b]])))
        return (one, other) in likely or pixels[a] == pixels[b]

    members = [member.row for group in groups for member in group]
    assert len(members) == len(set(members))
    assert [len(group) for group in groups] == sorted([len(group) for group in groups], reverse=True)
    for group in groups:
        rows = [member.row for member in group]
        assert len(rows) > 1
        assert rows == sorted(rows)
        (center,) = [member.row for member in group if not member.why]
        assert all(are_alike(center, row) for row in rows if row != center)
        assert not any((a, b) in told for a in rows for b in rows)
    single = set(range(12)) - set(members)
    for a in single:  # nobody is left who would have fitted to another one that is left
        for b in single - {a}:
            assert (min(a, b), max(a, b)) in told or not are_alike(a, b)
    first = firsts(groups, 12).tolist()
    assert {row for row in range(12) if first[row] >= 0} == set(members) - {group[0].row for group in groups}


def test_a_chain_is_cut_and_a_copy_never_left_alone() -> None:
    digests = [bytes([row]) * 32 for row in range(6)]
    pixels = [b"a", b"b", b"c", b"d", b"d", None]
    nodes = Nodes.by_pixels(digests, pixels, NONE)
    assert nodes.of.tolist() == [0, 1, 2, 3, 3, 4]
    chain = vector_links(np.array([[0, 1], [1, 2], [2, 3], [3, 4]]), np.array([0.99, 0.98, 0.97, 0.99], np.float32))
    groups = groups_of(digests, nodes, [chain], NONE)
    # The second row has two fellows and comes first; the fourth and fifth hold the same pixels.
    assert [[m.row for m in group] for group in groups] == [[0, 1, 2], [3, 4, 5]]
    assert [m.why for m in groups[1]] == ["", WHY[1], WHY[3]]
    assert [round(m.score, 2) for m in groups[0]] == [0.99, 1.0, 0.98]


def test_what_looks_alike_is_scored_by_the_bits_that_agree() -> None:
    hashes = np.array([0b1111, 0b1110, 0b0110], np.int64)
    links = near_links(np.array([[0, 1], [0, 2]]), hashes)
    assert links.score.tolist() == pytest.approx([1 - 1 / 63, 1 - 2 / 63])


def test_pairs_apart_are_found_by_what_the_files_hold() -> None:
    files = [b"a" * 32, b"b" * 32, b"a" * 32, b"c" * 32]
    column = pa.chunked_array([pa.array(files, pa.binary(32))])
    said = all_pairs([files[0].hex(), files[1].hex()])
    assert rows_apart(column, said).tolist() == [[0, 1], [1, 2]]
    assert rows_apart(column, all_pairs([files[0].hex()] * 2)).tolist() == [[0, 2]]
    assert rows_apart(column, set()).shape == (0, 2)
    assert without(np.array([[0, 1], [0, 2], [1, 3]]), np.array([[0, 2]])).tolist() == [[0, 1], [1, 3]]


@given(pairs_of_rows, st.integers(0, 5))
def test_crowds_are_compared_with_the_one_that_has_the_most_fellows(pairs: np.ndarray, most: int) -> None:
    crowds = [{row} for row in range(12)]
    for one, other in pairs.tolist():
        joined = crowds[one] | crowds[other]
        for row in joined:
            crowds[row] = joined
    expected = set()
    for crowd in ({min(crowd): crowd for crowd in crowds}).values():
        fellows = {row: int((pairs == row).sum()) for row in crowd}
        center = min(row for row in crowd if fellows[row] == max(fellows.values()))
        if len(crowd) > most:
            expected |= {(min(center, row), max(center, row)) for row in crowd - {center}}
    found = to_centers(pairs, 12, most)
    assert len(found) == len(set(map(tuple, found.tolist())))
    assert set(map(tuple, found.tolist())) == expected - set(map(tuple, pairs.tolist()))


@pytest.mark.parametrize("least", [0.6, 0.97])
def test_pairs_of_near_vectors_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    monkeypatch.setattr(alike, "_BLOCK", 16)
    monkeypatch.setattr(alike, "_STEP", 40)
    rng = np.random.default_rng(0)
    vectors = l2_normalize(rng.normal(size=(25, 8))[rng.integers(0, 25, 90)] + 0.05 * rng.normal(size=(90, 8)))
    cosines = vectors.astype(np.float64) @ vectors.T
    expected = [[i, j] for i in range(90) for j in range(i + 1, 90) if cosines[i, j] >= least]
    found = alike_pairs(vectors, least)
    assert found.pairs.tolist() == expected
    np.testing.assert_allclose(found.cosines, [cosines[i, j] for i, j in expected], atol=1e-5)
    apart = np.array(expected[::3], np.int64)
    kept = {tuple(pair) for pair in expected} - {tuple(pair) for pair in apart.tolist()}
    first = [next((i for i in range(j) if (i, j) in kept), -1) for j in range(90)]
    assert first_alike(vectors, least, apart).tolist() == first
