"""Is a shipped file as good at the task as the tuned model? `score_file` asks it what the tuned model was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.data import TestItem
from finetune.evaluation.compare import TUNED, clusters_of
from finetune.evaluation.held_out import Watch, answer, check_scorer, draw, longest_answer
from finetune.evaluation.statistics import paired_comparison
from finetune.evaluation.wording import decimals, with_interval
from finetune.recipe.schema import EvaluateSection
from finetune.runtimes import Runtime


def score_file(
    section: EvaluateSection,
    items: Sequence[TestItem],
    shipped: Runtime,
    answers: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[str] | None,
    raw_text: bool,
    stop: Sequence[int],
    seed: int,
    at_most: int | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Score a file on the test items and compare it with the tuned model, item by item.

    Args:
        section: the recipe's `evaluate`.
        items: the test rows.
        shipped: the file.
        answers: the records of `evaluation/answers.jsonl`.
        labels: the classes of classification data.
        raw_text: the rows are text without question and answer.
        stop: tokens that end an answer.
        seed: seed of the draw and of the bootstrap.
        at_most: so many items, drawn from those that were answered.
        watch: told of the progress.

    Returns:
        `scorer`, `n`, `tuned`, `file`, `difference` (file - tuned), `interval`, `p_value`, `verdict` on the file with
        the tuned model in the place of base, and a `sentence`.

    Raises:
        FinetuneError: no test rows, or a scorer that does not fit them.
    """
    scorer = check_scorer(section, items, labels=labels, raw_text=raw_text, seed=seed)
    before = {record["id"]: float(record[TUNED]["score"]) for record in answers if TUNED in record}
    answered = [item for item in draw(items, section.max_items, seed) if item.example.id in before]
    chosen = draw(answered, at_most, seed)
    if not scorer.needs_likelihood:
        # The answers may be as long as the tuned model's, however few items are left
        section = section.model_copy(update={"max_new_tokens": longest_answer(answered, section)})
    given = answer(shipped, chosen, scorer, section, stop, watch)
    found = paired_comparison(
        [before[item.example.id] for item in chosen],
        [one.score for one in given],
        binary=scorer.binary,
        higher_is_better=scorer.higher_is_better,
        confidence=section.confidence,
        clusters=clusters_of((item.example.id, item.example.group) for item in chosen),
        bounds=scorer.bounds,
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
