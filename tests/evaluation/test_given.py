"""Answers that are kept as they come: stopped anywhere and taken up again, they are those of one go."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from finetune.data import Example, Message, Origin, TestItem, TokenRow
from finetune.evaluation import given as module
from finetune.evaluation.compare import Answer
from finetune.evaluation.given import Given, portions_of


def item(number: int) -> TestItem:
    messages = (Message("user", f"question {number}"), Message("assistant", "yes"))
    example = Example(id=f"i{number}", origin=Origin("x.jsonl", number), messages=messages)
    row = TokenRow(id=example.id, input_ids=np.arange(4, dtype=np.int32), trained=np.arange(4) > 2)
    return TestItem(example, (number,) * (1 + number % 5), (row,))


ITEMS = [item(number) for number in range(23)]


class Asked:
    """Answers, counts what it was asked, and breaks off before a given portion."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.portions: list[list[str]] = []
        self.stop_before = stop_before

    def __call__(self, places: Sequence[int], watch: Callable[[int], None]) -> list[Answer]:
        items = [ITEMS[place] for place in places]
        if self.stop_before == len(self.portions):
            raise KeyboardInterrupt
        self.portions.append([one.example.id for one in items])
        watch(len(items))
        return [
            Answer(item_id=one.example.id, prompt_hash="p", text="\u2028 yes", ended=True, tokens=1, score=1.0)
            for one in items
        ]


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTION", 5)


def test_all_are_answered_in_order_by_portions_of_like_length(tmp_path: Path) -> None:
    asked, seen = Asked(), []
    answers, seconds = Given(tmp_path / "g.jsonl", "f").complete(portions_of(ITEMS), asked, seen.append)
    assert [one.item_id for one in answers] == [one.example.id for one in ITEMS]
    assert list(map(len, asked.portions)) == [5, 5, 5, 5, 3]
    assert seen == [5, 10, 15, 20, 23]
    assert seconds > 0


@pytest.mark.parametrize("stopped", [0, 1, 4])
def test_stopped_and_taken_up_again_equals_one_go(tmp_path: Path, stopped: int) -> None:
    path = tmp_path / "g.jsonl"
    first, second, whole = Asked(stop_before=stopped), Asked(), Asked()
    with pytest.raises(KeyboardInterrupt):
        Given(path, "f").complete(portions_of(ITEMS), first, None)
    answers, _ = Given(path, "f").complete(portions_of(ITEMS), second, None)
    assert answers == Given(tmp_path / "other.jsonl", "f").complete(portions_of(ITEMS), whole, None)[0]
    assert first.portions + second.portions == whole.portions
    again = Asked()
    assert Given(path, "f").complete(portions_of(ITEMS), again, None)[0] == answers
    assert again.portions == []


def test_a_torn_last_line_is_answered_again(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    answers, _ = Given(path, "f").complete(portions_of(ITEMS), Asked(), None)
    whole = path.read_text("utf-8")
    for cut in range(1, len(whole), 97):
        path.write_text(whole[:cut], "utf-8")
        asked = Asked()
        assert Given(path, "f").complete(portions_of(ITEMS), asked, None)[0] == answers
        assert len(asked.portions) == 5 - max(0, whole[:cut].count("\n") - 1)
        assert json.loads(path.read_text("utf-8").partition("\n")[0]) == {"fingerprint": "f"}


def test_answers_of_something_else_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    Given(path, "f").complete(portions_of(ITEMS), Asked(), None)
    asked = Asked()
    Given(path, "other weights").complete(portions_of(ITEMS), asked, None)
    assert len(asked.portions) == 5
