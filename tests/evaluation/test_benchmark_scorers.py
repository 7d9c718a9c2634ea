"""The metrics of benchmarks on right, wrong and awkward answers."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.benchmark_scorers import balanced_scorer, choice_scorer, rouge_l_scorer, tatqa_scorer
from finetune.evaluation.scorers import choose_scorer, label_scorer, number_scorer
from finetune.recipe.schema import EvaluateSection


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
    for scorer in (choice_scorer(), rouge_l_scorer(), tatqa_scorer()):
        score = scorer.judge(answer, reference)
        assert 0 <= score.value <= 1
        json.dumps(score.detail, allow_nan=False)


@given(st.text(alphabet="ab1 .,$%\n-", min_size=1).filter(str.strip))
def test_the_reference_itself_is_right_by_tatqa(reference: str) -> None:
    assert tatqa_scorer().judge(reference, reference).detail == {"exact": True}


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


def test_benchmarks_are_judged_by_their_own_metric() -> None:
    def chosen(benchmark: str, references: list[str], labels: list[str] | None = None) -> tuple[str, str]:
        scorer, why = choose_scorer(
            EvaluateSection(),
            references,
            labels=labels,
            raw_text=False,
            benchmark=benchmark,
            metadata=[{"task": "t"}] * len(references),
        )
        return scorer.name, why

    assert chosen("medmcqa", ["A"]) == ("choice", "the rows are those of the benchmark medmcqa")
    assert chosen("legalbench", ["Yes", "No"], ["Yes", "No"])[0] == "balanced"
    assert chosen("pubmedqa", ["yes"], ["yes", "no"])[0] == "label"
    assert chosen("tatqa", ["1 million"])[0] == "tatqa"
    assert chosen("gsm8k", ["It is 2.\n#### 2"])[0] == "number"
    assert chosen("medquad", ["An illness."])[0] == "rouge_l"
    assert chosen("of nobody's", ["Yes"])[0] == "exact"
    assert number_scorer().judge("So 1,000 it is.\n#### 1,002", "1000+2=<<1000+2=1002>>1002\n#### 1002").value == 1
