"""Arguments that are read plainly, against the CLI library, and JAX that is imported at its first use."""

import dataclasses
import io
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

import pytest
import tyro
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookalike.commands import COMMANDS
from lookalike.core import config as reading
from lookalike.core.arguments import read_plainly
from lookalike.core.errors import UsageError
from lookalike.core.later import Later, made_at_first_call

KINDS = {verb: import_module(f"lookalike.commands.{verb}").Config for verb in COMMANDS if verb not in ("train", "plan")}
FLAGS = {verb: sorted(reading.flags_of(kind)) for verb, kind in KINDS.items()}


def by_library(kind, argv):
    """What tyro makes of `argv`, or None where it refuses."""
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        try:
            return tyro.cli(
                kind,
                args=argv,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone, tyro.conf.SuppressFixed),
                registry=reading._registry(),
            )
        except (SystemExit, UsageError):
            return None


@st.composite
def command_lines(draw):
    """A verb, and words of which many belong to it."""
    verb = draw(st.sampled_from(sorted(KINDS)))
    flags = [*FLAGS[verb], "--nothing"]
    values = ["a", "b.jpg", "3", "0.5", "-1", "None", "", "onnx", "merged", "--", "-", "1_0", "a=b"]
    word = st.one_of(st.sampled_from(flags), st.sampled_from(flags), st.sampled_from(values), st.just("a"))
    joined = st.tuples(st.sampled_from(flags), st.sampled_from(values)).map("=".join)
    return verb, draw(st.lists(st.one_of(word, word, joined), max_size=6))


@settings(max_examples=250, deadline=None)
@given(command_lines())
@example(("search", ["a.jpg", "-k", "3", "--json", "--where", "split = 'test'"]))
@example(("index", ["photos", "more", "--exclude", "x", "y", "--test", "0.3"]))
@example(("export", ["--model", "m", "--to", "onnx", "--out=o", "--no-preprocess"]))
@example(("evaluate", ["--model", "m", "c"]))
def test_what_is_read_plainly_is_what_the_library_reads(line):
    verb, argv = line
    try:
        plain = read_plainly(KINDS[verb], argv)
    except UsageError:
        plain = None
    if plain is not None:
        assert plain == by_library(KINDS[verb], argv)


@pytest.mark.parametrize(
    ("verb", "argv"),
    [
        ("search", ["a.jpg", "-k", "3", "--json", "--where", "split = 'test'"]),
        ("search", ["-i", "photos.lookalike", "--text", "a red kettle"]),
        ("index", ["photos"]),
        ("index", []),
        ("embed", ["coll", "--model", "laptop", "--runtime", "onnx", "--batch", "8"]),
        ("export", ["--model", "m", "--to", "onnx", "--out", "o", "--int8"]),
        ("prepare", ["photos", "--out", "c", "--test", "0.3"]),
    ],
)
def test_what_people_type_is_read_plainly(verb, argv):
    assert read_plainly(KINDS[verb], argv) == by_library(KINDS[verb], argv) != None  # noqa: E711


@pytest.mark.parametrize(
    ("verb", "argv"),
    [
        ("search", ["--help"]),
        ("search", ["a.jpg", "-k", "three"]),
        ("search", ["a.jpg", "-k", "3", "b.jpg"]),
        ("search", ["a.jpg", "-k"]),
        ("export", ["--to", "onnx"]),
        ("embed", ["coll", "--runtime", "fast"]),
        ("embed", ["coll", "other"]),
        ("index", ["photos", "--nothing"]),
    ],
)
def test_all_else_is_left_to_the_library(verb, argv):
    assert read_plainly(KINDS[verb], argv) is None


def test_nested_configs_are_left_to_the_library():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        x: int = 1

    globals()["Inner"] = Inner

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()

    assert read_plainly(Outer, []) is None


def test_a_module_is_imported_when_it_is_asked_for():
    later, calls = Later("json"), []
    assert later.loads("[1]") == [1]
    with pytest.raises(AttributeError, match="nothing"):
        later.nothing  # noqa: B018

    @made_at_first_call
    def double():
        calls.append(1)
        return lambda x: 2 * x

    assert calls == []
    assert (double(2), double(3)) == (4, 6)
    assert calls == [1]
