"""Every reason for which an image can't be stored has a class of its own, and a hint."""

import io
import sys
from pathlib import Path

import PIL.Image
import pytest

from lookalike.data.convert import Failed, Task, convert
from lookalike.data.failures import OTHER, by_kind, kind_of
from lookalike.data.sources import Place


def jpeg() -> bytes:
    data = io.BytesIO()
    PIL.Image.linear_gradient("L").save(data, "JPEG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (jpeg()[:150], "cut off"),
        (jpeg()[: len(jpeg()) // 2], "cut off"),
        (b"no image at all", "another kind"),
        (None, "can't be opened"),
    ],
)
def test_reasons_as_they_are_told(tmp_path: Path, content: bytes | None, kind: str) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    failed = convert(Task(Place(str(tmp_path / "a.jpg"), "s")), 64)
    assert isinstance(failed, Failed)
    assert kind_of(failed.reason)[0] == kind, failed.reason


def test_a_format_whose_library_is_missing_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(20))
    failed = convert(Task(Place(str(tmp_path / "a.jxl"), "s")), 64)
    assert isinstance(failed, Failed)
    name, hint = kind_of(failed.reason)
    assert name == "needs a library"
    assert "pip install 'lookalike[formats]'" in hint


def test_the_largest_class_is_first() -> None:
    reasons = ["The file is empty (0 bytes).", "There is not enough memory to decode it.", "What is this?"] + 2 * [
        "The archive ends after 3 of this member's 9 bytes."
    ]
    assert [(kind, count) for kind, count, _ in by_kind(reasons)] == [
        ("cut off", 2),
        ("empty", 1),
        ("no memory", 1),
        ("other", 1),
    ]
    assert kind_of("What is this?") == OTHER
