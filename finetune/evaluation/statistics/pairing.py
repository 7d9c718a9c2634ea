"""Two contestants' scores on the same items, compared as the scorer asks for it: `compare_scores`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.statistics.paired import Comparison, paired_comparison, paired_statistic


@dataclass(frozen=True, slots=True)
class Scored:
    """One contestant's scores and what stands beside each of them, in the order of the items."""

    scores: ArrayLike
    details: Sequence[Mapping[str, Any]]


def compare_scores(
    scorer: Scorer,
    base: Scored,
    tuned: Scored,
    *,
    confidence: float,
    clusters: Sequence[Hashable] | None,
    seed: int,
) -> Comparison:
    """Compare two contestants by the mean of their scores, or by the metric of the whole set where the scorer has one.

    Args:
        scorer: that judged both.
        base: the contestant compared against.
        tuned: the other one.
        confidence: level of the intervals and of the verdict.
        clusters: group of each item; None where items are independent.
        seed: seed of the bootstrap.

    Raises:
        ValueError: the scores are none, of unequal number, or do not fit the scorer.
    """
    if scorer.whole is None:
        return paired_comparison(
            base.scores,
            tuned.scores,
            binary=scorer.binary,
            higher_is_better=scorer.higher_is_better,
            confidence=confidence,
            clusters=clusters,
            bounds=scorer.bounds,
            seed=seed,
        )
    return paired_statistic(
        scorer.whole.statistic(base.details),
        scorer.whole.statistic(tuned.details),
        base.scores,
        tuned.scores,
        higher_is_better=scorer.higher_is_better,
        confidence=confidence,
        clusters=clusters,
        bounds=scorer.bounds,
        seed=seed,
    )
