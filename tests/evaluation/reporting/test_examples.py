"""Answers side by side: regressions, wins, losses, what is still wrong, and what a choice by likelihood was."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.evaluation.reporting.examples import clipped, examples, said

TASK: dict[str, Any] = {"task": "t", "subject": "tuned", "higher_is_better": True, "health": {"base": {}}}


def answer(name: str, base: float, tuned: float, **other: Any) -> dict[str, Any]:
    def given(score: float) -> dict[str, Any]:
        return {"text": f"{name} {score}", "score": score, "ended": True, "tokens": 1, "detail": {}, **other}

    whole = {"id": name, "group": None, "prompt": "p", "reference": "r"}
    return {**whole, "base": given(base), "tuned": given(tuned)}


ANSWERS = [
    answer("tie", 1, 1),
    answer("gain", 0, 1),
    answer("some gain", 0.2, 0.5),
    answer("loss", 0.5, 0.2),
    answer("regression", 1, 0),
    answer("still wrong", 0, 0),
]


def shown(group: dict[str, Any]) -> list[str]:
    return [item["id"] for item in group["shown"]]


def test_items_are_sorted_and_none_is_shown_twice() -> None:
    found = examples({**TASK, "regressions": ["regression"]}, ANSWERS, file="f")
    assert shown(found["regressions"]) == ["regression"]
    assert shown(found["wins"]) == ["gain", "some gain"]
    assert (shown(found["losses"]), found["losses"]["count"]) == (["loss"], 2)
    assert shown(found["wrong"]) == ["still wrong"]
    assert found["wrong"]["count"] == 4


def test_a_run_that_knows_no_regressions_has_losses_alone() -> None:
    found = examples(TASK, ANSWERS, file="f")
    assert found["regressions"] is None
    assert shown(found["losses"]) == ["regression", "loss"]


def test_no_more_than_asked_for_are_shown() -> None:
    found = examples({**TASK, "regressions": []}, ANSWERS, file="f", shown=1)
    assert [len(found[key]["shown"]) for key in ("regressions", "wins", "losses", "wrong")] == [0, 1, 1, 1]
    assert found["wins"]["count"] == 2


def test_where_lower_is_better_nothing_is_right_or_a_regression() -> None:
    found = examples({**TASK, "higher_is_better": False, "regressions": []}, ANSWERS, file="f")
    assert found["regressions"] is found["wrong"] is None
    assert shown(found["wins"]) == ["regression", "loss"]


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({}, ""),
        ({"chosen": 1, "probabilities": [0.2, 0.8]}, "likeliest choice: number 2 of 2, probability 0.80"),
        ({"chosen": 0}, "likeliest choice: number 1"),
        ({"chosen": "yes"}, "likeliest choice: yes"),
    ],
)
def test_a_choice_by_likelihood_is_named(detail: dict[str, Any], text: str) -> None:
    given = {"text": "", "score": 1.0, "ended": True, "detail": detail}
    assert said("base", given, "f")["chosen"] == text


def test_texts_are_cut_with_what_is_left_and_where_it_is() -> None:
    assert clipped("abcdef", 4, "f") == {"text": "abcd", "left": 2, "file": "f"}
    assert clipped("abc", 4, "f")["left"] == 0
