"""Scores compared as their scorer asks for it: by their mean, or by the metric of the whole set."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation.compare import Answer, Item, as_json, compare
from finetune.evaluation.scoring.baseline import trivial_baseline
from finetune.evaluation.scoring.label_scorers import label_scorer, macro_f1_scorer
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.scoring.text_measures import perplexity_scorer
from finetune.evaluation.statistics.pairing import Scored, compare_scores


def scored(scorer: Scorer, answers: list[str], references: list[str]) -> Scored:
    found = [scorer.score(answer, right, {}) for answer, right in zip(answers, references, strict=True)]
    return Scored([score.value for score in found], [score.detail for score in found])


def test_macro_f1_is_compared_by_itself_and_not_by_its_accuracy() -> None:
    """Base always names the common class: accuracy 0.9, but an F1 of 0 for the rare one."""
    references = ["common"] * 90 + ["rare"] * 10
    scorer = macro_f1_scorer(label_scorer(["common", "rare"]), references)
    found = compare_scores(
        scorer,
        scored(scorer, ["common"] * 100, references),
        scored(scorer, references, references),
        confidence=0.95,
        clusters=None,
        seed=0,
    )
    assert found.base == pytest.approx((180 / 190) / 2)
    assert found.tuned == 1
    assert (found.wins, found.losses, found.ties, found.verdict) == (10, 0, 90, "better")
    assert found.interval[0] > 0.5


def test_perplexity_is_compared_over_all_tokens() -> None:
    scorer = perplexity_scorer()
    assert scorer.measure is not None
    tokens = [5, 10, 20, 40] * 10
    base = [scorer.measure(-2.0 * count, "x", count) for count in tokens]
    tuned = [scorer.measure(-(1.0 + number % 2) * count, "x", count) for number, count in enumerate(tokens)]
    found = compare_scores(
        scorer,
        Scored([score.value for score in base], [score.detail for score in base]),
        Scored([score.value for score in tuned], [score.detail for score in tuned]),
        confidence=0.95,
        clusters=None,
        seed=0,
    )
    share = sum(count for number, count in enumerate(tokens) if number % 2) / sum(tokens)
    assert found.base == pytest.approx(np.exp(2))
    assert found.tuned == pytest.approx(np.exp(1 + share))
    assert found.verdict == "better"


def test_a_task_of_macro_f1_is_told_with_its_baseline() -> None:
    references = ["a"] * 30 + ["b"] * 20
    scorer = macro_f1_scorer(label_scorer(["a", "b"]), references)
    items = [Item(id=str(number), reference=right, prompt_text="") for number, right in enumerate(references)]

    def answered(texts: list[str]) -> list[Answer]:
        found = [scorer.score(text, right, {}) for text, right in zip(texts, references, strict=True)]
        return [
            Answer(
                item_id=item.id,
                prompt_hash="",
                text=text,
                ended=True,
                tokens=1,
                score=score.value,
                detail=score.detail,
            )
            for item, text, score in zip(items, texts, found, strict=True)
        ]

    result = compare(
        "held-out",
        scorer,
        items,
        {"base": answered(["b"] * 50), "tuned": answered(references)},
        baseline=trivial_baseline(scorer, ["a"], references),
        confidence=0.95,
    )
    told = as_json(result)
    assert told["unit"] == "macro-F1"
    assert told["base"] == pytest.approx((40 / 70) / 2)
    assert told["baseline"]["score"] == pytest.approx((60 / 80) / 2)
    assert told["tuned"] == 1
