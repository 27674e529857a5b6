import re
from pathlib import Path

import pytest

from lookalike.core.errors import SourceError
from lookalike.data.sources.lists import read_objects
from lookalike.data.sources.tree import Tree


def tree(tmp_path: Path, text: str) -> Tree:
    (tmp_path / "list.json").write_bytes(text.encode())
    return Tree(str(tmp_path))


@pytest.mark.parametrize("text", ['[{"path": "a"}, {"path": "b"}]', '\ufeff[\r\n {"path": "a"}\r\n,{"path": "b"}]\n'])
def test_objects_one_after_the_other(tmp_path: Path, text: str) -> None:
    assert [entry["path"] for entry in read_objects(tree(tmp_path, text), "list.json", "path")] == ["a", "b"]


def test_an_empty_list(tmp_path: Path) -> None:
    assert list(read_objects(tree(tmp_path, "[]"), "list.json", "path")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": "a"}', "is no list in JSON"),
        ('[{"path": "a"},\n{"path', "line 2: the JSON breaks off"),
        ('[{"path": "a"}', "line 1: the JSON breaks off"),
        ('[\n{"paths": "a"}]', "line 2: an entry has no `path`"),
        ("[7]", "line 1: an entry has no `path`"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SourceError, match=re.escape(words)):
        list(read_objects(tree(tmp_path, text), "list.json", "path"))
