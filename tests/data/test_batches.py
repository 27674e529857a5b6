"""The stream of batches: the same from any step, with any number of threads; it ends cleanly and hides no error."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from lookalike.core.errors import ImageError
from lookalike.data.batches import batches
from lookalike.data.collection import Collection
from lookalike.data.sampling import Mixture, generator, sampler
from lookalike.imaging.augment import Color, Crop, Erase, Flip
from lookalike.imaging.decode import decode, encode_jpeg

AUGMENTS = (Crop(16), Flip(), Color(), Erase())


class Images(Collection):
    """What `batches` asks of a collection; ids are not positions, as in a real one."""

    def __init__(self, rows=12, spoil=()):
        rng = np.random.default_rng(0)
        self.images = {
            100 + 7 * i: encode_jpeg(np.full((20 + i, 30, 3), rng.integers(256, size=3), np.uint8)) for i in range(rows)
        }
        for key in spoil:
            self.images[key] = self.images[key][:200]
        self.taken = 0

    def take(self, ids, columns):
        assert columns == ["image"]
        self.taken += 1
        return pa.table({"image": pa.array([self.images[i] for i in ids.tolist()], pa.binary())})


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """As many cores as a stream says."""
    monkeypatch.setattr("lookalike.data.batches.cores", lambda: CORES[0])


CORES = [2]


def stream(collection, threads=2, **changes):
    CORES[0] = threads
    ids = np.array(sorted(collection.images), np.int64)
    options = {"batch": 5, "seed": 3, "start": 0, "sample": "uniform", "size": 16, "augments": AUGMENTS}
    return batches(collection, ids, np.arange(len(ids)) % 3, **(options | changes))


def uniform(rows, step):
    return sampler(Mixture(classes="uniform"), np.zeros(rows, int), np.zeros(rows, int), 5, 3)(step)


def first(count, **changes):
    source = stream(Images(), **changes)
    got = [next(source) for _ in range(count)]
    source.close()
    return got


def same(a, b):
    return all(map(np.array_equal, a, b))


@pytest.mark.parametrize("sample", ["uniform", "balanced"])
def test_a_step_does_not_depend_on_where_the_stream_began_nor_on_threads(sample):
    whole = first(7, sample=sample)
    assert all(same(a, b) for a, b in zip(whole[4:], first(3, start=4, sample=sample), strict=True))
    for threads in (1, 3):
        assert all(same(a, b) for a, b in zip(whole, first(7, threads=threads, sample=sample), strict=True))
    assert not same(whole[0], first(1, seed=4, sample=sample)[0])


def test_images_belong_to_their_labels():
    collection = Images()
    ids = np.array(sorted(collection.images), np.int64)
    source = stream(collection, augments=(), size=8)
    for step in range(4):
        images, labels = next(source)
        rows = uniform(len(ids), step)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert np.array_equal(labels, rows % 3)
        for image, row in zip(images, rows, strict=True):
            assert np.abs(image.astype(int) - decode(collection.images[int(ids[row])])[0, 0]).max() <= 1
    source.close()


def test_without_a_crop_the_middle_is_taken():
    collection = Images(rows=1)
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255
    collection.images = {1: encode_jpeg(image, 95)}
    source = stream(collection, augments=(), size=8, batch=1)
    assert next(source)[0].min() > 225
    source.close()


def test_augments_come_in_their_order_with_the_numbers_of_their_place():
    order, collection = (Flip(), Crop(16), Color()), Images()
    ids = np.array(sorted(collection.images), np.int64)
    for augments, equal in ((order, True), (order[::-1], False)):
        (images, _), *_ = first(1, start=2, augments=augments)
        for item, (image, row) in enumerate(zip(images, uniform(len(ids), 2), strict=True)):
            rng, wanted = generator(3, 2, item), decode(collection.images[int(ids[row])], at_least=32)
            for augment in order:
                wanted = augment(rng, wanted)
            assert np.array_equal(image, wanted) == equal


def test_closing_stops_the_threads_at_once():
    before = threading.active_count()
    source = stream(Images(), threads=3)
    next(source)
    assert before < threading.active_count() <= before + 3
    begun = time.monotonic()
    source.close()
    assert threading.active_count() == before
    assert time.monotonic() - begun < 2
    unused = stream(Images())
    unused.close()
    assert threading.active_count() == before


def test_threads_do_not_run_ahead_without_end():
    collection = Images()
    source = stream(collection)
    next(source)
    time.sleep(0.3)
    assert collection.taken <= 1 + 2 * 3  # the one taken; for each thread three waiting or in hand
    source.close()


def test_errors_come_out_at_their_step():
    before = threading.active_count()
    collection = Images(spoil=[100 + 7 * 4])
    rows = [uniform(12, step).tolist() for step in range(3)]
    bad = next(step for step in range(3) if 4 in rows[step])
    source = stream(collection)
    for _ in range(bad):
        next(source)
    with pytest.raises(ImageError, match="truncated"):
        next(source)
    assert threading.active_count() == before
