"""What a sample says of a mean or another statistic: interval, p-value, detectable size; `statistics` asks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from finetune.evaluation.statistics.proportions import POWER, constant_interval

Bounds = tuple[float, float]
Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
Statistic = Callable[[Floats], Floats]
"""A metric of a whole set: takes weights of the items, one row a draw, and gives the metric of each draw."""

FEW_UNITS = 30
"""Fewer independent units than this and Student's t replaces the bootstrap, whose spread is too small then.

Units of unlike size count as one more than their degrees of freedom.
"""
RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Inference:
    """What is known of one number; `minimum_detectable` is the size that would have been seen with 80 % power."""

    interval: tuple[float, float]
    p_value: float
    minimum_detectable: float


def student_quantile(share: float, degrees: float) -> float:
    """Value below which Student's t lies with the given probability."""
    return float(special.stdtrit(degrees, share))


def two_sided(distance: float, degrees: float) -> float:
    """Two-sided p-value of a t statistic."""
    return float(2 * special.stdtr(degrees, -abs(distance)))


def reach_of(degrees: float, confidence: float) -> float:
    """Standard errors that a difference needs to be seen with 80 % power."""
    return student_quantile(0.5 + confidence / 2, degrees) + student_quantile(POWER, degrees)


# -------------------------------------------------------------------------------------------------------- units


def group_numbers(clusters: Sequence[Hashable] | None, n: int) -> Groups | None:
    """Number of each item's group from 0, or None where every item stands alone.

    Raises:
        ValueError: There are not as many group names as items.
    """
    if clusters is None:
        return None
    if len(clusters) != n:
        raise ValueError(f"{n} scores but {len(clusters)} group names")
    numbers: dict[Hashable, int] = {}
    found = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return None if len(numbers) == n else found


def unit_sizes(groups: Groups | None, n: int) -> Floats:
    """Number of items in each independent unit."""
    return np.ones(n) if groups is None else np.bincount(groups).astype(np.float64)


def unit_sums(values: Floats, groups: Groups | None) -> tuple[Floats, Floats]:
    """Sum of each column within each independent unit, and the number of items in it."""
    sizes = unit_sizes(groups, len(values))
    if groups is None:
        return values, sizes
    totals: Floats = np.zeros((len(sizes), values.shape[1]))
    np.add.at(totals, groups, values)
    return totals, sizes


def degrees_of_freedom(sizes: Floats) -> float:
    """Degrees of freedom of the standard error of a mean over units of these sizes: units - 1 where they are equal.

    Few large units decide what many small ones cannot outweigh, so that unlike sizes have fewer (Bell & McCaffrey
    2002, with independent items as the working model): the variance estimate is a quadratic form of the units' sums
    with the matrix diag(c) - 1 b' - b 1' + k, and its degrees of freedom are trace^2 / trace of the square.
    """
    if len(sizes) < 2:
        return 0.0
    n = float(sizes.sum())
    c = 1 / (1 - sizes / n)
    b = c * sizes / n
    k = float(b @ sizes) / n
    trace = float(sizes @ (c - 2 * b)) + k * n
    across = (k * n) ** 2 - 4 * k * n * float(sizes @ b) + 2 * n * float(sizes @ b**2) + 2 * float(sizes @ b) ** 2
    return float(trace**2 / (across + float(sizes**2 @ (c**2 + 2 * c * (k - 2 * b)))))


def enough_for_bootstrap(degrees: float) -> bool:
    """Whether the bootstrap's spread is large enough, with a hair's breadth for rounding."""
    return degrees >= FEW_UNITS - 1 - 1e-6


# ---------------------------------------------------------------------------------------------------- bootstrap


def bootstrap_means(totals: Floats, sizes: Floats, seed: int, resamples: int) -> Floats:
    """Means of `resamples` samples of whole units, one column a score (Efron 1979; Field & Welsh 2007 for groups).

    Units that are alike in every column are drawn as one kind: the counts of kinds are multinomial as well.
    """
    rows = np.column_stack([totals, sizes])
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    if len(kinds) == len(rows):
        kinds = rows
    means = [
        (drawn @ kinds[:, :-1]) / (drawn @ kinds[:, -1])[:, None]
        for drawn in _draws(counts / counts.sum(), len(rows), seed, resamples)
    ]
    return np.concatenate(means)


def _draws(shares: Floats, units: int, seed: int, resamples: int, width: int = 0) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(units, width))
    for start in range(0, resamples, chunk):
        yield rng.multinomial(units, shares, size=min(chunk, resamples - start)).astype(np.float64)


def expanded_percentile(draws: Floats, degrees: float, confidence: float) -> tuple[float, float, float]:
    """Percentile interval with the tails moved out for the sample's size, and the p-value that agrees with it.

    The tail is Phi(-sqrt(n / (n - 1)) t_n-1) (Hesterberg 2015, Am. Stat. 69:371-386, section 4.3). The limits are
    order statistics of rank tail (B + 1), so the interval leaves out 0 exactly where the p-value, the same
    transformation of the share of draws on the far side of 0, is at most 1 - confidence.
    """
    stretch, count = math.sqrt((degrees + 1) / degrees), len(draws)
    tail = float(special.ndtr(-stretch * student_quantile(0.5 + confidence / 2, degrees)))
    rank = max(1, math.floor(tail * (count + 1)))
    ordered = np.sort(draws)
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum())) + 1
    distance = -float(special.ndtri(min(0.5, beyond / (count + 1)))) / stretch
    return float(ordered[rank - 1]), float(ordered[count - rank]), two_sided(distance, degrees)


# -------------------------------------------------------------------------------------------------------- means


def infer_mean(
    totals: Floats, sizes: Floats, bounds: Bounds | None, confidence: float, draws: Floats | None
) -> Inference:
    """Interval of a mean over units, p-value of its being 0, and what could have been detected.

    The standard error is the cluster-robust one of a mean (Miller 2024, arXiv:2411.00640, appendix A) with each
    unit's residual enlarged by 1 / sqrt(1 - its share of the items) (Bell & McCaffrey 2002, Surv. Methodol.
    28:169-181), which is the usual n - 1 where units are equally large. `draws` replaces Student's t by the bootstrap.
    """
    units, mean = len(sizes), float(totals.sum() / sizes.sum())
    residuals = totals - mean * sizes
    if np.abs(residuals).max() <= 1e-12 * max(1.0, float(np.abs(totals).max())):
        return infer_constant(mean, units, bounds, confidence)
    error = math.sqrt(float((residuals**2 / (1 - sizes / sizes.sum())).sum())) / float(sizes.sum())
    return infer(mean, error, degrees_of_freedom(sizes), bounds, confidence, draws)


def infer_constant(value: float, units: int, bounds: Bounds | None, confidence: float) -> Inference:
    """What is known of a number that every unit gave alike (see `constant_interval`)."""
    if bounds is None:
        return Inference((value, value), 0.0 if value else 1.0, 0.0)
    width = bounds[1]
    reach = float(special.ndtri(0.5 + confidence / 2) + special.ndtri(POWER))
    return Inference(
        constant_interval(value, units, bounds, confidence),
        float(2 * special.ndtr(-math.sqrt(units * abs(value) / width))),
        min(width, width * reach**2 / units),
    )


def infer(
    value: float, error: float, degrees: float, bounds: Bounds | None, confidence: float, draws: Floats | None = None
) -> Inference:
    """What is known of a number with this standard error, by Student's t or, where there are draws, by bootstrap."""
    if draws is None:
        margin = student_quantile(0.5 + confidence / 2, degrees) * error
        low, high, p_value = value - margin, value + margin, two_sided(value / error, degrees)
    else:
        low, high, p_value = expanded_percentile(draws, degrees, confidence)
    reach = reach_of(degrees, confidence) * error
    if bounds is None:
        return Inference((low, high), p_value, reach)
    lowest, highest = bounds
    return Inference((max(low, lowest), min(high, highest)), p_value, min(reach, highest))


# ------------------------------------------------------------------------------------------ metrics of a whole set


def infer_statistics(
    base: Statistic,
    tuned: Statistic,
    n: int,
    groups: Groups | None,
    bounds: Sequence[Bounds | None],
    confidence: float,
    seed: int,
    resamples: int,
) -> tuple[tuple[float, ...], list[Inference]]:
    """Two metrics that are no means over items and their difference (tuned - base), and what is known of each.

    From 30 units on (of equal size) by bootstrap; below by Student's t with the jackknife's standard error, each unit
    left out in turn (Efron & Stein 1981, Ann. Stat. 9:586-596).
    """
    sizes = unit_sizes(groups, n)
    units, degrees = len(sizes), degrees_of_freedom(sizes)
    values = _apply(base, tuned, np.ones((1, n)), None)[0]
    draws = None
    if enough_for_bootstrap(degrees):
        drawn = _draws(np.full(units, 1 / units), units, seed, resamples, width=n)
        draws = np.concatenate([_apply(base, tuned, weights, groups) for weights in drawn])
        errors = draws.std(axis=0, ddof=1)
    else:
        errors = np.sqrt((units - 1) * _apply(base, tuned, 1.0 - np.eye(units), groups).var(axis=0))
    inferred = [
        infer_constant(value, units, limits, confidence)
        if error <= 1e-12
        else infer(value, error, degrees, limits, confidence, None if draws is None else draws[:, column])
        for column, (value, error, limits) in enumerate(zip(values.tolist(), errors.tolist(), bounds, strict=True))
    ]
    return tuple(values.tolist()), inferred


def _apply(base: Statistic, tuned: Statistic, weights: Floats, groups: Groups | None) -> Floats:
    """Base, tuned and tuned - base, a row for each row of the units' weights."""
    of_items = weights if groups is None else weights[:, groups]
    first, second = base(of_items), tuned(of_items)
    return np.stack([first, second, second - first], axis=1)
