"""The estimator against the recipe that it is a part of, and scikit-learn's own checks."""

import pickle

import numpy as np
import PIL.Image
import pytest

import lookalike as la
from lookalike.core.shapes import l2_normalize

sklearn = pytest.importorskip("sklearn", reason="reference library not installed: scikit-learn")

from sklearn.base import clone  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

EXPECTED = {
    "check_fit2d_1feature": "features of one number are all the same direction at length 1",
}


@parametrize_with_checks([la.Embedder(dimension=2)], expected_failed_checks=lambda _: EXPECTED)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_without_labels_it_is_pca_of_directions():
    features = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    found = la.Embedder(dimension=5).fit_transform(features)
    wanted = l2_normalize(PCA(5).fit_transform(l2_normalize(features).astype(np.float64)).astype(np.float32))
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-4)


def test_images_and_labels_as_the_recipe_begins(shop, tmp_path):
    photos = la.prepare(str(shop.images), tmp_path / "c")
    rows = photos.table(["image", "domain", "label"])
    images, labels = (
        rows["image"].to_pylist(),
        [f"{r['domain']}/{r['label']}" for r in rows.select(["domain", "label"]).to_pylist()],
    )
    embedder = la.Embedder(shop.model, dimension=3).fit(images, labels)
    found = embedder.transform(images)
    encoder = la.train(
        "head", data=photos, model=shop.model, out=tmp_path / "run", dimension=3, zooms=(), epochs=0.0001
    )
    assert encoder is not None
    assert found.shape == (12, 3)
    # The recipe takes one step of a low rate behind the same start.
    assert np.sum(found * encoder.embed(images), axis=1).min() > 0.98
    embedder.save(tmp_path / "model")
    np.testing.assert_allclose(la.load(tmp_path / "model").embed(images), found, atol=1e-5)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(embedder)).transform(images), found, atol=1e-6)
    assert clone(embedder).get_params() == {"dimension": 3, "mirror": True, "model": shop.model}
    guess = make_pipeline(la.Embedder(shop.model, dimension=3), KNeighborsClassifier(1)).fit(images, labels)
    assert guess.predict([PIL.Image.open(shop.images / "domain0/label1/0.png")]) == ["domain0/label1"]
    assert embedder.get_feature_names_out().tolist() == ["embedder0", "embedder1", "embedder2"]


def test_what_does_not_fit_is_said(shop):
    with pytest.raises(ValueError, match="2 images and 3 labels"):
        la.Embedder().fit(np.eye(2, 5), [1, 2, 3])
    with pytest.raises(la.Error, match="no tower to save"):
        la.Embedder(dimension=1).fit(np.random.default_rng(0).normal(size=(9, 4))).save("x")
    with pytest.raises(la.Error, match="Not an image"):
        la.Embedder(shop.model).fit([b"no image"])
