"""Prompts side by side: each way to differ has its own sentence, counted, with the first conversation named."""

from __future__ import annotations

import pytest

from finetune.exporting.prompts import Conversation, Parity, compare_prompts, missing_stops
from tests.tiny import tiny_tokenizer

BOS = (1, "<s>")
ONE = Conversation("a", ({"role": "user", "content": "Hi"},), "<s>[Hi]", (1, 7, 8))
OTHER = Conversation("b", ({"role": "user", "content": "Ho"},), "<s>[Ho]", (1, 7, 9))


def compared(text: str | None, ids: list[int]) -> Parity:
    return compare_prompts([ONE, OTHER], [text, "[Ho]"], [ids, [1, 7, 9]], bos=BOS, who="the file's template")


def test_equal_prompts_have_no_problem() -> None:
    assert compared("[Hi]", [1, 7, 8]) == Parity(1.0, 2, ())
    # The text may or may not begin with what the tokenizer puts there
    assert compared("<s>[Hi]", [1, 7, 8]) == Parity(1.0, 2, ())


@pytest.mark.parametrize(
    ("text", "ids", "problem"),
    [
        ("<s>[Hi]", [1, 1, 7, 8], "the prompt begins with '<s>', which training did not put there or put there once"),
        ("[Hi]", [7, 8], "the prompt lacks the '<s>' that it began with in training"),
        (None, [], "the file's template refuses conversations that were trained"),
        ("[Hi]\n", [1, 7, 8, 3], "the file's template writes another prompt: '\\n' instead of ''"),
        ("[hi]", [1, 5, 8], "the file's template writes another prompt: 'hi]' instead of 'Hi]'"),
        (
            "[Hi]",
            [1, 5, 6, 8],
            "the file's tokenizer makes other tokens of the same prompt: [5, 6, 8] instead of [7, 8] at token 1",
        ),
    ],
)
def test_each_difference_is_named(text: str | None, ids: list[int], problem: str) -> None:
    found = compared(text, ids)
    what, _, where = problem.partition(": ")
    assert found == Parity(0.5, 2, (f"{what} (1 of 2 conversations, first a{where and ': ' + where})",))


def test_differences_of_one_kind_are_counted() -> None:
    found = compare_prompts([ONE, OTHER], ["[Hi]", "[Ho]"], [[7, 8], [7, 9]], bos=BOS, who="x")
    assert found.problems == (
        "the prompt lacks the '<s>' that it began with in training (2 of 2 conversations, first a)",
    )
    assert (found.share, found.conversations) == (0.0, 2)


def test_without_conversations_nothing_is_claimed() -> None:
    assert compare_prompts([], [], [], bos=None, who="x") == Parity(None, 0, ())


def test_stops_that_are_missing_are_named() -> None:
    tokenizer = tiny_tokenizer()
    assert missing_stops([3], [0, 3], tokenizer) == ()
    assert missing_stops([0, 3], [0], tokenizer) == (
        "answers were trained to end in '<|im_end|>' (token 3), which is no stop token of the file",
    )
