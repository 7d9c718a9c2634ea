"""Say whether one contestant's scores differ from another's on the same items: paired interval, p-value, verdict.

`paired_comparison(base, tuned, ...)` is the entry; scores are two equally long arrays in the same item order.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finetune.evaluation.proportions import (
    POWER,
    constant_interval,
    mcnemar_mid_p,
    minimum_detectable_effect,
    tango_interval,
    wilson_interval,
)

__all__ = ["Comparison", "Estimate", "Verdict", "mean_interval", "minimum_detectable_effect", "paired_comparison"]

Verdict = Literal["better", "worse", "no detectable difference", "too few items to tell"]
Bounds = tuple[float, float]
Floats = NDArray[np.float64]

MIN_UNITS = 10
"""Fewer items (or groups, where items come in groups) than this give no verdict."""
FEW_UNITS = 30
"""Fewer than this and Student's t replaces the bootstrap, whose spread is too small then."""
RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000


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
    percentile bootstrap of the mean difference, or Student's t below 30 units (items, or groups of them). The interval
    of the difference leaves out 0 exactly where the p-value is at most 1 - confidence; the verdict is read off it.

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
    first, second = _checked(base, binary, bounds), _checked(tuned, binary, bounds)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} base scores but {len(second)} tuned scores")
    groups = _group_numbers(clusters, len(first))
    if groups is None and _right_or_wrong(first, second, bounds):
        found = _compare_binary(first, second, confidence)
    else:
        found = _compare_means(first, second, groups, bounds, confidence, seed, resamples)
    units = len(first if groups is None else np.unique(groups))
    gains = (second - first) if higher_is_better else (first - second)
    return Comparison(
        n=len(first),
        groups=None if groups is None else units,
        base=float(first.mean()),
        base_interval=found.base_interval,
        tuned=float(second.mean()),
        tuned_interval=found.tuned_interval,
        difference=float((second - first).mean()),
        interval=found.effect.interval,
        p_value=found.effect.p_value,
        test=found.test,
        wins=int((gains > 0).sum()),
        losses=int((gains < 0).sum()),
        ties=int((gains == 0).sum()),
        minimum_detectable=found.effect.minimum_detectable,
        confidence=confidence,
        verdict=_verdict(found.effect.interval, units, higher_is_better),
        notes=_notes(units, grouped=groups is not None),
    )


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
    values = _checked(scores, binary, bounds)
    groups = _group_numbers(clusters, len(values))
    if groups is None and _right_or_wrong(values, values, bounds):
        interval = wilson_interval(int(values.sum()), len(values), confidence)
    else:
        totals, sizes = _unit_sums(values[:, None], groups)
        draws = _bootstrap(totals, sizes, seed, RESAMPLES) if len(sizes) >= FEW_UNITS else None
        interval = _infer(totals[:, 0], sizes, bounds, confidence, None if draws is None else draws[:, 0]).interval
    return Estimate(mean=float(values.mean()), interval=interval, n=len(values))


# ------------------------------------------------------------------------------------------------ the two methods


@dataclass(frozen=True, slots=True)
class _Inference:
    interval: tuple[float, float]
    p_value: float
    minimum_detectable: float


@dataclass(frozen=True, slots=True)
class _Found:
    test: str
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    effect: _Inference


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
        wilson_interval(int(base.sum()), n, confidence),
        wilson_interval(int(tuned.sum()), n, confidence),
        _Inference((low, high), p_value, minimum_detectable_effect(n, (wins + losses) / n, confidence)),
    )


def _compare_means(
    base: Floats,
    tuned: Floats,
    groups: NDArray[np.intp] | None,
    bounds: Bounds | None,
    confidence: float,
    seed: int,
    resamples: int,
) -> _Found:
    totals, sizes = _unit_sums(np.stack([base, tuned, tuned - base], axis=1), groups)
    many = len(sizes) >= FEW_UNITS
    draws = _bootstrap(totals, sizes, seed, resamples) if many else None
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    of_base, of_tuned, of_difference = (
        _infer(totals[:, column], sizes, limits, confidence, None if draws is None else draws[:, column])
        for column, limits in enumerate((bounds, bounds, span))
    )
    test = ("paired bootstrap" if many else "paired t test") + ("" if groups is None else " by group")
    return _Found(test, of_base.interval, of_tuned.interval, of_difference)


def _right_or_wrong(base: Floats, tuned: Floats, bounds: Bounds | None) -> bool:
    """Whether only 0 and 1 occur: then the test for proportions holds, whatever scores the scorer could have given."""
    return bounds == (0.0, 1.0) and bool(np.isin(np.concatenate([base, tuned]), (0.0, 1.0)).all())


def _unit_sums(values: Floats, groups: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Sum of each column within each independent unit, and the number of items in it."""
    if groups is None:
        return values, np.ones(len(values))
    totals: Floats = np.zeros((int(groups.max()) + 1, values.shape[1]))
    np.add.at(totals, groups, values)
    return totals, np.bincount(groups).astype(np.float64)


def _bootstrap(totals: Floats, sizes: Floats, seed: int, resamples: int) -> Floats:
    """Means of `resamples` samples of whole units, one column a score (Efron 1979; Field & Welsh 2007 for groups)."""
    units = len(sizes)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // units)
    means = []
    for start in range(0, resamples, chunk):
        counts = rng.multinomial(units, np.full(units, 1 / units), size=min(chunk, resamples - start)).astype(float)
        means.append((counts @ totals) / (counts @ sizes)[:, None])
    return np.concatenate(means)


def _infer(totals: Floats, sizes: Floats, bounds: Bounds | None, confidence: float, draws: Floats | None) -> _Inference:
    """Interval of a mean over units, p-value of its being 0, and what could have been detected.

    The standard error is the cluster-robust one of a mean (Miller 2024, arXiv:2411.00640, appendix A) with each
    unit's residual enlarged by 1 / sqrt(1 - its share of the items) (Bell & McCaffrey 2002, Surv. Methodol.
    28:169-181), which is the usual n - 1 where units are equally large. `draws` replaces Student's t by the bootstrap.
    """
    units, mean = len(sizes), float(totals.sum() / sizes.sum())
    residuals = totals - mean * sizes
    if np.abs(residuals).max() <= 1e-12 * max(1.0, float(np.abs(totals).max())):
        return _infer_constant(mean, units, bounds, confidence)
    error = math.sqrt(float((residuals**2 / (1 - sizes / sizes.sum())).sum())) / float(sizes.sum())
    student = stats.t(units - 1)
    if draws is None:
        margin = float(student.ppf(0.5 + confidence / 2)) * error
        low, high, p_value = mean - margin, mean + margin, float(2 * student.sf(abs(mean) / error))
    else:
        low, high, p_value = _expanded_percentile(draws, units, confidence)
    reach = float(student.ppf(0.5 + confidence / 2) + student.ppf(POWER)) * error
    if bounds is None:
        return _Inference((low, high), p_value, reach)
    lowest, highest = bounds
    return _Inference((max(low, lowest), min(high, highest)), p_value, min(reach, highest))


def _expanded_percentile(draws: Floats, units: int, confidence: float) -> tuple[float, float, float]:
    """Percentile interval with the tails moved out for the sample's size, and the p-value that agrees with it.

    The tail is Phi(-sqrt(n / (n - 1)) t_n-1) (Hesterberg 2015, Am. Stat. 69:371-386, section 4.3). The limits are
    order statistics of rank tail (B + 1), so the interval leaves out 0 exactly where the p-value, the same
    transformation of the share of draws on the far side of 0, is at most 1 - confidence.
    """
    stretch, student, normal = math.sqrt(units / (units - 1)), stats.t(units - 1), stats.norm
    count = len(draws)
    tail = float(normal.sf(stretch * student.ppf(0.5 + confidence / 2)))
    rank = max(1, math.floor(tail * (count + 1)))
    ordered = np.sort(draws)
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum())) + 1
    distance = float(normal.isf(min(0.5, beyond / (count + 1)))) / stretch
    return float(ordered[rank - 1]), float(ordered[count - rank]), float(2 * student.sf(distance))


def _infer_constant(value: float, units: int, bounds: Bounds | None, confidence: float) -> _Inference:
    if bounds is None:
        return _Inference((value, value), 0.0 if value else 1.0, 0.0)
    width = bounds[1]
    reach = float(stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(POWER))
    return _Inference(
        constant_interval(value, units, bounds, confidence),
        float(2 * stats.norm.sf(math.sqrt(units * abs(value) / width))),
        min(width, width * reach**2 / units),
    )


# ------------------------------------------------------------------------------------------ inputs and the verdict


def _checked(scores: ArrayLike, binary: bool, bounds: Bounds | None) -> Floats:
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


def _group_numbers(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.intp] | None:
    """Number of each item's group from 0, or None where every item stands alone."""
    if clusters is None:
        return None
    if len(clusters) != n:
        raise ValueError(f"{n} scores but {len(clusters)} group names")
    numbers: dict[Hashable, int] = {}
    found = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return None if len(numbers) == n else found


def _verdict(interval: tuple[float, float], units: int, higher_is_better: bool) -> Verdict:
    if units < MIN_UNITS:
        return "too few items to tell"
    low, high = interval
    if low <= 0 <= high:
        return "no detectable difference"
    return "better" if (low > 0) == higher_is_better else "worse"


def _notes(units: int, *, grouped: bool) -> tuple[str, ...]:
    kind = "groups" if grouped else "items"
    if units < MIN_UNITS:
        return (f"at least {MIN_UNITS} {kind} are needed for a verdict, there are {units}",)
    if grouped and units < FEW_UNITS:
        return (f"with only {units} groups the interval rests on Student's t with {units - 1} degrees of freedom",)
    return ()
