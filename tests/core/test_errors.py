import inspect
import pickle

import pytest

from lookalike.core import errors
from lookalike.core.errors import ImageError, LookalikeError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LookalikeError)]


def test_every_kind_stands_right_below_the_one_that_commands_catch() -> None:
    assert all(kind.__bases__ == (LookalikeError,) for kind in KINDS if kind is not LookalikeError)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_a_trip_between_processes(kind: type[LookalikeError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what, where", hint="do this")))
    assert type(again) is kind
    assert (again.message, again.hint) == ("what, where", "do this")


def test_the_text_is_a_sentence_a_blank_line_and_a_hint() -> None:
    assert str(ImageError("It is broken.", hint="mend it")) == "It is broken.\n\nhint: mend it"
    assert str(LookalikeError("It is broken.")) == "It is broken."


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not LookalikeError])
def test_no_kind_is_without_a_hint(kind: type[LookalikeError]) -> None:
    words, hint = str(kind("It is broken.")).split("\n\nhint: ")
    assert words == "It is broken."
    assert len(hint.split()) > 4
