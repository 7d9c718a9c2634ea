"""Held-out rows: the draw, the length of answers, what every contestant is asked, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from finetune.data import Example, Message, Origin, TestItem, TokenRow
from finetune.errors import FinetuneError
from finetune.evaluation.compare import TaskResult
from finetune.evaluation.tasks import answer, answer_records, check_scorer, draw, judge, longest_answer, make_task
from finetune.recipe import EvaluateSection
from finetune.runtimes import Generation
from finetune.runtimes.protocol import Progress


def item(number: int, answer: str = "yes", *, length: int = 3, group: str | None = None) -> TestItem:
    """A prompt of two tokens and an answer of `length`."""
    messages = (Message("user", f"Question {number}?"), Message("assistant", answer))
    example = Example(id=f"row-{number}", origin=Origin("test.jsonl", number), messages=messages, group=group)
    ids = np.array([number, 7, *range(10, 10 + length)], dtype=np.int32)
    marks = np.array([False, False, *[True] * length])
    return TestItem(example, (number, 7), (TokenRow(example.id, ids, marks),))


class Contestant:
    """A runtime that answers by the first token of the prompt, and finds every marked token equally likely."""

    def __init__(self, name: str, answers: Sequence[str], *, bits: float = 1.0) -> None:
        self.name = name
        self.answers = answers
        self.bits = bits
        self.asked: list[Any] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Generation]:
        self.asked.append(([tuple(prompt) for prompt in prompts], max_new_tokens, tuple(stop)))
        if progress is not None:
            progress(len(prompts))
        given = [self.answers[prompt[0] % len(self.answers)] for prompt in prompts]
        return [Generation(tuple(range(len(text.split()))), text, bool(text)) for text in given]

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        self.asked.append(len(rows))
        return [-math.log(2) * self.bits * sum(marks) for _, marks in rows]

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        raise AssertionError("not asked for")

    def size_bytes(self) -> int:
        return 0


def result_of(
    items: Sequence[TestItem],
    base: Contestant,
    tuned: Contestant,
    *,
    raw_text: bool = False,
    labels: Sequence[str] | None = None,
    watch: Any = None,
    **settings: Any,
) -> TaskResult:
    section = EvaluateSection(**settings)
    task = make_task(
        section,
        items,
        train_references=["yes", "no", "yes"],
        labels=labels,
        raw_text=raw_text,
        stop=(3, 4),
        seed=0,
    )
    answers = {
        one.name: answer(one, task, task.items, None if watch is None else watch(one.name)) for one in (base, tuned)
    }
    return judge(
        task,
        answers,
        decode=lambda tokens: f"decoded {list(tokens)}",
        confidence=section.confidence,
        seed=0,
        seconds={"base": 1.0, "tuned": 2.0},
    )


def test_both_answer_the_same_prompts_and_are_compared() -> None:
    items = [item(number, group=f"g{number}") for number in range(12)]
    base, tuned = Contestant("base", ["no"]), Contestant("tuned", ["yes", "yes", "no"])
    seen: list[tuple[str, int]] = []
    result = result_of(items, base, tuned, watch=lambda name: lambda done: seen.append((name, done)))
    assert base.asked == tuned.asked == [([(number, 7) for number in range(12)], 4, (3, 4))]
    assert (result.scorer, result.comparison.n) == ("exact", 12)
    assert [answer.score for answer in result.contestants["tuned"]] == [1.0, 1.0, 0.0] * 4
    assert sum(answer.score for answer in result.contestants["base"]) == 0
    assert [one.group for one in result.items] == [f"g{number}" for number in range(12)]
    assert seen == [("base", 12), ("tuned", 12)]
    assert set(result.seconds) == {"base", "tuned"}
    assert result.baseline is not None
    assert result.baseline.estimate.mean == 1.0


def test_answers_are_kept_with_prompt_and_reference() -> None:
    items = [item(number) for number in range(10)]
    result = result_of(items, Contestant("base", [""]), Contestant("tuned", ["yes"]))
    records = answer_records(result)
    assert len(records) == 10
    assert records[3] == {
        "id": "row-3",
        "group": None,
        "prompt": "decoded [3, 7]",
        "reference": "yes",
        "base": {"text": "", "score": 0.0, "ended": False, "tokens": 0, "log_likelihood": None, "detail": {}},
        "tuned": {"text": "yes", "score": 1.0, "ended": True, "tokens": 1, "log_likelihood": None, "detail": {}},
    }


def test_raw_text_is_measured_over_all_its_pieces() -> None:
    long = Example(id="long", origin=Origin("t", 1), text="x" * 20)
    rows = tuple(TokenRow("long", np.arange(5, dtype=np.int32), np.ones(5, dtype=bool)) for _ in range(4))
    short = Example(id="short", origin=Origin("t", 2), text="y" * 10)
    one = (TokenRow("short", np.arange(5, dtype=np.int32), np.ones(5, dtype=bool)),)
    items = [TestItem(long, (), rows), TestItem(short, (), one)]
    base, tuned = Contestant("base", [], bits=2.0), Contestant("tuned", [], bits=1.0)
    result = result_of(items, base, tuned, raw_text=True)
    assert base.asked == tuned.asked == [5]
    assert [answer.score for answer in result.contestants["base"]] == pytest.approx([2.0, 1.0])
    assert [answer.score for answer in result.contestants["tuned"]] == pytest.approx([1.0, 0.5])
    assert [answer.tokens for answer in result.contestants["tuned"]] == [20, 5]
    assert [answer.log_likelihood for answer in result.contestants["base"]] == pytest.approx(
        [-40 * math.log(2), -10 * math.log(2)]
    )


def test_a_draw_is_repeatable_and_keeps_the_order() -> None:
    items = [item(number) for number in range(50)]
    some = draw(items, 10, seed=1)
    assert [one.example.id for one in some] == [one.example.id for one in draw(items, 10, seed=1)]
    assert [one.example.id for one in some] != [one.example.id for one in draw(items, 10, seed=2)]
    numbers = [int(one.example.id.removeprefix("row-")) for one in some]
    assert len(set(numbers)) == 10
    assert numbers == sorted(numbers)
    assert draw(items, None, seed=1) == items
    assert draw(items, 50, seed=1) == items


def test_at_most_so_many_items_are_answered() -> None:
    items = [item(number) for number in range(50)]
    base, tuned = Contestant("base", ["no"]), Contestant("tuned", ["yes"])
    result = result_of(items, base, tuned, max_items=11)
    assert result.comparison.n == 11
    assert len(base.asked[0][0]) == 11


@pytest.mark.parametrize(
    ("lengths", "asked", "longest"), [([1, 4], None, 5), ([3], None, 4), ([8, 2], None, 10), ([8], 6, 6)]
)
def test_an_answer_may_be_a_quarter_longer_than_the_longest_reference(
    lengths: list[int], asked: int | None, longest: int
) -> None:
    items = [item(number, length=length) for number, length in enumerate(lengths)]
    assert longest_answer(items, EvaluateSection(max_new_tokens=asked)) == longest


def test_rows_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(FinetuneError, match="there are no test rows to evaluate on"):
        check_scorer(EvaluateSection(), [], labels=None, raw_text=False, seed=0)
    with pytest.raises(
        FinetuneError, match="json_fields cannot judge these rows: the reference 'yes' of item 'row-1' is no JSON"
    ):
        check_scorer(EvaluateSection(scorer="json_fields"), [item(1)], labels=None, raw_text=False, seed=0)
    assert check_scorer(EvaluateSection(), [item(1)], labels=["yes"], raw_text=False, seed=0).name == "label"


def test_only_the_rows_that_are_drawn_have_to_be_judged() -> None:
    items = [item(0, "no number"), *(item(number, f"{number}") for number in range(1, 20))]
    section = EvaluateSection(scorer="number", max_items=5)
    seed = next(seed for seed in range(20) if items[0] not in draw(items, 5, seed))
    assert check_scorer(section, items, labels=None, raw_text=False, seed=seed).name == "number"
