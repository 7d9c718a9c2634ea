"""What a contestant without any understanding scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetune.evaluation.scoring.baseline import trivial_baseline
from finetune.evaluation.scoring.json_scorers import json_fields_scorer
from finetune.evaluation.scoring.label_scorers import label_scorer
from finetune.evaluation.scoring.scorers import choose_scorer
from finetune.evaluation.scoring.text_measures import bits_per_byte_scorer, perplexity_scorer
from finetune.evaluation.scoring.text_scorers import contains_scorer, exact_scorer, number_scorer, token_f1_scorer
from finetune.recipe.schema import EvaluateSection

TEXT_SCORERS = [exact_scorer(), label_scorer(["yes", "no"]), number_scorer(), contains_scorer(), token_f1_scorer()]


def test_baseline_of_labels_is_the_majority() -> None:
    found = trivial_baseline(label_scorer(["a", "b"]), ["a", "b", "b"], ["b", "a", "a"])
    assert found.scores.tolist() == [1, 0, 0]
    assert (found.name, found.what) == ("commonest training answer", "always answers 'b'")


def test_baseline_of_json_takes_each_fields_commonest_value() -> None:
    train = ['{"a": 1, "b": "x"}', '{"a": 1, "b": "y"}', '{"a": 2, "b": "y"}']
    found = trivial_baseline(json_fields_scorer(), train, ['{"a": 1, "b": "y"}', '{"a": 1, "b": "z"}'])
    assert found.scores.tolist() == [1, 0.5]
    assert found.what == """always answers '{"a": 1, "b": "y"}'"""


def test_baseline_of_numbers_looks_at_the_number() -> None:
    train = ["first 1\n#### 7", "second 2\n#### 7.0", "third\n#### 3"]
    found = trivial_baseline(number_scorer(), train, ["#### 7", "#### 3"])
    assert found.scores.tolist() == [1, 0]


def test_baseline_of_raw_text_codes_bytes_by_frequency() -> None:
    found = trivial_baseline(bits_per_byte_scorer(), ["a" * 768], ["aa", "b"])
    assert found.scores == pytest.approx([-math.log2(769 / 1024), 10])
    assert found.what == "each byte coded by its frequency in the training text"


def test_baseline_scores_are_one_a_test_row() -> None:
    for scorer in TEXT_SCORERS:
        found = trivial_baseline(scorer, ["yes 1", "no 2"], ["yes 1"] * 5)
        assert found.scores.shape == (5,)
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(("train", "test"), [([], ["a"]), (["a"], [])])
def test_baseline_needs_references(train: list[str], test: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^a trivial baseline needs training and test references$"):
        trivial_baseline(exact_scorer(), train, test)


def test_the_baseline_knows_further_right_answers_and_its_details() -> None:
    found = trivial_baseline(exact_scorer(), ["b"], ["a", "a"], alternatives=[["b"], []], ids=["1", "2"])
    assert found is not None
    assert found.scores.tolist() == [1, 0]
    assert found.details == ({"right_answer": "b"}, {})


def test_tokens_have_no_baseline() -> None:
    assert trivial_baseline(perplexity_scorer(), ["a"], ["b"]) is None


def test_baseline_of_choices() -> None:
    def found(train: list[str], items: list[dict[str, object]]) -> tuple[list[float], str]:
        section = EvaluateSection(scorer="likelihood")
        scorer, _ = choose_scorer(section, ["x"] * len(items), labels=None, raw_text=False, metadata=items)
        baseline = trivial_baseline(scorer, train, ["x"] * len(items), items)
        assert baseline is not None
        return baseline.scores.tolist(), baseline.name

    same = [{"choices": ["yes", "no"], "gold": place} for place in (0, 1, 1)]
    assert found(["no", "no", "yes"], same) == ([0, 1, 1], "commonest training answer")
    own = [{"choices": ["a", "bcd", "efg"], "gold": 1}, {"choices": ["x", "y"], "gold": 1}]
    assert found(["a"], own) == ([1, 0], "longest choice")
