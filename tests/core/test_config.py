"""One config, three forms: command line, value, JSON."""

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from docstring_parser import parse_from_object
from hypothesis import given
from hypothesis import strategies as st

from lookalike.commands import prepare, search
from lookalike.core import config as reading
from lookalike.core.config import did_you_mean, from_json, option, parse, to_json
from lookalike.core.errors import UsageError
from lookalike.training.config import Augments, Optimizer, TrainConfig


@dataclass(frozen=True)
class Cosine:
    margin: float = 0.3
    """Radians."""


@dataclass(frozen=True)
class Angular:
    margin: float = 0.5
    """Radians."""
    centers: int = 1
    """Per class."""


@dataclass(frozen=True)
class Config:
    """Everything a config may hold."""

    collection: str = option(positional=True, metavar="COLL")
    """The collection."""
    images: tuple[str, ...] = option(positional=True, metavar="IMAGE", default=())
    """Images."""
    count: int = option(default=5, short="k", metavar="N")
    """How many."""
    where: str | None = None
    """A condition."""
    json: bool = False
    """As JSON."""
    runtime: Literal["auto", "jax"] = "auto"
    """What runs."""
    loss: Cosine | Angular = Cosine()
    """The margin."""
    learning_rate: float = 0.1
    """Per step."""
    start: Cosine | Angular = field(default_factory=lambda: Angular(0.7))
    """Made anew."""
    sizes: tuple[int, int] = (1, 2)
    """Two of them."""


def parsed(*argv: str, default: Config | None = None) -> Config:
    return parse(Config, argv, prog="lookalike x", description="Words.", default=default)


def test_flags_override_fields() -> None:
    config = parsed("c", "a.jpg", "b.jpg", "-k", "7", "--json", "--where", "x > 1", "--learning-rate", "1e-3")
    expected = Config(collection="c", images=("a.jpg", "b.jpg"), count=7, json=True, where="x > 1", learning_rate=1e-3)
    assert config == expected
    assert parsed("c", "--count=7", "--learning_rate=0.001").count == 7
    assert parsed("c", "--sizes", "3", "4").sizes == (3, 4)
    assert parsed("c", "--start.centers", "3").start == Angular(0.7, 3)


def test_a_flag_changes_one_leaf_of_the_default_and_keeps_the_member_of_its_union() -> None:
    recipe = Config(collection="c", loss=Angular(0.1, centers=3), json=True, where="y")
    assert parsed("d", "--loss.margin", "0.2", default=recipe) == Config(
        collection="d", loss=Angular(0.2, centers=3), json=True, where="y"
    )
    assert parsed("d", "--no-json", default=recipe).json is False
    with pytest.raises(UsageError, match=r"Unknown option `--loss.centers`"):
        parsed("d", "--loss.centers", "2")  # the class's default is Cosine, which has none


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["c", "--learning-rat", "1"], "Unknown option `--learning-rat`. Did you mean `--learning-rate`?"),
        (["c", "--loss.margn=1"], "Unknown option `--loss.margn`. Did you mean `--loss.margin`?"),
        (["c", "--qqqqqqqq"], "Unknown option `--qqqqqqqq`."),
        (["c", "-q"], "Unknown argument `-q`."),
        (["c", "--runtime", "jacks"], "`--runtime` is 'jacks'; expected one of 'auto', 'jax'."),
        (["c", "-k", "many"], "`-k/--count` is 'many'; expected a whole number."),
        (["c", "--loss.margin", "x"], "`--loss.margin` is 'x'; expected a number."),
        (["c", "--where"], "`--where` needs a value."),
        (["c", "--where", "a", "--where", "b"], "`--where` is given twice."),
        ([], "Missing: `COLL`."),
    ],
)
def test_errors_are_one_sentence_with_a_hint(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*argv)
    assert caught.value.message == message
    assert caught.value.hint == "`lookalike x --help` lists the options"


def test_errors_do_not_depend_on_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    with pytest.raises(UsageError) as caught:
        parsed("c", "--runtime", "jacks")
    assert caught.value.message == "`--runtime` is 'jacks'; expected one of 'auto', 'jax'."


def test_help_shows_places_letters_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--help", default=Config(collection="c", count=9))
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in ("Words.", "COLL", "IMAGE...", "-k N, --count N", "(default: 9)", "--loss.margin"):
        assert text in out
    assert "default: None" not in out


@dataclass(frozen=True)
class Many:
    """At least one."""

    sources: tuple[str, ...] = option(positional=True, metavar="SOURCE")
    """Folders."""


@pytest.mark.parametrize("kind", [prepare.Config, search.Config, TrainConfig, Optimizer, Augments])
def test_help_has_the_docstrings_as_another_parser_reads_them(kind: type) -> None:
    told = {p.arg_name: " ".join(p.description.split()) for p in parse_from_object(kind).params if p.description}
    assert len(told) > 2
    assert told == {f.name: words for f in fields(kind) if (words := reading._words(kind, f.name))}


def test_a_field_of_a_parent_class_has_its_docstring() -> None:
    @dataclass(frozen=True)
    class Child(Angular):
        further: int = 0

    assert reading._words(Child, "centers") == "Per class."
    assert reading._words(Child, "further") is None  # not at the top of a file


def test_a_list_by_place_without_a_default_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(Many, ["a", "b"], prog="lookalike x", description="").sources == ("a", "b")
    with pytest.raises(UsageError, match=r"^Missing: `SOURCE...`."):
        parse(Many, [], prog="lookalike x", description="")
    with pytest.raises(SystemExit):
        parse(Many, ["--help"], prog="lookalike x", description="")
    assert "SOURCE... Folders. (required)" in " ".join(capsys.readouterr().out.split())


def test_did_you_mean() -> None:
    assert did_you_mean("serch", ["search", "index"]) == " Did you mean `search`?"
    assert did_you_mean("zzz", ["search", "index"]) == ""


# ------------------------------------------------------------------ JSON


@dataclass(frozen=True)
class Tree:
    text: str
    number: float
    whole: int
    flag: bool
    maybe: str | None
    either: int | str
    kind: Literal["a", "b", 3]
    many: tuple[int, ...]
    pair: tuple[str, float]
    loss: Cosine | Angular
    optional: Angular | None
    losses: tuple[Cosine | Angular, ...]


finite = st.floats(allow_nan=False, allow_infinity=False)
losses = st.builds(Cosine, finite) | st.builds(Angular, finite, st.integers())
trees = st.builds(
    Tree,
    text=st.text(),
    number=finite,
    whole=st.integers(),
    flag=st.booleans(),
    maybe=st.none() | st.text(),
    either=st.integers() | st.text(),
    kind=st.sampled_from(["a", "b", 3]),
    many=st.lists(st.integers()).map(tuple),
    pair=st.tuples(st.text(), finite),
    loss=losses,
    optional=st.none() | st.builds(Angular, finite, st.integers()),
    losses=st.lists(losses).map(tuple),
)


@given(trees)
def test_json_brings_back_the_same_value(tree: Tree) -> None:
    again = from_json(Tree, json.loads(json.dumps(to_json(tree))))
    assert again == tree
    assert type(again.loss) is type(tree.loss)
    assert type(again.number) is float


@given(trees, st.data())
def test_json_with_a_field_more_or_less_is_refused(tree: Tree, data: st.DataObject) -> None:
    whole = to_json(tree)
    name = data.draw(st.sampled_from(sorted(set(whole) - {"type"})))
    with pytest.raises(UsageError, match=f"the config lacks `{name}`"):
        from_json(Tree, {key: value for key, value in whole.items() if key != name})
    with pytest.raises(UsageError, match="the config has no field `surplus`"):
        from_json(Tree, {**whole, "surplus": 1})


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (int, "3", "`config` is '3'; expected int."),
        (int, True, "`config` is True; expected int."),
        (float, None, "`config` is None; expected float."),
        (Literal["a", 1], True, "`config` is True; expected one of 'a', 1."),
        (tuple[int, int], [1], "`config` is [1]; expected tuple[int, int]."),
        (tuple[int, ...], [1, "2"], "`[1]` is '2'; expected int."),
        (int | None, "x", "`config` is 'x'; expected int | NoneType."),
        (Cosine, {"type": "Angular", "margin": 1.0}, "the config is of type 'Angular'; expected 'Cosine'."),
        (Cosine | Angular, {"margin": 1.0}, "`config` is of type None; expected one of Angular, Cosine."),
        (Cosine | Angular, {"type": "Cosin"}, "`config` is of type 'Cosin'; expected one of Angular, Cosine."),
        (Cosine, {"margin": "wide"}, "`margin` is 'wide'; expected float."),
        (Cosine, {"margins": 1.0}, "the config has no field `margins`. Did you mean `margin`?"),
        (Cosine, [], "`config` is []; expected Cosine."),
    ],
)
def test_wrong_json_says_where_and_what(kind: Any, data: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_json(kind, data)
    assert caught.value.message == message


def test_what_json_does_not_have_is_our_bug() -> None:
    with pytest.raises(TypeError, match="can't hold a set"):
        to_json({1, 2})
