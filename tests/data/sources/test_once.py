from hypothesis import given
from hypothesis import strategies as st

from lookalike.data.sources.once import Once

NAMES = st.lists(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "y", None]))), max_size=12)


@given(NAMES)
def test_as_a_dict_does(batches: list[list[tuple[str, str | None]]]) -> None:
    once, known = Once(), dict[str, str | None]()
    for batch in batches:
        expected: list[bool | None] = []
        for name, label in batch:
            expected.append(True if name not in known else (False if known[name] == label else None))
            known.setdefault(name, label)
        assert once.look([name for name, _ in batch], [label for _, label in batch]) == expected


def test_no_label_is_not_a_label_called_none() -> None:
    once = Once()
    assert once.look(["a", "a"], [None, "None"]) == [True, None]


def test_many() -> None:
    once = Once()
    for start in range(0, 20_000, 500):
        names = [str(i) for i in range(start, start + 500)]
        assert once.look(names, names) == [True] * 500
    assert once.look(["0", "19999", "20000"], ["0", "other", ""]) == [False, None, True]
