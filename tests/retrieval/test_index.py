"""The index over a real collection on disk, against loops over its rows."""

import numpy as np
import pyarrow as pa
import pytest

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import SCHEMA, Collection
from lookalike.retrieval import exact
from lookalike.retrieval.exact import knn
from lookalike.retrieval.index import ExactIndex, Index

COUNT, WIDTH = 60, 5
EXTRA = pa.schema([pa.field("price", pa.float64()), pa.field("shop", pa.string())])


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((COUNT, WIDTH)).astype(np.float32)


@pytest.fixture
def collection(tmp_path, vectors):
    """60 rows whose ids have gaps, two of them gone, with prices; vectors are not of unit length."""
    made = Collection.create(tmp_path / "things", EXTRA)
    rows = [
        {
            "id": 7 + 3 * i,
            "source": f"{i}.jpg",
            "image": b"image %d" % i,
            "width": 10,
            "height": 20,
            "sha256": bytes([i]) * 32,
            "label": None if i % 7 == 0 else f"label{i % 4}",
            "domain": "even" if i % 2 == 0 else "odd",
            "split": None,
            "group": None,
            "is_query": True,
            "is_gallery": True,
            "gone": False,
            "stamp": "1-1",
            "price": float(i),
            "shop": f"shop {i}",
        }
        for i in range(COUNT)
    ]
    made.append(pa.Table.from_pylist(rows, pa.schema([*SCHEMA, *EXTRA])))
    made.write_vectors("embedding_0123abcd", 7 + 3 * np.arange(COUNT), vectors, {"fingerprint": "0123abcd" * 8})
    made.mark_gone(np.array([7 + 3 * 4, 7 + 3 * 30]))
    return made


def slow_query(vectors, query, k, keep):
    cosines = [(-float(query @ v / np.linalg.norm(query) / np.linalg.norm(v)), i) for i, v in enumerate(vectors)]
    return [7 + 3 * i for _, i in sorted(c for c in cosines if keep(c[1]))[:k]]


def test_finds_what_a_loop_finds_and_nothing_that_is_gone(collection, vectors):
    index = Index.open(collection.path)
    assert index.column == "embedding_0123abcd"
    assert len(index) == COUNT - 2
    matches = index.query(vectors * np.float32(1e25), 7)  # whose squares float32 can't hold
    assert len(matches) == COUNT
    for q in range(COUNT):
        assert matches.ids[q].tolist() == slow_query(vectors, vectors[q], 7, lambda i: i not in (4, 30))
    alive = [i for i in range(COUNT) if i not in (4, 30)]
    np.testing.assert_allclose(matches.scores[alive, 0], 1, atol=1e-6)  # itself, by cosine


def test_a_condition_is_applied_before_the_search(collection, vectors):
    matches = Index.open(collection.path).query(vectors[:9], 4, where="domain = 'odd' AND price > 20")
    for q in range(9):
        assert matches.ids[q].tolist() == slow_query(vectors, vectors[q], 4, lambda i: i % 2 and i > 20)


def test_excludes_by_id(collection, vectors):
    index = Index.open(collection.path)
    own = 7 + 3 * np.arange(COUNT)
    matches = index.query(vectors, 3, exclude=own)
    for q in range(COUNT):
        assert matches.ids[q].tolist() == slow_query(vectors, vectors[q], 3, lambda i, q=q: i not in (4, 30, q))
    several = np.stack([own, own + 3, np.full(COUNT, -1), np.full(COUNT, 10**6)], axis=1)
    matches = index.query(vectors, 3, "price < 50", several)
    for q in range(COUNT):

        def keep(i, q=q):
            return i not in (4, 30, q, q + 1) and i < 50

        assert matches.ids[q].tolist() == slow_query(vectors, vectors[q], 3, keep)


def test_fewer_rows_than_asked_for(collection, vectors):
    index = Index.open(collection.path)
    matches = index.query(vectors[:2], 5, where="price IN (1, 2, 4)")  # 4 is gone
    assert set(matches.ids[0, :2].tolist()) == {10, 13}
    assert matches.ids.shape == (2, 2)
    assert len(matches.rows(0)) == len(matches.images(0)) == 2
    nothing = index.query(vectors[:2], 5, where="price > 1000", exclude=np.array([7, 10]))
    assert (nothing.ids == -1).all()
    assert nothing.rows(1) == []


def test_k_is_at_most_the_rows_there_are(collection, vectors):
    index = Index.open(collection.path)
    assert index.query(vectors[:1], 10**12).ids.shape == (1, COUNT - 2)


def test_scores_are_cosines_whatever_rounding_does(collection):
    """Unit vectors in float32 have products of up to 1.0000002 with themselves."""
    rng = np.random.default_rng(0)
    unit = l2_normalize(rng.standard_normal((500, 64)))
    assert knn(unit, unit, 1)[0].max() > 1
    index = ExactIndex(collection, "embedding_0", np.arange(500), unit)
    matches = index.query(np.concatenate([unit, -unit]), 500)
    assert matches.scores.max() == 1
    assert matches.scores.min() == -1


def test_queries_of_any_length_and_type_are_directions(collection, vectors):
    index = Index.open(collection.path)
    want = index.query(vectors, 3)
    for scale in (1e200, 1e-200):
        found = index.query(vectors.astype(np.float64) * scale, 3)
        np.testing.assert_array_equal(found.ids, want.ids)
        np.testing.assert_allclose(found.scores, want.scores, atol=1e-6)


def test_rows_without_a_usable_vector_are_left_out_and_counted(collection, vectors):
    collection.append(collection.table(SCHEMA.names, "id = 7").set_column(0, "id", pa.array([1000])))
    bad = np.full((1, WIDTH), np.inf, np.float32)
    collection.write_vectors("embedding_0123abcd", np.array([7]), bad, {})
    index = Index.open(collection.path)
    assert (len(collection) - len(index)) == 2
    matches = index.query(vectors, 60)
    assert not np.isin([7, 1000], matches.ids).any()
    assert index.query(vectors[1:2], 1).ids.tolist() == [[10]]


def test_the_gallery_is_looked_through_once(collection, vectors, monkeypatch):
    index = Index.open(collection.path)
    seen = []
    original = exact._largest
    monkeypatch.setattr(exact, "_largest", lambda rows, name, apply: seen.append(name) or original(rows, name, apply))
    index.query(vectors, 3)
    assert seen == ["queries"]


def test_another_kind_of_index_can_stand_in(collection):
    class Nothing:
        @staticmethod
        def open(path, column=None):
            return Nothing()

        def query(self, vectors, k, where=None, exclude=None):
            return None

    assert isinstance(Nothing(), Index)
    assert isinstance(Index.open(collection.path), Index)
    assert not isinstance(object(), Index)


def test_rows_hold_what_the_source_said(collection, vectors):
    matches = Index.open(collection.path).query(vectors[14:15], 2)
    first = matches.rows(0)[0]
    assert list(first) == ["id", "score", "path", "source", "label", "domain", "price", "shop"]
    assert first["score"] == pytest.approx(1.0)
    del first["score"]
    assert first.pop("path") is None  # no source is noted
    assert first == {"id": 49, "source": "14.jpg", "label": None, "domain": "even", "price": 14.0, "shop": "shop 14"}
    assert matches.images(0)[0] == b"image 14"


def test_a_bad_condition_is_a_sentence(collection, vectors):
    index = Index.open(collection.path)
    for where in ("prize > 3", "domain = ", "price > 'much' AND"):
        with pytest.raises(CollectionError) as error:
            index.query(vectors[:1], 3, where=where)
        assert where in error.value.message or "prize" in error.value.message


def test_refuses_vectors_of_another_width_and_bad_numbers(collection, vectors):
    index = Index.open(collection.path)
    with pytest.raises(UsageError, match="4 numbers each, and `embedding_0123abcd` has 5"):
        index.query(vectors[:1, :4], 3)
    with pytest.raises(UsageError, match=r"the shape \[1, 1, 5\]; expected \[Q, 5\]"):
        index.query(vectors[:1, None], 3)
    with pytest.raises(UsageError, match="not finite"):
        index.query(np.full((1, WIDTH), np.nan, np.float32), 3)


def test_another_encoders_column_is_missed_by_name(collection):
    with pytest.raises(
        CollectionError, match="no column `embedding_99999999`; it has vectors of other encoders: embed"
    ):
        Index.open(collection.path, "embedding_99999999")


def test_says_which_of_several_encoders_it_needs(collection, vectors):
    collection.write_vectors("embedding_ffffffff", 7 + 3 * np.arange(COUNT), vectors[:, :3], {})
    with pytest.raises(CollectionError, match="embeddings of 2 encoders") as error:
        Index.open(collection.path)
    assert "lookalike index" in error.value.hint
    collection.update_card({"model": {"path": "m", "fingerprint": "f" * 64, "column": "embedding_ffffffff"}})
    assert Index.open(collection.path).column == "embedding_ffffffff"
    assert Index.open(collection.path, "embedding_0123abcd").column == "embedding_0123abcd"


def test_a_collection_without_embeddings(tmp_path):
    Collection.create(tmp_path / "empty")
    with pytest.raises(CollectionError, match="no embeddings to search"):
        Index.open(tmp_path / "empty")


def test_an_empty_collection_with_vectors(tmp_path):
    made = Collection.create(tmp_path / "empty")
    made.add_columns(pa.schema([pa.field("embedding_0123abcd", pa.list_(pa.float32(), 3))]))
    matches = Index.open(tmp_path / "empty").query(np.ones((2, 3), np.float32), 4, exclude=np.array([1, 2]))
    assert (matches.ids == -1).all()
