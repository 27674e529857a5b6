"""Options of training that can't work are told before anything is read."""

import math

import pytest

from lookalike.core.errors import UsageError
from lookalike.training.config import HeadStage, Optimizer, TrainConfig, Trained, TuneStage


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
        (TrainConfig if hasattr(TrainConfig(), flag) else HeadStage)(**{flag: value})
    option = f"--{flag.replace('_', '-')}"
    assert caught.value.message == f"`{option}` is {value}; expected {least} or more."
    assert caught.value.hint == f"{option} {least}"


def test_stages_have_names_of_their_own() -> None:
    assert TrainConfig(stages=(HeadStage(), TuneStage(), TuneStage())).names == ("head", "tune", "tune2")


@pytest.mark.parametrize("rule", ["tower.position", "=0", "tower.*=fast", "tower.*=-1", "tower.*=inf"])
def test_a_rule_is_a_pattern_and_a_factor(rule: str) -> None:
    with pytest.raises(UsageError, match="is no rule; expected PATTERN=FACTOR"):
        Trained(rules=(rule,))


def test_a_batch_is_cut_into_equal_parts() -> None:
    with pytest.raises(UsageError, match="`--accumulate` is 3; expected a divisor of the batch, 16"):
        TuneStage(batch=16, accumulate=3)


def test_copies_need_blocks_that_stay() -> None:
    with pytest.raises(UsageError, match="here all blocks learn"):
        TuneStage(copies=2)
    TuneStage(copies=2, trained=Trained(blocks=1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", math.inf), ("learning_rate", math.nan), ("sam", math.inf), ("momentum", 1.0), ("beta2", 1.0)],
)
def test_what_makes_every_number_infinite_or_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"`{name}` of Optimizer is {value}; expected 0 "):
        Optimizer(**{name: value})
