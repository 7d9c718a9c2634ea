"""The metrics of benchmarks on right, wrong and awkward answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.scoring.benchmark_scorers import choice_scorer, tatqa_scorer


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (B) ", "B"),
        ("**B**", "B"),
        ("B.", "B"),
        ("B. the knee", "B"),
        ("B) the knee", "B"),
        ("B: the knee", "B"),
        ("B - the knee", "B"),
        ("\n\nB\nbecause", "B"),
        ("Answer: B", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B), the knee", "B"),
        ("I think option B", "B"),
        ("A man walks in", None),
        ("I do not know", None),
        ("The answer is Because", None),
        ("Both", None),
        ("", None),
    ],
)
def test_the_letter_is_found_however_it_is_dressed_up(answer: str, letter: str | None) -> None:
    score = choice_scorer().judge(answer, "B")
    assert score.detail == {"letter": letter}
    assert score.value == (letter == "B")


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "exact"),
    [
        ("$1,496.5 million", "1496.5 million", 1, True),
        ("1,496,500 thousand", "$1,496.5 million", 1, True),
        ("1496.5", "$1,496.5 million", 0, False),
        ("-12.6 million", "(12.6) million", 1, True),
        ("$(20,597)", "-20597", 1, True),
        ("12.6 million", "-12.6 million", 0, False),
        ("-22.22%", "-22.22 percent", 1, True),
        ("-0.2222", "-22.22 percent", 1, True),
        ("2018\n2019", "2019\n2018", 1, True),
        ("2018", "2019\n2018", 0.5, False),
        ("2018\n2019\n2020", "2019\n2018", 2 / 3, False),
        ("fixed-price type", "the fixed-price type contract", 2 / 3, False),
        ("fixed-price type", "cost-plus type", 0.5, False),
        ("in May 2018", "in May 2019", 0, False),
        ("", "2019", 0, False),
    ],
)
def test_tatqa_counts_spans_and_numbers(answer: str, reference: str, f1: float, exact: bool) -> None:
    score = tatqa_scorer().judge(answer, reference)
    assert score.value == pytest.approx(f1)
    assert score.detail == {"exact": exact}


@given(st.text(), st.text(min_size=1))
def test_scores_are_shares_and_strict_json(answer: str, reference: str) -> None:
    for scorer in (choice_scorer(), tatqa_scorer()):
        score = scorer.judge(answer, reference)
        assert 0 <= score.value <= 1
        json.dumps(score.detail, allow_nan=False)


@given(st.text(alphabet="ab1 .,$%\n-", min_size=1).filter(str.strip))
def test_the_reference_itself_is_right_by_tatqa(reference: str) -> None:
    assert tatqa_scorer().judge(reference, reference).detail == {"exact": True}
