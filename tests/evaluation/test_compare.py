"""Pairing, verdict sentences word for word, wins and losses, health, and the JSON of a result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.compare import (
    Answer,
    Item,
    TaskResult,
    as_json,
    compare,
    losses,
    regressions,
    verdict_sentence,
    wins,
)
from finetune.evaluation.scoring.scorers import Baseline, Scorer, bits_per_byte_scorer, exact_scorer, json_fields_scorer


def make_items(n: int, groups: int | None = None) -> list[Item]:
    return [
        Item(
            id=f"row-{number}",
            reference="yes",
            prompt_text=f"Question {number}?",
            group=None if groups is None else f"document {number % groups}",
        )
        for number in range(n)
    ]


def make_answers(items: Sequence[Item], scores: Sequence[float], **changes: Any) -> list[Answer]:
    return [
        Answer(
            item_id=item.id,
            prompt_hash=f"hash of {item.prompt_text}",
            text="yes" if score == 1 else "no",
            ended=True,
            tokens=1,
            score=float(score),
            **changes,
        )
        for item, score in zip(items, scores, strict=True)
    ]


def result_of(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    scorer: Scorer | None = None,
    groups: int | None = None,
    baseline: Baseline | None = None,
    **others: Sequence[float],
) -> TaskResult:
    items = make_items(len(base), groups)
    contestants = {"base": base, "tuned": tuned, **others}
    return compare(
        "held-out",
        scorer or exact_scorer(),
        items,
        {name: make_answers(items, scores) for name, scores in contestants.items()},
        baseline=baseline,
        confidence=0.95,
        seconds={"base": 1.5, "tuned": 2.0},
    )


def right_and_wrong(wins_: int, losses_: int, both: int, neither: int) -> tuple[list[float], list[float]]:
    return (
        [0.0] * wins_ + [1.0] * losses_ + [1.0] * both + [0.0] * neither,
        [1.0] * wins_ + [0.0] * losses_ + [1.0] * both + [0.0] * neither,
    )


# ------------------------------------------------------------------------------------------------------ sentences


def test_better() -> None:
    assert verdict_sentence(result_of(*right_and_wrong(164, 2, 2, 32))) == (
        "Tuned is better than base on held-out: exact 0.83 [0.77, 0.88] against 0.02 [0.01, 0.05], "
        "difference +0.81 [0.74, 0.86] (95 %, n = 200, McNemar mid-p test, p < 0.001)."
    )


def test_worse() -> None:
    assert verdict_sentence(result_of(*right_and_wrong(5, 20, 50, 25))) == (
        "Tuned is worse than base on held-out: exact 0.55 [0.45, 0.64] against 0.70 [0.60, 0.78], "
        "difference -0.15 [-0.25, -0.06] (95 %, n = 100, McNemar mid-p test, p = 0.002)."
    )


def test_no_detectable_difference() -> None:
    assert verdict_sentence(result_of(*right_and_wrong(8, 11, 42, 139))) == (
        "No detectable difference on held-out: exact 0.25 [0.20, 0.31] against 0.27 [0.21, 0.33], "
        "difference -0.01 [-0.06, 0.03] (95 %, n = 200, McNemar mid-p test, p = 0.503); "
        "a difference of 0.07 or more would have been seen with 80 % power."
    )


def test_too_few_items() -> None:
    assert verdict_sentence(result_of(*right_and_wrong(4, 0, 1, 1))) == (
        "Too few items to tell on held-out: exact 0.83 [0.44, 0.97] against 0.17 [0.03, 0.56], "
        "difference +0.67 [0.00, 0.90] (95 %, n = 6, McNemar mid-p test, p = 0.062); "
        "at least 10 items are needed for a verdict, there are 6."
    )


def test_lower_is_better_and_bits_have_three_decimals() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1.2, 0.1, 25)
    tuned = base - rng.normal(0.1, 0.05, 25)
    sentence = verdict_sentence(result_of(base.tolist(), tuned.tolist(), scorer=bits_per_byte_scorer()))
    assert sentence == (
        "Tuned is better than base on held-out: bits_per_byte 1.076 [1.035, 1.118] against 1.193 [1.157, 1.229] "
        "(lower is better), difference -0.117 [-0.136, -0.097] (95 %, n = 25, paired t test, p < 0.001)."
    )


def test_groups_are_named() -> None:
    rng = np.random.default_rng(0)
    base, tuned = rng.integers(0, 2, 60).tolist(), rng.integers(0, 2, 60).tolist()
    result = result_of(base, tuned, groups=15)
    assert result.comparison.groups == 15
    assert "n = 60 in 15 groups, paired t test by group, p = " in verdict_sentence(result)
    assert result.comparison.notes == (
        "with only 15 groups the interval rests on Student's t with 14 degrees of freedom",
    )


def test_a_small_but_certain_difference_is_not_rounded_to_nothing() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, 400)
    tuned = base + rng.normal(0.0010, 0.0030, 400)
    sentence = verdict_sentence(result_of(base.tolist(), tuned.tolist(), scorer=json_fields_scorer()))
    assert sentence == (
        "Tuned is better than base on held-out: json_fields 0.5194 [0.5025, 0.5368] against 0.5184 [0.5015, 0.5359], "
        "difference +0.0010 [0.0007, 0.0013] (95 %, n = 400, paired bootstrap, p < 0.001)."
    )


def test_another_contestant_is_named() -> None:
    base, tuned = right_and_wrong(8, 11, 42, 139)
    result = result_of(base, tuned, gguf=base)
    assert verdict_sentence(result, "gguf") == (
        "No detectable difference between gguf and base on held-out: exact 0.27 [0.21, 0.33] against 0.27 "
        "[0.21, 0.33], difference 0.00 [-0.02, 0.02] (95 %, n = 200, McNemar mid-p test, p = 1.000); "
        "a difference of 0.04 or more would have been seen with 80 % power."
    )
    assert list(result.comparisons) == ["tuned", "gguf"]
    assert result.subject == "tuned"


def test_a_baseline_that_is_not_beaten_is_said() -> None:
    base, tuned = right_and_wrong(20, 0, 10, 70)
    strong = Baseline("commonest training answer", np.array([1.0] * 30 + [0.0] * 70), "always answers 'no'")
    assert verdict_sentence(result_of(base, tuned, baseline=strong)).endswith(
        " p < 0.001). Tuned does not beat the trivial baseline (always answers 'no'), which scores 0.30 [0.22, 0.40]."
    )
    weak = Baseline("commonest training answer", np.zeros(100), "always answers 'no'")
    assert "baseline" not in verdict_sentence(result_of(base, tuned, baseline=weak))


# -------------------------------------------------------------------------------------------- wins, losses, health


def test_wins_losses_and_regressions() -> None:
    base = [0.0, 1.0, 0.5, 0.9, 0.2] + [0.5] * 10
    tuned = [1.0, 0.2, 0.0, 0.9, 0.4] + [0.5] * 10
    result = result_of(base, tuned, scorer=json_fields_scorer())
    assert [(pair.item.id, pair.gain) for pair in wins(result)] == [("row-0", 1.0), ("row-4", 0.2)]
    assert [pair.item.id for pair in wins(result, 1)] == ["row-0"]
    assert [pair.item.id for pair in losses(result)] == ["row-1", "row-2"]
    assert [pair.item.id for pair in regressions(result)] == ["row-1"]
    assert losses(result)[0].base.score == 1.0
    assert losses(result)[0].tuned.score == 0.2


def test_wins_where_lower_is_better() -> None:
    result = result_of([1.0, 2.0, 3.0], [0.5, 2.5, 3.0], scorer=bits_per_byte_scorer())
    assert [pair.item.id for pair in wins(result)] == ["row-0"]
    assert [pair.item.id for pair in losses(result)] == ["row-1"]
    assert regressions(result) == []
    assert result.health == {}


def json_result() -> TaskResult:
    items = make_items(12)
    scorer, reference = json_fields_scorer(), '{"a": 1, "b": 2}'
    texts = {
        "base": ["Sure!"] * 4 + ["I do not know. " * 20] * 2 + [""] * 3 + ['{"a": 1, "b": 0}'] * 3,
        "tuned": [reference] * 9 + ['{"a": 1, "b": 0}'] * 3,
    }
    answers = {
        name: [
            Answer(
                item_id=item.id,
                prompt_hash=f"hash of {item.prompt_text}",
                text=text,
                ended=len(text) < 100,
                tokens=len(text),
                score=scorer.judge(text, reference).value,
                detail=scorer.judge(text, reference).detail,
            )
            for item, text in zip(items, given, strict=True)
        ]
        for name, given in texts.items()
    }
    return compare("held-out", scorer, items, answers, baseline=None, confidence=0.95)


def test_health() -> None:
    health = json_result().health
    assert dataclasses.asdict(health["base"]) == {
        "ended": pytest.approx(10 / 12),
        "cut": pytest.approx(2 / 12),
        "empty": 3 / 12,
        "repetitive": pytest.approx(2 / 12),
        "invalid_json": 9 / 12,
    }
    assert dataclasses.asdict(health["tuned"]) == {
        "ended": 1.0,
        "cut": 0.0,
        "empty": 0.0,
        "repetitive": 0.0,
        "invalid_json": 0.0,
    }
    assert result_of([1.0, 0.0], [1.0, 1.0]).health["base"].invalid_json is None


def test_field_scores() -> None:
    fields = json_result().field_scores
    assert {name: {key: found.mean for key, found in each.items()} for name, each in fields.items()} == {
        "base": {"a": 0.25, "b": 0.0},
        "tuned": {"a": 1.0, "b": 0.75},
    }
    assert fields["tuned"]["b"].n == 12
    assert fields["tuned"]["b"].interval == pytest.approx((0.4677, 0.9111), abs=1e-3)
    assert result_of([1.0], [1.0]).field_scores == {}


# --------------------------------------------------------------------------------------------------------- pairing


def test_other_items_are_refused() -> None:
    items = make_items(3)
    answers = make_answers(items, [1, 1, 0])
    with pytest.raises(FinetuneError) as caught:
        compare(
            "held-out",
            exact_scorer(),
            items,
            {"base": answers, "tuned": [answers[0], answers[2], answers[1]]},
            baseline=None,
            confidence=0.95,
        )
    assert str(caught.value) == (
        "evaluation of held-out: 'tuned' did not answer the same items in the same order: item 2 is 'row-1', its "
        "answer is to 'row-2'\n    -> let all contestants answer again"
    )
    with pytest.raises(
        FinetuneError, match="'base' did not answer the same items in the same order: 3 items, 2 answers"
    ):
        compare(
            "held-out",
            exact_scorer(),
            items,
            {"base": answers[:2], "tuned": answers},
            baseline=None,
            confidence=0.95,
        )


def test_other_prompts_are_refused() -> None:
    items = make_items(3)
    answers = make_answers(items, [1, 1, 0])
    changed = [answers[0], *(dataclasses.replace(answer, prompt_hash="0") for answer in answers[1:])]
    with pytest.raises(FinetuneError) as caught:
        compare("held-out", exact_scorer(), items, {"base": answers, "tuned": changed}, baseline=None, confidence=0.95)
    assert str(caught.value) == (
        "evaluation of held-out: 'tuned' and 'base' got different prompts on 2 of 3 items, first on 'row-1'\n"
        "    -> give all contestants the same chat template and system prompt"
    )


def test_calls_that_make_no_sense() -> None:
    items = make_items(2)
    answers = make_answers(items, [1, 0])
    for wrong_items, given, message in (
        ([], {"base": [], "tuned": []}, "task 't' needs at least one item, and no id twice"),
        (
            [items[0], items[0]],
            {"base": answers, "tuned": answers},
            "task 't' needs at least one item, and no id twice",
        ),
        (items, {"base": answers}, "task 't' needs 'base' and another contestant, not ['base']"),
        (items, {"tuned": answers, "x": answers}, "task 't' needs 'base' and another contestant, not ['tuned', 'x']"),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
            compare("t", exact_scorer(), wrong_items, given, baseline=None, confidence=0.95)
        assert str(caught.value) == message


def test_the_prompt_hash_is_that_of_all_prompts() -> None:
    first, second = result_of([1.0, 0.0], [1.0, 0.0]), result_of([0.0, 0.0], [1.0, 1.0])
    assert first.prompt_hash == second.prompt_hash
    assert first.prompt_hash != result_of([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]).prompt_hash


def test_items_of_a_group_are_taken_together() -> None:
    base, tuned = right_and_wrong(8, 11, 42, 139)
    assert result_of(base, tuned, groups=40).comparison.groups == 40
    items = [
        dataclasses.replace(item, group="only" if position < 2 else None)
        for position, item in enumerate(make_items(200))
    ]
    answers = {"base": make_answers(items, base), "tuned": make_answers(items, tuned)}
    found = compare("held-out", exact_scorer(), items, answers, baseline=None, confidence=0.95)
    assert found.comparison.groups == 199
    own = compare(
        "held-out",
        exact_scorer(),
        items,
        answers,
        baseline=None,
        confidence=0.95,
        clusters=[n % 20 for n in range(200)],
    )
    assert own.comparison.groups == 20


# ------------------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize(
    "result",
    [
        result_of(*right_and_wrong(8, 11, 42, 139), baseline=Baseline("b", np.zeros(200), "always answers 'x'")),
        result_of([1.0], [1.0]),
        result_of([0.7] * 3, [0.7] * 3, scorer=bits_per_byte_scorer()),
        json_result(),
    ],
)
def test_as_json_is_strict_and_complete(result: TaskResult) -> None:
    found = as_json(result)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {
        "n",
        "base",
        "tuned",
        "difference",
        "interval",
        "p_value",
        "verdict",
        "minimum_detectable",
        "wins",
        "losses",
        "ties",
        "baseline",
        "health",
        "scorer",
        "unit",
    } <= set(found)
    assert found["sentence"] == verdict_sentence(result)


def test_values_in_json() -> None:
    baseline = Baseline("commonest training answer", np.zeros(200), "always answers 'x'")
    found = as_json(result_of(*right_and_wrong(8, 11, 42, 139), baseline=baseline))
    assert (found["n"], found["base"], found["tuned"]) == (200, 0.265, 0.25)
    assert (found["wins"], found["losses"], found["ties"]) == (8, 11, 181)
    assert found["verdict"] == "no detectable difference"
    assert found["scorer"] == "exact"
    assert found["unit"] == "share right"
    assert len(found["interval"]) == len(found["base_interval"]) == len(found["tuned_interval"]) == 2
    assert found["baseline"] == {
        "name": "commonest training answer",
        "what": "always answers 'x'",
        "score": 0.0,
        "interval": [0.0, pytest.approx(0.01885, abs=1e-4)],
        "n": 200,
        "verdict_of_subject": "better",
    }
    assert found["seconds"] == {"base": 1.5, "tuned": 2.0}
