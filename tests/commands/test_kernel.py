"""A notebook's kernel that is interrupted: KeyboardInterrupt in the process itself, which goes on to live."""

import multiprocessing
import shutil
import signal
import threading

import numpy as np
import pytest
from PIL import Image

import lookalike as la
from lookalike.data.collection import Collection
from lookalike.data.prepare import _Update
from lookalike.data.sources import Place
from lookalike.vectors.engines import OnnxEngine


@pytest.fixture(autouse=True)
def ctrl_c():
    """As IPython has it: Python's own handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def photos(shop, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(shop.images, home / "photos")
    for i in range(130):  # enough for two processes that decode
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (24, 30, 3), np.uint8)).save(home / f"photos/{i}.png")
    monkeypatch.chdir(home)
    return home / "photos"


def interrupt_at(call, number):
    """`call`, with a real interrupt at its call of this number."""
    calls = 0

    def interrupted(*arguments):
        nonlocal calls
        calls += 1
        if calls == number:
            signal.raise_signal(signal.SIGINT)
        return call(*arguments)

    return interrupted


def nothing_is_left() -> bool:
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    return not workers and not multiprocessing.active_children()


def test_interrupted_while_it_embeds(shop, photos, monkeypatch):
    encoder = la.load(shop.model, batch=16)
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.vectors.runtime.load", lambda *_, **__: encoder)
        patch.setattr(OnnxEngine, "features", interrupt_at(OnnxEngine.features, 4))
        with pytest.raises(KeyboardInterrupt):
            la.index("photos", model=shop.model)
        assert nothing_is_left()
        patch.setattr(OnnxEngine, "features", interrupt_at(OnnxEngine.features, 2))
        with pytest.raises(KeyboardInterrupt):
            la.embed(sorted(photos.rglob("*.png")), encoder)
        assert nothing_is_left()
    seen = []
    features = OnnxEngine.features
    monkeypatch.setattr(OnnxEngine, "features", lambda self, images: seen.append(len(images)) or features(self, images))
    assert len(la.index("photos", model=shop.model)) == 142
    assert sum(seen) == 142 - 3 * 16  # what it had done is not done again
    assert la.embed(sorted(photos.rglob("*.png"))[:5], encoder).shape == (5, 6)


def test_interrupted_while_it_reads(shop, photos, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lookalike.data.prepare._Update._add", interrupt_at(_Update._add, 30))
        with pytest.raises(KeyboardInterrupt):
            la.index("photos", model=shop.model)
    assert nothing_is_left()
    assert len(Collection.open("photos.lookalike")) == 29
    read = []
    monkeypatch.setattr("lookalike.core.machine.cores", lambda: 1)
    monkeypatch.setattr("lookalike.data.convert.cores", lambda: 1)
    once = Place.read
    monkeypatch.setattr(Place, "read", lambda self: read.append(self) or once(self))
    assert len(la.index("photos", model=shop.model)) == 142
    assert len(read) == 142 - 29
