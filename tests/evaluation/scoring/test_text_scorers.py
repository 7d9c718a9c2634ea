"""Texts against texts: right, wrong and awkward answers, and the textbook's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.scoring.label_scorers import label_scorer
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.scoring.text_scorers import (
    chrf_scorer,
    contains_scorer,
    exact_scorer,
    number_scorer,
    rouge_l_scorer,
    token_f1_scorer,
)

TEXT_SCORERS = [exact_scorer(), label_scorer(["yes", "no"]), number_scorer(), contains_scorer()]
TEXT_SCORERS += [token_f1_scorer(), rouge_l_scorer(), chrf_scorer()]


def value(scorer: Scorer, answer: str, reference: str) -> float:
    return scorer.judge(answer, reference).value


@given(st.text(), st.text())
def test_every_judgement_is_a_share_and_strict_json(answer: str, reference: str) -> None:
    for scorer in TEXT_SCORERS:
        score = scorer.judge(answer, reference)
        assert 0 <= score.value <= 1
        assert not scorer.binary or score.value in (0, 1)
        json.dumps(score.detail, allow_nan=False)


@given(st.text(min_size=1))
def test_the_reference_itself_is_right(text: str) -> None:
    assert value(exact_scorer(), text, text) == 1
    assert value(token_f1_scorer(), text, text) == 1
    assert not text.strip() or value(contains_scorer(), text, text) == 1
    assert len(text.splitlines()) > 1 or not text.strip() or value(label_scorer([text, "other"]), text, text) == 1


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Paris", "Paris", 1),
        ("  Paris\n", "Paris", 1),
        ("New   York", "New York", 1),
        ("cafe\u0301", "caf\u00e9", 1),
        ("paris", "Paris", 0),
        ("Paris.", "Paris", 0),
        ("", "Paris", 0),
    ],
)
def test_exact(answer: str, reference: str, right: float) -> None:
    assert value(exact_scorer(), answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("She pays 18 dollars.", "9 * 2 = 18\n#### 18", 1),
        ("#### 1,000", "1000", 1),
        ("$12.00", "12", 1),
        ("-3", "3", 0),
        ("0.3333333", "0.33333333", 1),
        ("0.333", "0.33333333", 0),
        ("none", "0", 0),
        ("0", "0.0", 1),
    ],
)
def test_number(answer: str, reference: str, right: float) -> None:
    assert value(number_scorer(), answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("It is Paris, of course.", "paris", 1),
        ("The answer is 12.", "12", 1),
        ("The answer is 3128.", "12", 0),
        ("112 and 12", "12", 1),
        ("catalogue", "cat", 0),
        ("\u6771\u4eac\u90fd", "\u6771\u4eac", 1),
        ("C++ is it", "C++", 1),
        ("", "x", 0),
    ],
)
def test_contains(answer: str, reference: str, right: float) -> None:
    assert value(contains_scorer(), answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the cat", "a cat", 1.0),
        ("The cat sat.", "cat", 2 / 3),
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("", "", 1.0),
        ("A", "A", 1.0),
        ("The", "A", 0.0),
        ("\u6771\u4eac", "\u6771\u4eac\u90fd", 0.8),
    ],
)
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert value(token_f1_scorer(), answer, reference) == pytest.approx(f1)


@given(st.text(), st.text())
def test_token_f1_is_symmetric(first: str, second: str) -> None:
    assert value(token_f1_scorer(), first, second) == value(token_f1_scorer(), second, first)


def longest(first: list[str], second: list[str]) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if one == other else max(table[i - 1, j], table[i, j - 1])
    return int(table[-1, -1])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=90), st.lists(st.sampled_from("abc"), min_size=1))
def test_rouge_l_is_that_of_the_textbook_table(first: list[str], second: list[str]) -> None:
    expected = 2 * longest(first, second) / (len(first) + len(second))
    assert rouge_l_scorer().judge(" ".join(first), " ".join(second)).value == pytest.approx(expected)


def test_rouge_l_of_lin_s_example() -> None:
    # police killed the gunman; Lin 2004, section 3.1: subsequences of 3 and 2 words, F of 3/4 and 2/4
    scorer = rouge_l_scorer()
    assert scorer.judge("Police kill the gunman.", "police killed the gunman").value == 0.75
    assert scorer.judge("the gunman kill police", "police killed the gunman").value == 0.5
    assert scorer.judge("", "police").value == 0


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("abcdef", "abcdef", 1.0),
        ("abc def", "abcdef", 1.0),
        ("ABC", "abc", 0.0),
        # Of "abcd" in "abcdef": precision 1 for all runs, recall 4/6, 3/5, 2/4 and 1/3; runs of 5 and 6 have no answer
        ("abcd", "abcdef", 5 * 0.525 / (4 + 0.525)),
        # Of "abx" for "aby": 2/3, 1/2 and 0 of both sides
        ("abx", "aby", 7 / 18),
        ("", "abc", 0.0),
        ("xyz", "abc", 0.0),
    ],
)
def test_chrf_is_that_of_the_paper(answer: str, reference: str, score: float) -> None:
    assert value(chrf_scorer(), answer, reference) == pytest.approx(score, abs=1e-12)


def test_chrf_is_sacrebleu_s() -> None:
    from sacrebleu import sentence_chrf

    pairs = [
        ("The patient was given 5 mg of warfarin.", "The patient received 5 mg warfarin daily."),
        ("Der Vertrag endet am 31. März.", "Der Vertrag läuft am 31. März aus."),
        ("\u6771\u4eac\u90fd", "\u6771\u4eac"),
        ("no", "yes"),
        ("a", "a b"),
    ]
    for answer, reference in pairs:
        expected = sentence_chrf(answer, [reference]).score / 100
        assert value(chrf_scorer(), answer, reference) == pytest.approx(expected, abs=1e-12)
