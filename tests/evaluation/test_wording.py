"""Numbers of a verdict as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.statistics.paired import paired_comparison
from finetune.evaluation.wording import (
    comparison_words,
    decimals,
    p_words,
    percent,
    rounded_up,
    unseen_words,
    with_interval,
)


def test_with_interval() -> None:
    assert with_interval(0.8349, (0.766, 0.881), 2) == "0.83 [0.77, 0.88]"
    assert with_interval(0.81, (0.77, 0.85), 2, signed=True) == "+0.81 [0.77, 0.85]"
    assert with_interval(-0.2, (-0.3, -0.1), 2, signed=True) == "-0.20 [-0.30, -0.10]"
    assert with_interval(-0.001, (-0.002, 0.004), 2, signed=True) == "0.00 [0.00, 0.00]"


@pytest.mark.parametrize(
    ("interval", "places"),
    [
        ((0.02, 0.1), 2),
        ((0.004, 0.1), 3),
        ((-0.1, -0.0004), 4),
        ((-0.001, 0.1), 2),
        ((-0.001, 0.001), 3),
        ((0.5101, 0.5104), 4),
        ((0.0, 0.0), 2),
        ((1e-9, 1), 6),
    ],
)
def test_decimals_tell_the_limits_apart_and_from_zero(interval: tuple[float, float], places: int) -> None:
    assert decimals(interval) == places


@given(st.floats(0, 10), st.integers(2, 4))
def test_rounded_up_is_not_below(value: float, places: int) -> None:
    assert value - 1e-8 <= float(rounded_up(value, places)) <= value + 10**-places + 1e-9


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (0.0, "p < 0.001"),
        (0.0009, "p < 0.001"),
        (0.032, "p = 0.032"),
        (0.0499, "p = 0.0499"),
        (0.05, "p = 0.050"),
        (1.0, "p = 1.000"),
    ],
)
def test_p_words(p_value: float, text: str) -> None:
    assert p_words(p_value, 0.95) == text


def test_percent() -> None:
    assert [percent(share) for share in (0.95, 0.9, 0.999, 0.8)] == ["95 %", "90 %", "99.9 %", "80 %"]


def test_a_comparison_in_words() -> None:
    base, tuned = [0.0] * 30 + [1.0] * 30, [1.0] * 30 + [1.0] * 30
    found = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    assert comparison_words(found, 2) == (
        "1.00 [0.94, 1.00] against 0.50 [0.38, 0.62], difference +0.50 [0.38, 0.62] (95 %, n = 60, McNemar mid-p test, "
        "p < 0.001)"
    )
    assert unseen_words(found, 2) == ""
    assert " (lower is better), difference" in comparison_words(found, 2, higher_is_better=False)


def test_what_could_have_been_seen_is_said_where_nothing_was() -> None:
    tie = paired_comparison([0.0, 1.0] * 30, [1.0, 0.0] * 30, binary=True, higher_is_better=True)
    assert unseen_words(tie, 2) == (
        f"; a difference of {rounded_up(tie.minimum_detectable, 2)} or more would have been seen with 80 % power"
    )
    few = paired_comparison([0.0, 1.0], [1.0, 0.0], binary=True, higher_is_better=True)
    assert unseen_words(few, 2) == "; at least 10 items are needed for a verdict, there are 2"
    grouped = paired_comparison(
        [0.1 * (n % 5) for n in range(40)],
        [0.1 * (n % 7) for n in range(40)],
        binary=False,
        higher_is_better=True,
        clusters=[n // 2 for n in range(40)],
    )
    assert "n = 40 in 20 groups" in comparison_words(grouped, 2)
