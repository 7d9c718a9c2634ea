"""What is said first: the verdict after Holm, and better that was paid for by forgetting, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.evaluation.reporting.verdicts import (
    forgetting_outcome,
    holm_sentence,
    leak_outcome,
    outcome,
    outcomes,
    run_verdict,
    verdict_after_holm,
)
from tests.run_records import forgetting, leak

TASK: dict[str, Any] = {"task": "t", "verdict": "better", "sentence": "Tuned is better.", "confidence": 0.95}
BY_CHANCE = {**TASK, "p_holm": 0.12, "holm": {"tasks": 4, "verdict": "no detectable difference"}}
STANDS = {**TASK, "p_holm": 0.0004, "holm": {"tasks": 4, "verdict": "better"}}


def test_the_verdict_of_several_tasks_is_that_after_holm() -> None:
    assert verdict_after_holm(TASK) == "better"
    assert verdict_after_holm(BY_CHANCE) == "no detectable difference"
    assert holm_sentence(TASK) == "Tuned is better."
    assert holm_sentence(BY_CHANCE) == (
        "Tuned is better. Corrected for 4 tasks (Holm), p = 0.120: no detectable difference."
    )
    assert holm_sentence(STANDS) == "Tuned is better. Corrected for 4 tasks (Holm), p < 0.001: better."
    found = outcome(BY_CHANCE, None, named=True)
    assert (found.headline, found.tone) == ("No detectable difference on t", "neutral")


@pytest.mark.parametrize("entry", [{"p_holm": None, "holm": {"tasks": 3}}, {"p_holm": 0.2, "holm": {"tasks": 1}}])
def test_one_task_or_one_too_small_to_test_is_not_corrected(entry: dict[str, Any]) -> None:
    entry["holm"]["verdict"] = "better"
    assert holm_sentence({**TASK, **entry}) == "Tuned is better."


def test_better_that_forgets_is_another_verdict() -> None:
    lost = forgetting(forgets=True)
    assert run_verdict(STANDS, lost) == "better but forgets"
    found = outcome(STANDS, lost, named=True)
    assert (found.verdict, found.tone, found.headline) == ("better but forgets", "mixed", "Better on t, but forgets")
    # What was lost is told once, on its own
    assert found.text == holm_sentence(STANDS)
    assert [one.verdict for one in outcomes([STANDS], lost)] == ["better but forgets", "forgets"]
    assert run_verdict(BY_CHANCE, lost) == "no detectable difference"
    assert run_verdict(STANDS, forgetting()) == run_verdict(STANDS, None) == "better"


@pytest.mark.parametrize(
    ("verdict", "tone", "headline"),
    [
        ("keeps", "good", "Keeps what its base could do"),
        ("forgets", "bad", "Forgets what its base could do"),
        ("cannot tell", "neutral", "Cannot tell whether it forgets"),
    ],
)
def test_what_was_forgotten_has_its_own_headline(verdict: str, tone: str, headline: str) -> None:
    found = forgetting_outcome({**forgetting(), "verdict": verdict})
    assert (found.verdict, found.tone, found.headline) == (verdict, tone, headline)
    assert found.text == "Tuned keeps what its base could do, within 5 points."


def test_a_leak_is_told_only_where_there_is_one() -> None:
    assert leak_outcome(TASK) is None
    assert leak_outcome({**TASK, "leak": leak(0)}) is None
    found = leak_outcome({**TASK, "leak": leak(2)})
    assert found is not None
    assert found.headline == "Test items of t stand in the training rows"
    assert found.text == "2 of 120 test items share text with the training rows."


def test_all_that_comes_first_in_its_order() -> None:
    found = outcomes([{**STANDS, "leak": leak(1)}, BY_CHANCE], forgetting())
    assert [one.verdict for one in found] == ["better", "no detectable difference", "keeps", "leak"]
    assert [one.headline for one in outcomes([TASK], None)] == ["Better than its base"]
    assert outcomes([], None) == []
