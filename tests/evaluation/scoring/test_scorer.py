"""What every scorer shares: several right answers, and answers that cannot be judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.json_scorers import json_fields_scorer
from finetune.evaluation.scoring.label_scorers import label_scorer
from finetune.evaluation.scoring.scorer import Score, Scorer, Unjudged, right_or_wrong
from finetune.evaluation.scoring.text_scorers import (
    chrf_scorer,
    contains_scorer,
    exact_scorer,
    number_scorer,
    rouge_l_scorer,
    token_f1_scorer,
)


@pytest.mark.parametrize(
    "scorer", [exact_scorer(), contains_scorer(), token_f1_scorer(), rouge_l_scorer(), chrf_scorer()]
)
def test_the_best_of_several_right_answers_counts(scorer: Scorer) -> None:
    others = ["The Seine", "Lutetia", "City of Light"]
    alone = scorer.score("Lutetia", "Paris", {})
    found = scorer.score("Lutetia", "Paris", {}, alternatives=others, item="row-1")
    assert alone.value < 1
    assert (found.value, found.detail) == (1.0, {"right_answer": "Lutetia"})
    assert scorer.score("Paris", "Paris", {}, alternatives=others) == Score(1.0)
    assert scorer.score("xyz", "Paris", {}, alternatives=["vwx"]).detail.keys() <= {"right_answer"}


def test_numbers_and_objects_have_several_right_answers_too() -> None:
    assert number_scorer().score("It is 3.", "2", {}, alternatives=["3"]).value == 1
    score = json_fields_scorer().score('{"a": 2}', '{"a": 1}', {}, alternatives=['{"a": 2}'])
    assert (score.value, score.detail["right_answer"]) == (1, '{"a": 2}')


def test_a_class_has_one_right_answer() -> None:
    assert label_scorer(["a", "b"]).score("b", "a", {}, alternatives=["b"]).value == 0


def test_scorers_of_metadata_find_further_answers_there() -> None:
    def judge(answer: str, reference: str, metadata: Mapping[str, Any]) -> Score:
        return Score(float(answer in metadata.get("alternatives", ())), dict(metadata))

    scorer = Scorer("x", True, True, "x", lambda answer, reference: Score(0.0), "x", judge_item=judge)
    assert scorer.score("b", "a", {"k": 1}, alternatives=("b",)) == Score(1.0, {"k": 1, "alternatives": ["b"]})
    assert scorer.score("b", "a", {"k": 1}) == Score(0.0, {"k": 1})


def test_an_answer_that_cannot_be_judged_names_its_item() -> None:
    def judge(answer: str, reference: str) -> Score:
        raise Unjudged("the moon is not up")

    with pytest.raises(FinetuneError) as caught:
        right_or_wrong("tide", judge, "").score("a", "b", {}, item="row-7")
    assert str(caught.value) == (
        "evaluate.scorer: tide cannot judge the answer to item 'row-7': the moon is not up\n"
        "    -> mend the scorer, or take another one; 'auto' chooses one that fits"
    )
