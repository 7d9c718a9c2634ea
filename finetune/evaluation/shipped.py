"""Is a shipped file as good at the task as the tuned model? `score_file` asks it what the tuned model was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.evaluation.compare import TUNED, clusters_of
from finetune.evaluation.statistics.pairing import Scored, compare_scores
from finetune.evaluation.tasks import Task, answer, draw
from finetune.evaluation.wording import decimals, with_interval
from finetune.runtimes import Runtime


def score_file(
    task: Task,
    shipped: Runtime,
    answers: Sequence[Mapping[str, Any]],
    *,
    confidence: float,
    seed: int,
    at_most: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Score a file on the items of a task and compare it with the tuned model, item by item.

    Args:
        task: the run's held-out task.
        shipped: the file.
        answers: the records of `evaluation/answers.jsonl`.
        confidence: level of interval and verdict.
        seed: seed of the draw and of the bootstrap.
        at_most: so many items, drawn from those that were answered.
        watch: told how many have been answered.

    Returns:
        `scorer`, `n`, `tuned`, `file`, `difference` (file - tuned), `interval`, `p_value`, `verdict` on the file with
        the tuned model in the place of base, and a `sentence`.
    """
    before = {record["id"]: record[TUNED] for record in answers if TUNED in record}
    chosen = draw([item for item in task.items if item.example.id in before], at_most, seed)
    scorer, tuned = task.scorer, [before[item.example.id] for item in chosen]
    given = answer(shipped, task, chosen, watch)
    found = compare_scores(
        scorer,
        Scored([float(one["score"]) for one in tuned], [one.get("detail", {}) for one in tuned]),
        Scored([one.score for one in given], [one.detail for one in given]),
        confidence=confidence,
        clusters=clusters_of((item.example.id, item.example.group) for item in chosen),
        seed=seed,
    )
    places = decimals(found.interval, 2)
    return {
        "scorer": scorer.name,
        "n": found.n,
        "tuned": found.base,
        "file": found.tuned,
        "difference": found.difference,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "verdict": found.verdict,
        "sentence": f"{scorer.name} {found.tuned:.{places}f} against {found.base:.{places}f} of the tuned model on "
        f"{found.n:,} items, difference {with_interval(found.difference, found.interval, places, signed=True)}",
    }
