"""Say whether one contestant's scores differ from another's on the same items: paired interval, p-value, verdict.

`paired_comparison(base, tuned, ...)` is the entry; scores are two equally long arrays in the same item order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from finetune.evaluation.statistics.inference import (
    FEW_UNITS,
    RESAMPLES,
    Bounds,
    Floats,
    Groups,
    Inference,
    Statistic,
    bootstrap_means,
    degrees_of_freedom,
    enough_for_bootstrap,
    group_numbers,
    infer_mean,
    infer_statistics,
    unit_sizes,
    unit_sums,
)
from finetune.evaluation.statistics.proportions import (
    mcnemar_mid_p,
    minimum_detectable_effect,
    tango_interval,
    wilson_interval,
)

__all__ = [
    "Comparison",
    "Estimate",
    "Statistic",
    "Verdict",
    "mean_interval",
    "minimum_detectable_effect",
    "paired_comparison",
    "paired_statistic",
]

Verdict = Literal["better", "worse", "no detectable difference", "too few items to tell"]
MIN_UNITS = 10
"""Fewer items (or groups, where items come in groups) than this give no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its interval; `n` counts items."""

    mean: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Tuned against base on the same items. `difference` is tuned - base, whichever direction is better.

    `wins` counts the items on which tuned is the better one. `groups` is None where items are independent.
    `minimum_detectable` is the size of difference that would have been seen with 80 % power, in the score's unit.
    `notes` are sentences a reader of the verdict has to know.
    """

    n: int
    groups: int | None
    base: float
    base_interval: tuple[float, float]
    tuned: float
    tuned_interval: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    p_value: float
    test: str
    wins: int
    losses: int
    ties: int
    minimum_detectable: float
    confidence: float
    verdict: Verdict
    notes: tuple[str, ...] = ()


def paired_comparison(
    base: ArrayLike,
    tuned: ArrayLike,
    *,
    binary: bool,
    higher_is_better: bool,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: Bounds | None = (0.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two contestants that answered the same items.

    Right-or-wrong scores of independent items: McNemar's mid-p test with Tango's interval. Other scores: expanded
    percentile bootstrap of the mean difference, or Student's t below 30 units (items, or groups of them; groups of
    unlike size count as fewer). The interval of the difference leaves out 0 exactly where the p-value is at most
    1 - confidence; the verdict is read off it.

    Args:
        base: Scores of the contestant compared against.
        tuned: Scores of the other one, in the same order.
        binary: Whether the scorer only gives 0 and 1.
        higher_is_better: Whether the larger score wins.
        confidence: Level of all intervals and of the verdict.
        clusters: Group of each item (document, customer); None where items are independent.
        bounds: Lowest and highest possible score; None where there is no such limit.
        seed: Seed of the `resamples` bootstrap samples.
        resamples: Their number.

    Raises:
        ValueError: The scores are none, of unequal number, not finite, out of bounds, or not 0/1 though `binary`.
    """
    first, second = _checked_pair(base, tuned, binary, bounds)
    groups = group_numbers(clusters, len(first))
    if groups is None and _right_or_wrong(first, second, bounds):
        found = _compare_binary(first, second, confidence)
    else:
        found = _compare_means(first, second, groups, bounds, confidence, seed, resamples)
    return _comparison(found, first, second, groups, confidence, higher_is_better)


def paired_statistic(
    base: Statistic,
    tuned: Statistic,
    base_scores: ArrayLike,
    tuned_scores: ArrayLike,
    *,
    higher_is_better: bool,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: Bounds | None = (0.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two contestants by a metric of the whole set, which is no mean over items (macro-F1).

    Items are drawn for both contestants at once, so that the interval is that of the paired difference (Efron &
    Tibshirani 1993, chapter 8): the expanded percentile bootstrap, or below 30 units Student's t with the jackknife's
    standard error. Interval, p-value and verdict agree as in `paired_comparison`.

    Args:
        base: The metric of the contestant compared against, from weights of the items.
        tuned: That of the other one.
        base_scores: How right the one was on each item; they only tell wins from losses and ties.
        tuned_scores: How right the other one was, in the same order.
        higher_is_better: Whether the larger metric wins.
        confidence: Level of all intervals and of the verdict.
        clusters: Group of each item; None where items are independent.
        bounds: Lowest and highest possible metric; None where there is no such limit.
        seed: Seed of the `resamples` bootstrap samples.
        resamples: Their number.

    Raises:
        ValueError: The scores are none, of unequal number or not finite.
    """
    first, second = _checked_pair(base_scores, tuned_scores, False, None)
    n, groups = len(first), group_numbers(clusters, len(first))
    limits = (bounds, bounds, _span(bounds))
    values, inferred = infer_statistics(base, tuned, n, groups, limits, confidence, seed, resamples)
    found = _found(values, inferred, unit_sizes(groups, n), groups, "paired jackknife")
    return _comparison(found, first, second, groups, confidence, higher_is_better)


def mean_interval(
    scores: ArrayLike,
    *,
    binary: bool,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: Bounds | None = (0.0, 1.0),
    seed: int = 0,
) -> Estimate:
    """Mean of one contestant's scores with its interval: Wilson's for 0/1 scores of independent items, else as above.

    Raises:
        ValueError: As for `paired_comparison`.
    """
    values = checked(scores, binary, bounds)
    groups = group_numbers(clusters, len(values))
    if groups is None and _right_or_wrong(values, values, bounds):
        interval = wilson_interval(int(values.sum()), len(values), confidence)
    else:
        totals, sizes = unit_sums(values[:, None], groups)
        many = enough_for_bootstrap(degrees_of_freedom(sizes))
        draws = bootstrap_means(totals, sizes, seed, RESAMPLES) if many else None
        interval = infer_mean(totals[:, 0], sizes, bounds, confidence, None if draws is None else draws[:, 0]).interval
    return Estimate(mean=float(values.mean()), interval=interval, n=len(values))


# ------------------------------------------------------------------------------------------------ the two methods


@dataclass(frozen=True, slots=True)
class _Found:
    """Base, tuned, and tuned - base, with what is known of them."""

    test: str
    values: tuple[float, float, float]
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    effect: Inference


def _compare_binary(base: Floats, tuned: Floats, confidence: float) -> _Found:
    n, wins, losses = len(base), int((tuned > base).sum()), int((tuned < base).sum())
    p_value = mcnemar_mid_p(wins, losses)
    low, high = tango_interval(wins, losses, n, confidence)
    # Tango's interval is the uncorrected McNemar test turned round, which at some small counts (4 wins, no loss)
    # rejects where the mid-p does not. The interval then reaches to 0, so that both say the same.
    if p_value > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return _Found(
        "McNemar mid-p test",
        (float(base.mean()), float(tuned.mean()), float((tuned - base).mean())),
        wilson_interval(int(base.sum()), n, confidence),
        wilson_interval(int(tuned.sum()), n, confidence),
        Inference((low, high), p_value, minimum_detectable_effect(n, (wins + losses) / n, confidence)),
    )


def _compare_means(
    base: Floats,
    tuned: Floats,
    groups: Groups | None,
    bounds: Bounds | None,
    confidence: float,
    seed: int,
    resamples: int,
) -> _Found:
    scores = np.stack([base, tuned, tuned - base], axis=1)
    totals, sizes = unit_sums(scores, groups)
    many = enough_for_bootstrap(degrees_of_freedom(sizes))
    draws = bootstrap_means(totals, sizes, seed, resamples) if many else None
    inferred = [
        infer_mean(totals[:, column], sizes, limits, confidence, None if draws is None else draws[:, column])
        for column, limits in enumerate((bounds, bounds, _span(bounds)))
    ]
    return _found(scores.mean(axis=0).tolist(), inferred, sizes, groups, "paired t test")


def _found(
    values: Sequence[float], inferred: Sequence[Inference], sizes: Floats, groups: Groups | None, of_few: str
) -> _Found:
    many = enough_for_bootstrap(degrees_of_freedom(sizes))
    test = ("paired bootstrap" if many else of_few) + ("" if groups is None else " by group")
    base, tuned, effect = inferred
    return _Found(test, (values[0], values[1], values[2]), base.interval, tuned.interval, effect)


def _span(bounds: Bounds | None) -> Bounds | None:
    """Lowest and highest possible difference."""
    return None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])


def _right_or_wrong(base: Floats, tuned: Floats, bounds: Bounds | None) -> bool:
    """Whether only 0 and 1 occur: then the test for proportions holds, whatever scores the scorer could have given."""
    return bounds == (0.0, 1.0) and bool(np.isin(np.concatenate([base, tuned]), (0.0, 1.0)).all())


# ------------------------------------------------------------------------------------------ inputs and the verdict


def checked(scores: ArrayLike, binary: bool, bounds: Bounds | None) -> Floats:
    """Return scores as an array, if they are what a scorer could have given.

    Raises:
        ValueError: They are none, not finite, out of bounds, or not 0/1 though `binary`.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"needs a list of at least one score, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"score {int(np.argmin(np.isfinite(values)))} is not a finite number")
    if binary and not np.isin(values, (0.0, 1.0)).all():
        raise ValueError("a binary score is 0 or 1")
    if bounds is not None and not bool(((values >= bounds[0]) & (values <= bounds[1])).all()):
        raise ValueError(f"scores from {values.min()} to {values.max()} leave the bounds {bounds}")
    return values


def _checked_pair(base: ArrayLike, tuned: ArrayLike, binary: bool, bounds: Bounds | None) -> tuple[Floats, Floats]:
    first, second = checked(base, binary, bounds), checked(tuned, binary, bounds)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} base scores but {len(second)} tuned scores")
    return first, second


def _comparison(
    found: _Found, base: Floats, tuned: Floats, groups: Groups | None, confidence: float, higher_is_better: bool
) -> Comparison:
    sizes = unit_sizes(groups, len(base))
    units = len(sizes)
    gains = (tuned - base) if higher_is_better else (base - tuned)
    return Comparison(
        n=len(base),
        groups=None if groups is None else units,
        base=found.values[0],
        base_interval=found.base_interval,
        tuned=found.values[1],
        tuned_interval=found.tuned_interval,
        difference=found.values[2],
        interval=found.effect.interval,
        p_value=found.effect.p_value,
        test=found.test,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        ties=int((gains == 0).sum()),
        minimum_detectable=found.effect.minimum_detectable,
        confidence=confidence,
        verdict=verdict_of(found.effect.interval, units, higher_is_better),
        notes=notes_of(sizes, grouped=groups is not None),
    )


def verdict_of(interval: tuple[float, float], units: int, higher_is_better: bool) -> Verdict:
    """Read a verdict off the interval of tuned - base over so many independent units."""
    if units < MIN_UNITS:
        return "too few items to tell"
    low, high = interval
    if low <= 0 <= high:
        return "no detectable difference"
    return "better" if (low > 0) == higher_is_better else "worse"


def notes_of(sizes: Floats, *, grouped: bool) -> tuple[str, ...]:
    """Say what a reader of a verdict over independent units of these sizes has to know."""
    units, degrees = len(sizes), degrees_of_freedom(sizes)
    kind = "groups" if grouped else "items"
    if units < MIN_UNITS:
        return (f"at least {MIN_UNITS} {kind} are needed for a verdict, there are {units}",)
    if not grouped or enough_for_bootstrap(degrees):
        return ()
    few = f"with only {units} groups" if units < FEW_UNITS else f"with {units} groups of unlike size"
    return (f"{few} the interval rests on Student's t with {degrees:.3g} degrees of freedom",)
