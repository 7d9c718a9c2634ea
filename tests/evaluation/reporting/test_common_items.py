"""Which answers of two runs can be paired, and the reason in words where they cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.reporting.common_items import judged_differently, pairable, unfit

TASK: dict[str, Any] = {"task": "t", "scorer": "exact", "unit": "share right", "subject": "tuned", "tuned": 0.5}


def records(*names: str, prompt: str = "p", reference: str = "r") -> dict[str, dict[str, Any]]:
    return {name: {"id": name, "prompt": prompt, "reference": reference} for name in names}


def test_items_are_paired_by_id_prompt_and_right_answer() -> None:
    others = {
        **records("a", "b", "new"),
        **records("c", prompt="another"),
        **records("d", "e", reference="another"),
    }
    found = pairable("one", records("a", "b", "c", "d", "e", "old"), "two", others)
    assert found.ids == {"a", "b"}
    assert found.reason == ""
    assert found.left_out == (
        "1 item only in one",
        "1 item only in two",
        "1 item asked with another prompt in two",
        "2 items with another right answer in two",
    )
    assert pairable("one", records("a"), "two", records("a")).left_out == ()


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        (records("x", "y"), "it shares no test item with one: 2 here, 1 there"),
        (
            records("a", prompt="another"),
            "all 1 items that it shares with one were asked with other prompts (another chat template, system prompt "
            "or examples), first 'a'",
        ),
        (records("a", reference="no"), "all items that it shares with one have another right answer, first 'a'"),
    ],
)
def test_what_cannot_be_paired_at_all_has_a_reason(others: dict[str, Any], reason: str) -> None:
    found = pairable("one", records("a"), "two", others)
    assert (found.ids, found.reason) == (frozenset(), reason)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from("pq"), st.sampled_from("rs"))),
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from("pq"), st.sampled_from("rs"))),
)
def test_every_item_of_both_is_paired_or_counted(one: dict[str, Any], two: dict[str, Any]) -> None:
    def made(values: dict[str, Any]) -> dict[str, Any]:
        return {key: {"prompt": prompt, "reference": right} for key, (prompt, right) in values.items()}

    found = pairable("one", made(one), "two", made(two))
    assert found.ids == {key for key in one if two.get(key) == one[key]}
    assert bool(found.ids) != bool(found.reason)
    if found.ids:
        assert sum(int(said.split(" ", 1)[0]) for said in found.left_out) == len({*one, *two}) - len(found.ids)


def test_a_figure_of_the_whole_set_cannot_be_paired() -> None:
    answers = {name: {"tuned": {"score": score}} for name, score in (("a", 1.0), ("b", 0.0))}
    assert unfit(TASK, answers, "f") == ""
    assert unfit({**TASK, "tuned": 0.41, "scorer": "macro_f1"}, answers, "f") == (
        "its macro_f1 is not the mean of its items' scores, so items cannot be paired"
    )
    assert unfit(TASK, {}, "evaluation/answers.jsonl") == "evaluation/answers.jsonl with its answers is not there"


def test_other_scorers_and_other_settings_are_named() -> None:
    assert judged_differently(TASK, TASK, ({}, {}), "one") == ""
    assert judged_differently(TASK, {**TASK, "scorer": "label"}, ({}, {}), "one") == (
        "it was judged by 'exact', one by 'label'"
    )
    mine, others = {"fields": ["queue"], "confidence": 0.9}, {"fields": [], "confidence": 0.95}
    assert judged_differently(TASK, TASK, (mine, others), "one") == (
        "it was judged with other settings than one: fields ['queue'] here, [] there"
    )
    entry = {"tasks": [{"name": "t", "fields": []}], "fields": ["queue"]}
    assert judged_differently(TASK, TASK, (entry, others), "one") == ""
