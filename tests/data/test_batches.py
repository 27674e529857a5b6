"""The stream of batches: the same from any step, however it is shared out; it ends cleanly and hides no error."""

import multiprocessing
import threading
import time

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest

from lookalike.core.errors import ImageError
from lookalike.data.batches import batches, stored_smaller
from lookalike.data.collection import SCHEMA, Collection
from lookalike.data.pixels import opened
from lookalike.data.sampling import Mixture, generator, sampler, share
from lookalike.imaging.augment import Background, Color, Crop, Erase, Flip, View
from lookalike.imaging.decode import decode, encode_jpeg

VIEW = View(16, (Crop(16), Flip(), Color(), Erase()))
UNIFORM = Mixture(classes="uniform")


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


def stream(collection, threads=2, mixture=UNIFORM, **changes):
    CORES[0] = threads
    ids = np.array(sorted(collection.images), np.int64)
    labels = np.arange(len(ids)) % 3
    options = {"batch": 6, "seed": 3, "start": 0, "views": [VIEW]} | changes
    draw = sampler(mixture, labels, labels, options["batch"], options["seed"])
    return batches(collection, ids, draw, **options)


def uniform(rows, step):
    return sampler(UNIFORM, np.zeros(rows, int), np.zeros(rows, int), 6, 3)(step)


def first(count, **changes):
    source = stream(Images(), **changes)
    got = [next(source) for _ in range(count)]
    source.close()
    return got


def same(a, b):
    return all(map(np.array_equal, (*a.images, a.rows), (*b.images, b.rows)))


@pytest.mark.parametrize("mixture", [UNIFORM, Mixture("single", per_class=2)])
def test_a_step_does_not_depend_on_where_the_stream_began_nor_on_threads(mixture):
    whole = first(7, mixture=mixture)
    assert all(same(a, b) for a, b in zip(whole[4:], first(3, start=4, mixture=mixture), strict=True))
    for threads in (1, 3):
        assert all(same(a, b) for a, b in zip(whole, first(7, threads=threads, mixture=mixture), strict=True))
    assert not same(whole[0], first(1, seed=4, mixture=mixture)[0])


VIEWS = [VIEW, VIEW, View(8, (Background(1.0), Color()))]


def test_hosts_share_a_step_and_views_are_apart():
    whole = first(2, views=VIEWS)
    for step, batch in enumerate(whole):
        assert [each.shape for each in batch.images] == [(6, 16, 16, 3), (6, 16, 16, 3), (6, 8, 8, 3)]
        assert not np.array_equal(batch.images[0], batch.images[1])
        parts = [first(2, views=VIEWS, items=share(6, 1, 3, host, 3)[0])[step] for host in range(3)]
        assert np.array_equal(np.concatenate([each.rows for each in parts]), batch.rows)
        for number, images in enumerate(batch.images):
            assert np.array_equal(np.concatenate([each.images[number] for each in parts]), images)
    assert np.array_equal(first(1)[0].images[0], whole[0].images[0])  # whatever other views there are


def test_processes_make_what_threads_make_and_end():
    before = set(multiprocessing.active_children())
    source = stream(Images(), views=VIEWS, processes=True)
    got = [next(source) for _ in range(3)]
    assert len(set(multiprocessing.active_children()) - before) == 2
    source.close()
    assert set(multiprocessing.active_children()) == before
    assert all(same(a, b) for a, b in zip(got, first(3, views=VIEWS, processes=False), strict=True))


def test_errors_of_processes_are_sentences():
    source = stream(Images(spoil=[100 + 7 * i for i in range(12)]), threads=1, processes=True)
    with pytest.raises(ImageError, match="truncated"):
        next(source)
    source = stream(Images(), threads=1, processes=True)
    next(source)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(ImageError, match=r"A process that decodes the images of step \d+ has ended"):
        [next(source) for _ in range(9)]
    assert not multiprocessing.active_children()


def test_images_belong_to_their_rows():
    collection = Images()
    ids = np.array(sorted(collection.images), np.int64)
    source = stream(collection, views=[View(8)])
    for step in range(4):
        (images,), at = next(source)
        rows = uniform(len(ids), step)
        assert images.dtype == np.uint8
        assert np.array_equal(at, rows)
        for image, row in zip(images, rows, strict=True):
            assert np.abs(image.astype(int) - decode(collection.images[int(ids[row])])[0, 0]).max() <= 1
    source.close()


def test_augments_come_in_their_order_with_the_numbers_of_their_place():
    collection = Images()
    ids = np.array(sorted(collection.images), np.int64)
    for augments, equal in ((VIEW.augments, True), (VIEW.augments[::-1], False)):
        ((images,), _), *_ = first(1, start=2, views=[View(16, augments)])
        for item, (image, row) in enumerate(zip(images, uniform(len(ids), 2), strict=True)):
            wanted = PIL.Image.fromarray(decode(collection.images[int(ids[row])]))
            rng = generator(3, 2, item)
            for augment in VIEW.augments:
                wanted = augment(rng, wanted)
            assert np.array_equal(image, np.asarray(wanted)) == equal


def test_the_veil_is_another_image_of_the_step():
    """Of one colour each: what is mixed in tells whose it was."""
    collection = Images()
    ((images,), rows), *_ = first(1, views=[View(8, (Background(1.0, (0.5, 0.5)),))])
    colors = np.array([decode(data)[0, 0] for _, data in sorted(collection.images.items())]).astype(int)
    for image, row in zip(images, rows, strict=True):
        other = 2 * image.astype(int).mean(axis=(0, 1)) - colors[row]
        assert np.abs(colors[rows] - other).max(axis=1).min() <= 4


@pytest.mark.parametrize("gray", [False, True])
def test_opened_is_decode_at_the_scale_that_suffices(gray):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 1 if gray else 3), dtype=np.uint8)
    data = encode_jpeg(np.kron(pixels, np.ones((11, 11, 1), np.uint8)))  # 99 x 132
    for at_least, height in ((60, 99), (49, 50), (24, 25), (12, 13), (1, 13)):
        image = opened(data, at_least)
        assert (image.mode, image.height) == ("RGB", height)
        assert np.array_equal(np.asarray(image), decode(data, at_least))


def test_what_is_stored_smaller_is_counted(tmp_path):
    collection = Collection.create(tmp_path / "coll")
    sides = [(100, 300), (300, 256), (256, 255), (500, 400)]
    rows = [
        {"id": i, "source": "s", "image": b"", "width": w, "height": h, "sha256": bytes(32), "stamp": ""}
        | dict.fromkeys(("is_query", "is_gallery", "gone"), False)
        for i, (w, h) in enumerate(sides)
    ]
    collection.append(pa.Table.from_pylist(rows, SCHEMA))
    collection.update_card({"options": {"size": 256}})
    ids = np.array([0, 1, 2, 3])
    assert [stored_smaller(collection, ids, size) for size in (50, 101, 256, 257)] == [0, 1, 2, 4]
    assert stored_smaller(collection, ids[1:2], 256) == 0


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
