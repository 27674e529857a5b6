"""Options of training that can't work are told before anything is read."""

import pytest

from lookalike.core.errors import UsageError
from lookalike.training.config import HeadConfig, PcaConfig


@pytest.mark.parametrize(
    ("flag", "value", "least"),
    [
        ("dimension", 0, 1),
        ("batch", -1, 1),
        ("centers", 0, 1),
        ("save_every", 0, 1),
        ("log_every", 0, 1),
        ("steps", -3, 0),
        ("seed", -1, 0),
        ("evaluate_every", -1, 0),
    ],
)
def test_too_small_a_number_is_told_with_its_flag(flag: str, value: int, least: int) -> None:
    with pytest.raises(UsageError) as caught:
        HeadConfig(**{flag: value})
    option = f"--{flag.replace('_', '-')}"
    assert caught.value.message == f"`{option}` is {value}; expected {least} or more."
    assert caught.value.hint == f"{option} {least}"


def test_a_closed_form_is_asked_for_its_dimension_too() -> None:
    with pytest.raises(UsageError, match="--dimension"):
        PcaConfig(dimension=0)
