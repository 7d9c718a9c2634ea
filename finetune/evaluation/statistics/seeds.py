"""One recipe trained with several seeds: `seed_comparison` says what holds for the recipe, not for one lucky model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from finetune.evaluation.statistics.inference import (
    Bounds,
    Floats,
    Groups,
    Inference,
    degrees_of_freedom,
    group_numbers,
    infer_constant,
    infer_mean,
    reach_of,
    student_quantile,
    unit_sums,
)
from finetune.evaluation.statistics.paired import Comparison, checked, notes_of, verdict_of

MIN_SEEDS = 3
"""Two seeds come out alike by chance too often for anything to be said of a third."""
LEAST_P = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedComparison:
    """The recipe against base over items and seeds alike; `differences` are those of each seed's model.

    `deviation` is the standard deviation of the models' true differences between seeds, 0 where the items' noise
    explains what was seen.
    """

    comparison: Comparison
    differences: tuple[float, ...]
    deviation: float


def seed_comparison(
    base: ArrayLike,
    tuned: ArrayLike,
    *,
    binary: bool,
    higher_is_better: bool,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: Bounds | None = (0.0, 1.0),
) -> SeedComparison:
    """Compare a recipe with its base, where one model a seed answered the same items.

    Items and seeds are two random factors: the interval is about other items and other seeds of the same recipe. The
    variance of the mean is that of items plus that of seeds less that of the rest, which is in both (analysis of
    variance with two crossed random factors, Brennan 2001, Generalizability Theory, chapter 6; for groups of items the
    two-way clustering of Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238-249). Each factor has its own
    Student's t, and the margins add up as squares (Howe 1974, J. Am. Stat. Assoc. 69:789-794). A test over the items
    of one model alone, or over all answers as though they were independent, takes a lucky seed for a good recipe.

    Args:
        base: Scores of the items.
        tuned: One row a seed with its scores of the same items.
        binary: Whether the scorer only gives 0 and 1.
        higher_is_better: Whether the larger score wins.
        confidence: Level of all intervals and of the verdict.
        clusters: Group of each item; None where items are independent.
        bounds: Lowest and highest possible score; None where there is no such limit.

    Raises:
        ValueError: Fewer than three seeds, of which nothing can be said, or scores that do not fit `bounds`.
    """
    first, rows = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < MIN_SEEDS or rows.shape[1:] != first.shape:
        raise ValueError(f"needs {MIN_SEEDS} seeds with scores of the same items, not {rows.shape} to {first.shape}")
    checked(rows.ravel(), binary, bounds)
    checked(first, binary, bounds)
    groups = group_numbers(clusters, len(first))
    sums, sizes = unit_sums(first[:, None], groups)
    of_base = infer_mean(sums[:, 0], sizes, bounds, confidence, None)
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    of_tuned, _ = _two_factors(rows, groups, bounds, confidence)
    effect, deviation = _two_factors(rows - first, groups, span, confidence)
    gains = (rows.mean(axis=0) - first) * (1 if higher_is_better else -1)
    differences = (rows - first).mean(axis=1)
    return SeedComparison(
        comparison=Comparison(
            n=len(first),
            groups=None if groups is None else len(sizes),
            base=float(first.mean()),
            base_interval=of_base.interval,
            tuned=float(rows.mean()),
            tuned_interval=of_tuned.interval,
            difference=float(differences.mean()),
            interval=effect.interval,
            p_value=effect.p_value,
            test=f"t test over items and {len(rows)} seeds",
            wins=int((gains > 0).sum()),
            losses=int((gains < 0).sum()),
            ties=int((gains == 0).sum()),
            minimum_detectable=effect.minimum_detectable,
            confidence=confidence,
            verdict=verdict_of(effect.interval, len(sizes), higher_is_better),
            notes=notes_of(sizes, grouped=groups is not None),
        ),
        differences=tuple(differences.tolist()),
        deviation=deviation,
    )


def _two_factors(
    rows: Floats, groups: Groups | None, bounds: Bounds | None, confidence: float
) -> tuple[Inference, float]:
    """What is known of the mean over items (columns) and seeds (rows), and the seeds' own standard deviation."""
    totals, sizes = unit_sums(rows.T, groups)
    seeds, units, n = len(rows), len(sizes), float(sizes.sum())
    of_seed, mean, share = rows.mean(axis=1), float(rows.mean()), sizes / n
    of_unit = totals.mean(axis=1)
    rest = totals - of_unit[:, None] - np.outer(sizes, of_seed - mean)
    by_unit = float(((of_unit - mean * sizes) ** 2 / (1 - share)).sum()) / n**2
    by_seed = float(of_seed.var(ddof=1)) / seeds
    by_both = float((rest**2 / (1 - share)[:, None]).sum()) / n**2 / (seeds * (seeds - 1))
    seed_part = max(0.0, by_seed - by_both)
    deviation = math.sqrt(seeds * seed_part)
    if by_unit + seed_part <= 1e-24:
        return infer_constant(mean, units, bounds, confidence), deviation
    degrees = degrees_of_freedom(sizes)

    def combined(of_units: float, of_seeds: float) -> float:
        return math.sqrt(of_units**2 * by_unit + of_seeds**2 * seed_part)

    def margin(p_value: float) -> float:
        return combined(student_quantile(1 - p_value / 2, degrees), student_quantile(1 - p_value / 2, seeds - 1))

    # The p-value is the level at which the interval just reaches 0
    p_value = LEAST_P if margin(LEAST_P) <= abs(mean) else optimize.brentq(lambda p: margin(p) - abs(mean), LEAST_P, 1)
    reach = combined(reach_of(degrees, confidence), reach_of(seeds - 1, confidence))
    low, high = mean - margin(1 - confidence), mean + margin(1 - confidence)
    if bounds is None:
        return Inference((low, high), p_value, reach), deviation
    return Inference((max(low, bounds[0]), min(high, bounds[1])), p_value, min(reach, bounds[1])), deviation
