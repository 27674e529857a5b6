"""The page of a run: well-formed, whole in itself, its numbers those of the run, its curves where they should be."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lookalike.core.journal import record
from lookalike.data.collection import SCHEMA, Collection
from lookalike.pages.curve import HEIGHT, LEFT, MOST, WIDTH, curve, ticks
from lookalike.pages.report import SIDE, write_report

HOSTILE = """'"><script>alert(1)</script>&{{ 7 * 7 }}"""


class Reader(HTMLParser):
    """Collects text and images, and fails where a tag closes what is not open."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """`<line ... />` opens nothing."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def jpeg(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((300, 200, 3), shade, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path):
    """A run that measured twice; of three queries one got better, one worse, one stayed."""
    collection = Collection.create(tmp_path / "collection")
    empty = {"domain": None, "split": "test", "group": None, "is_query": True, "is_gallery": True, "gone": False}
    rows = [
        {"id": i, "source": f"{i}", "image": jpeg(40 * i), "width": 200, "height": 300, "sha256": bytes(32)}
        | {"label": HOSTILE if i == 1 else f"thing {i}", "stamp": ""}
        | empty
        for i in range(4)
    ]
    collection.append(pa.Table.from_pylist(rows, schema=SCHEMA))
    out = tmp_path / "run"
    (out / "evaluation").mkdir(parents=True)
    (out / "config.json").write_text(json.dumps({"recipe": "head", "stages": [{"batch": 128, "names": ["a", "b"]}]}))

    def measured(encoder, precisions):
        queries = [
            {"id": i, "precision": p, "found": [[3, 0.5, True], [i - 1 if i else 2, 0.25, False]]}
            for i, p in enumerate(precisions)
        ]
        metrics = {"mp@5": sum(precisions) / 3, "recall@1": 0.5}
        return {"encoder": encoder, "metrics": metrics, "per_domain": {HOSTILE: metrics}, "queries": queries}

    (out / "evaluation" / "untouched.json").write_text(json.dumps(measured("untouched", [0.2, 0.6, 0.4])))
    (out / "evaluation" / "latest.json").write_text(json.dumps(measured("trained", [0.8, 0.15, 0.4])))
    record(out, 0, {"encoder": "untouched", "dimension": 16, "mp@5": 0.4, "recall@1": 0.5})
    for step in (5, 10):
        record(out, step, {"loss": 30.0 / step, "cosine": step / 20})
    record(out, 10, {"encoder": "trained", "dimension": 4, "mp@5": 0.45, "recall@1": 0.5})
    write_report(out, tmp_path / "collection", "backend cpu: 1 x cpu")
    return out


def test_the_page_tells_the_run_and_needs_nothing_else(run):
    text = (run / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    words = " ".join(reader.text)
    for part in ("backend cpu", "0.450", "+0.050", "What got better", "What got worse", "stages.1.batch", "a, b"):
        assert part in words, part
    assert words.count(HOSTILE) == 2  # a domain, a query's name; never as markup
    assert "<script" not in text
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_queries_that_changed_are_shown_with_what_they_found(run):
    reader = Reader()
    reader.feed((run / "report.html").read_text())
    assert [image["alt"] for image in reader.images] == [
        *("thing 0", "thing 3", "thing 2", "thing 3", "thing 2"),
        *(HOSTILE, "thing 3", "thing 0", "thing 3", "thing 0"),
    ]
    small = Image.open(io.BytesIO(base64.b64decode(reader.images[1]["src"].split(",")[1])))
    assert max(small.size) == SIDE
    assert abs(float(np.asarray(small).mean()) - 120) < 3  # row 3


def test_without_measurements_there_are_curves(run):
    for name in ("untouched", "latest"):
        (run / "evaluation" / f"{name}.json").unlink()
    write_report(run, run.parent / "collection", "")
    words = (run / "report.html").read_text()
    assert "Over the steps" in words
    assert "Against the untouched" not in words


def test_a_curve_in_pixels():
    made = curve("mp@5", [(0, 0.2), (50, 0.6), (100, 0.4)], base=0.3)
    pixels = [tuple(map(float, point.split(","))) for point in made.points.split()]
    assert [x for x, _ in pixels] == [LEFT, LEFT + WIDTH / 2, LEFT + WIDTH]
    low, high = (float(made.up[i][1]) for i in (0, -1))
    expected = [10 + HEIGHT * (high - value) / (high - low) for value in (0.2, 0.6, 0.4)]
    np.testing.assert_allclose([y for _, y in pixels], expected, atol=0.06)
    assert made.base == pytest.approx(10 + HEIGHT * (high - 0.3) / (high - low), abs=0.06)
    assert made.last == "0.4"
    assert made.across[0] == (LEFT, "0")
    assert made.across[-1] == (LEFT + WIDTH, "100")


def test_long_curves_are_means_of_neighbours():
    values = [(step, float(step % 2)) for step in range(1, 10 * MOST + 1)]
    made = curve("loss", values)
    heights = {point.split(",")[1] for point in made.points.split()}
    assert len(made.points.split()) == MOST
    assert heights == {f"{10 + HEIGHT / 2:.1f}"}  # 0.5, between 0 and 1, is where all of them are


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_round_and_around_what_is_drawn(low, size):
    found = ticks(low, low + size)
    slack = 1e-6 * max(1.0, abs(low), size)  # a billionth of a step lies outside
    assert found[0] <= low + slack
    assert found[-1] >= low + size - slack
    assert 2 <= len(found) <= 7
    gaps = np.diff(found)
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-3, atol=1e-9)
