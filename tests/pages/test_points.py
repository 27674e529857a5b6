"""Points by group, in pixels."""

import re

import numpy as np

from lookalike.pages import points as drawing
from lookalike.pages.points import COLORS, PALETTE, points


def test_corners_and_groups():
    made = points(np.array([[-1, -1], [1, 1], [0, 0]], np.float32), ["a", "b", "b"])
    assert [(one.name, one.count, one.color, one.path) for one in made] == [
        ("b", 2, PALETTE[0], "M708 708h0M360 360h0"),
        ("a", 1, PALETTE[1], "M12 12h0"),
    ]


def test_many_groups_share_the_last_color():
    names = [str(number) for number in range(COLORS + 5)]
    made = points(np.zeros((len(names), 2)), names)
    assert [one.color for one in made] == list(PALETTE)
    assert (made[-1].name, made[-1].count) == ("all others", 5)


def test_of_too_many_points_some_are_drawn(monkeypatch):
    monkeypatch.setattr(drawing, "MOST", 10)
    (one,) = points(np.zeros((1000, 2)), ["a"] * 1000)
    assert one.count == 1000
    assert len(re.findall("M", one.path)) == 10
