"""A file's answers against those that the tuned model gave: by hand, paired by id, as many items as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data import Example, Message, Origin, TestItem, TokenRow
from finetune.evaluation import make_task, score_file
from finetune.recipe import EvaluateSection
from finetune.runtimes import Generation


class Fixed:
    """Answers with given texts, in order."""

    name = "file"

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.longest = 0

    def generate(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, **_: Any) -> list[Generation]:
        self.longest = max_new_tokens
        return [Generation((1,), self.texts[prompt[0]], True) for prompt in prompts]

    def log_likelihoods(self, rows: Sequence[Any]) -> list[float]:
        raise AssertionError("not asked for")

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        raise AssertionError("not asked for")

    def size_bytes(self) -> int:
        return 0


def item(number: int) -> TestItem:
    messages = (Message("user", f"question {number}"), Message("assistant", f"answer {number}"))
    example = Example(id=f"i{number}", origin=Origin("x.jsonl", number), messages=messages)
    ids = np.arange(6, dtype=np.int32)
    row = TokenRow(id=example.id, input_ids=ids, trained=ids > 2 - number % 2)
    return TestItem(example, (number,), (row,))


ITEMS = [item(number) for number in range(40)]
RIGHT = [f"answer {number}" for number in range(40)]


def scored(texts: Sequence[str], tuned: Sequence[float], **named: Any) -> tuple[dict[str, Any], Fixed]:
    shipped = Fixed(texts)
    records = [{"id": f"i{number}", "tuned": {"score": score}} for number, score in enumerate(tuned)]
    task = make_task(
        EvaluateSection(scorer="exact"), ITEMS, train_references=[], labels=None, raw_text=False, stop=[9], seed=0
    )
    return score_file(task, shipped, records, confidence=0.95, seed=0, **named), shipped


def test_a_file_as_good_as_the_tuned_model() -> None:
    found, _ = scored(RIGHT, [1.0] * 40)
    assert (found["n"], found["tuned"], found["file"], found["difference"]) == (40, 1.0, 1.0, 0.0)
    assert found["verdict"] != "worse"
    assert found["sentence"].startswith("exact 1.00 against 1.00 of the tuned model on 40 items, difference 0.00 [")


def test_a_worse_file_is_found_out() -> None:
    found, _ = scored([*RIGHT[:20], *["nothing"] * 20], [1.0] * 40)
    assert (found["file"], found["difference"], found["verdict"]) == (0.5, -0.5, "worse")
    assert found["interval"][1] < 0
    assert found["p_value"] < 0.001


def test_items_are_paired_by_id_and_those_not_answered_are_left_out() -> None:
    found, _ = scored(RIGHT, [0.0] * 10)
    assert (found["n"], found["tuned"], found["file"], found["verdict"]) == (10, 0.0, 1.0, "better")


@pytest.mark.parametrize(("at_most", "n"), [(7, 7), (None, 40), (100, 40)])
def test_as_many_items_as_asked_for_with_the_same_room(at_most: int | None, n: int, tmp_path: Path) -> None:
    found, shipped = scored(RIGHT, [1.0] * 40, at_most=at_most)
    assert found["n"] == n
    # A quarter more than the longest reference of all items, which has 4 tokens
    assert shipped.longest == 5
