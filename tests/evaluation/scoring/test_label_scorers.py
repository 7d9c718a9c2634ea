"""Classes: accuracy, balanced accuracy and macro-F1."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation.scoring.label_scorers import balanced_scorer, label_scorer, macro_f1_scorer


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        ("card_arrival", "card_arrival", 1),
        ("\n\nCard_Arrival.\nBecause the card is late.", "card_arrival", 1),
        ('"refund"', "refund", 1),
        ("**Refund**", "refund", 1),
        ("refund", "card_arrival", 0),
        ("the label is refund", None, 0),
        ("refund card_arrival", None, 0),
        ("", None, 0),
    ],
)
def test_label(answer: str, label: str | None, right: float) -> None:
    score = label_scorer(["card_arrival", "refund"]).judge(answer, label or "refund")
    assert score.value == right
    assert score.detail == {"label": label if right else score.detail["label"]}
    if label is None:
        assert score.detail == {"label": None}


@pytest.mark.parametrize(
    ("labels", "answer", "given_label"),
    [
        (["C", "C++"], "c++", "C++"),
        (["C", "C++"], "c", "C"),
        (["yes", "Yes"], "Yes", "Yes"),
        (["+", "neutral"], "+", "+"),
        (["+", "neutral"], "...", None),
        (["+", "neutral"], "", None),
        (["A", "B"], "(a)", "A"),
    ],
)
def test_labels_that_differ_only_by_case_or_punctuation_stay_apart(
    labels: list[str], answer: str, given_label: str | None
) -> None:
    assert label_scorer(labels).judge(answer, labels[0]).detail == {"label": given_label}


def test_label_needs_labels() -> None:
    with pytest.raises(ValueError, match=r"^a label scorer needs labels$"):
        label_scorer([])


LABELLED = st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=1)


@given(LABELLED)
def test_balanced_accuracy_is_the_mean_over_tasks_of_the_mean_over_classes(rows: list[tuple[str, str, str]]) -> None:
    tasks, references, answers = zip(*rows, strict=True)
    metadata = [{"task": task} for task in tasks]
    scorer = balanced_scorer(label_scorer("xyz"), references, metadata)
    scores = [scorer.score(*one) for one in zip(answers, references, metadata, strict=True)]
    assert scorer.bounds is not None
    assert all(0 <= score.value <= scorer.bounds[1] + 1e-9 for score in scores)
    counts = Counter(zip(tasks, references, strict=True))
    found = Counter((task, right) for task, right, given in rows if right == given)
    by_task = [
        np.mean([found[key] / count for key, count in counts.items() if key[0] == task]) for task in sorted(set(tasks))
    ]
    assert np.mean([score.value for score in scores]) == pytest.approx(np.mean(by_task))


def macro_f1(references: list[str], answers: list[str], labels: list[str]) -> float:
    scorer = macro_f1_scorer(label_scorer([*labels, *references]), references)
    details = [
        scorer.score(answer, reference, {}).detail for answer, reference in zip(answers, references, strict=True)
    ]
    assert scorer.whole is not None
    return float(scorer.whole.statistic(details)(np.ones((1, len(details))))[0])


def test_macro_f1_by_hand() -> None:
    """Class a: 2 right, 3 given, 3 wanted: 2/3. Class b: 1 right, 1 given, 2 wanted: 2/3. Class c: 0 of 1 given: 0."""
    references = ["a", "a", "a", "b", "b", "c"]
    answers = ["a", "A.", "c", "b", "a", "none of these"]
    assert macro_f1(references, answers, ["a", "b", "c"]) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcdex")), min_size=1, max_size=40))
def test_macro_f1_is_scikit_learn_s(rows: list[tuple[str, str]]) -> None:
    """`e` is a label that no reference has, `x` is no label."""
    from sklearn.metrics import f1_score

    references, answers = map(list, zip(*rows, strict=True))
    expected = f1_score(references, answers, labels=sorted(set(references)), average="macro", zero_division=0)
    assert macro_f1(references, answers, ["a", "e"]) == pytest.approx(expected)


def test_an_item_of_macro_f1_is_right_or_wrong_and_says_why() -> None:
    scorer = macro_f1_scorer(label_scorer(["a", "b"]), ["a", "b"])
    score = scorer.score("B", "a", {})
    assert (score.value, score.detail) == (0.0, {"label": "b", "wanted": "a"})
    assert (scorer.name, scorer.unit, scorer.bounds) == ("macro_f1", "macro-F1", (0.0, 1.0))


def test_a_class_that_a_draw_lacks_does_not_count() -> None:
    references = ["a", "a", "b"]
    scorer = macro_f1_scorer(label_scorer(["a", "b"]), references)
    details = [
        scorer.score(answer, right, {}).detail for answer, right in zip(["a", "b", "b"], references, strict=True)
    ]
    assert scorer.whole is not None
    drawn = scorer.whole.statistic(details)(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [0.0, 0.0, 3.0]]))
    assert drawn == pytest.approx([2 / 3, 0.8, 1.0])
