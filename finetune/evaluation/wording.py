"""Numbers of a verdict as text: scores never without their interval, and never rounded across a decision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.evaluation.statistics.paired import Comparison


def decimals(interval: tuple[float, float], least: int = 2) -> int:
    """Decimals at which the limits of an interval can be told apart, and from a 0 that it leaves out."""
    low, high = interval
    nearest_zero = min(abs(low), abs(high))
    for places in range(least, 6):
        blurred = low < high and round(low, places) == round(high, places)
        touching = (low > 0 or high < 0) and round(nearest_zero, places) == 0
        if not (blurred or touching):
            return places
    return 6


def with_interval(value: float, interval: tuple[float, float], places: int, *, signed: bool = False) -> str:
    """`0.83 [0.77, 0.88]`; `signed` puts a plus before a positive difference."""
    low, high = interval
    plus = "+" if signed and round(value, places) > 0 else ""
    return f"{plus}{_number(value, places)} [{_number(low, places)}, {_number(high, places)}]"


def rounded_up(value: float, places: int) -> str:
    """The least number with so many decimals that is not below `value`."""
    return f"{math.ceil(value * 10**places - 1e-9) / 10**places:.{places}f}"


def p_words(p_value: float, confidence: float) -> str:
    """`p = 0.032`, with as many decimals as show on which side of 1 - confidence it lies."""
    if p_value < 0.001:
        return "p < 0.001"
    level, places = 1 - confidence, 3
    while places < 6 and round(p_value, places) == round(level, places) and not math.isclose(p_value, level):
        places += 1
    return f"p = {p_value:.{places}f}"


def comparison_words(found: Comparison, places: int, *, higher_is_better: bool = True) -> str:
    """Both scores, the difference, each with its interval, and the test behind it."""
    direction = "" if higher_is_better else " (lower is better)"
    size = f"n = {found.n}" + ("" if found.groups is None else f" in {found.groups} groups")
    return (
        f"{with_interval(found.tuned, found.tuned_interval, places)} against "
        f"{with_interval(found.base, found.base_interval, places)}{direction}, "
        f"difference {with_interval(found.difference, found.interval, places, signed=True)} "
        f"({percent(found.confidence)}, {size}, {found.test}, {p_words(found.p_value, found.confidence)})"
    )


def unseen_words(found: Comparison, places: int) -> str:
    """What an undecided comparison could have seen, to stand after its figures; nothing where there is a verdict."""
    return {
        "no detectable difference": "; a difference of "
        f"{rounded_up(found.minimum_detectable, places)} or more would have been seen with 80 % power",
        "too few items to tell": f"; {found.notes[0]}" if found.notes else "",
    }.get(found.verdict, "")


def percent(share: float) -> str:
    """`95 %`."""
    return f"{100 * share:.4g} %"


def _number(value: float, places: int) -> str:
    # `or` turns the -0.0 that small negative numbers round to into 0.0.
    return f"{round(value, places) or 0.0:.{places}f}"
