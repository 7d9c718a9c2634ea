"""What `evaluation/results.json` holds of each task: the verdict, corrected for their number, and what explains it.

`entries(judged, ...)` makes them all at once, as Holm's correction needs all verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data import Example, TestItem
from finetune.evaluation.compare import BASE, Answer, TaskResult, as_json, clusters_of, regressions
from finetune.evaluation.leaks import find_leaks, judge_leaks
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.statistics.calibration import calibration
from finetune.evaluation.statistics.multiple import holm, planned_mde
from finetune.evaluation.statistics.pairing import Scored
from finetune.evaluation.statistics.slices import slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A task that has been answered and compared. `items` are None where lm-eval asked, in texts of its own."""

    result: TaskResult
    scorer: Scorer
    items: Sequence[TestItem] | None


def entries(
    judged: Sequence[Judged], training: Sequence[Example], *, columns: Sequence[str], confidence: float, seed: int
) -> list[dict[str, Any]]:
    """Return the entry of each task.

    Args:
        judged: all tasks.
        training: the rows that were learned, in which test items are looked for.
        columns: whose values are compared one by one; a task that has none of them has no slices.
        confidence: level of the intervals and verdicts.
        seed: seed of the bootstrap.

    Raises:
        FinetuneError: columns that no item of any task has.
    """
    together = holm([one.result.comparison for one in judged])
    known = {key for one in judged for item in one.items or () for key in item.example.metadata}
    return [
        {
            **as_json(one.result),
            **corrected.as_json(),
            "minimum_detectable_planned": _planned(one, confidence),
            "slices": _slices(one, columns, known, confidence, seed),
            "calibration": _calibration(one.result),
            "leak": _leak(one, training, confidence, seed),
            "regressions": [pair.item.id for pair in regressions(one.result)],
        }
        for one, corrected in zip(judged, together, strict=True)
    ]


def _planned(one: Judged, confidence: float) -> float | None:
    return planned_mde(
        one.result.n,
        binary=one.scorer.binary,
        bounds=one.scorer.bounds,
        confidence=confidence,
        clusters=clusters_of((item.id, item.group) for item in one.result.items),
    )


def _leak(one: Judged, training: Sequence[Example], confidence: float, seed: int) -> dict[str, Any] | None:
    if one.items is None:
        return None
    return judge_leaks(one.result, find_leaks(one.items, training), one.scorer, confidence=confidence, seed=seed)


def _slices(one: Judged, columns: Sequence[str], known: set[str], confidence: float, seed: int) -> list[dict[str, Any]]:
    items = one.items or ()
    own = {key for item in items for key in item.example.metadata}
    # A column that another task has is not asked of this one; one that none has is named by `slices`
    asked = [column for column in columns if column in own or column not in known]
    if not asked or not items:
        return []
    found = slices(
        asked,
        [item.example.metadata for item in items],
        one.scorer,
        _scored(one.result.contestants[BASE]),
        _scored(one.result.contestants[one.result.subject]),
        confidence=confidence,
        clusters=clusters_of((item.id, item.group) for item in one.result.items),
        seed=seed,
    )
    return [part.as_json() for part in found]


def _scored(answers: Sequence[Answer]) -> Scored:
    return Scored([one.score for one in answers], [one.detail for one in answers])


def _calibration(result: TaskResult) -> dict[str, dict[str, Any]]:
    """How sure each contestant was, where it chose among given answers."""
    return {
        name: calibration(
            [one.detail["probabilities"] for one in answers], [one.detail["gold"] for one in answers]
        ).as_json()
        for name, answers in result.contestants.items()
        if all("probabilities" in one.detail and "gold" in one.detail for one in answers)
    }
