"""The likeliest choice is the answer: chosen, right or wrong, and with what probability."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.rows import Example, Message, Origin, TokenRow
from finetune.data.tokenising.tokenised import TestItem
from finetune.evaluation.scoring.likelihood import continuations, judge_choices, judge_item

LIKELIHOODS = st.lists(st.floats(-500, 0), min_size=2, max_size=8)


def test_the_likeliest_choice_is_the_answer() -> None:
    score = judge_choices([-1.0, -3.0, -2.0], [10, 1, 5], 0, False)
    assert score.value == 1.0
    assert score.detail["chosen"] == 0
    weights = [math.exp(-1), math.exp(-3), math.exp(-2)]
    assert score.detail["probabilities"] == pytest.approx([one / sum(weights) for one in weights])
    assert "tied" not in score.detail
    assert judge_choices([-1.0, -3.0, -2.0], [10, 1, 5], 2, False).value == 0.0


def test_lengths_are_made_up_for_by_bytes() -> None:
    # 'no' against 'certainly': -2/2 = -1 a byte, -4.5/9 = -0.5 a byte
    assert judge_choices([-2.0, -4.5], [2, 9], 1, False).detail["chosen"] == 0
    score = judge_choices([-2.0, -4.5], [2, 9], 1, True)
    assert (score.value, score.detail["chosen"]) == (1.0, 1)
    assert score.detail["probabilities"] == pytest.approx([1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-0.5))])


def test_of_equal_choices_the_first_is_taken_and_said() -> None:
    score = judge_choices([-2.0, -1.0, -1.0], [1, 1, 1], 2, False)
    assert (score.value, score.detail["chosen"], score.detail["tied"]) == (0.0, 1, 2)


def test_an_impossible_choice_is_never_taken() -> None:
    score = judge_choices([-math.inf, -700.0], [1, 1], 1, False)
    assert score.value == 1.0
    assert score.detail["probabilities"] == [0.0, 1.0]


@given(LIKELIHOODS, st.integers(0, 7), st.booleans())
def test_probabilities_are_some_and_the_choice_is_their_largest(
    values: list[float], gold: int, normalised: bool
) -> None:
    gold %= len(values)
    score = judge_choices(values, [3] * len(values), gold, normalised)
    probabilities = score.detail["probabilities"]
    assert math.fsum(probabilities) == pytest.approx(1)
    assert probabilities[score.detail["chosen"]] == max(probabilities)
    assert score.value == float(score.detail["chosen"] == gold)
    # Alike long choices are ranked alike either way
    assert score.detail["chosen"] == judge_choices(values, [3] * len(values), gold, not normalised).detail["chosen"]


@pytest.mark.parametrize(
    ("values", "sizes", "gold", "message"),
    [
        ([math.nan, -1.0], [1, 1], 0, "no log-likelihoods: [nan, -1.0]"),
        ([-math.inf, -math.inf], [1, 1], 0, "no log-likelihoods: [-inf, -inf]"),
        ([math.inf, -1.0], [1, 1], 0, "no log-likelihoods: [inf, -1.0]"),
        ([-1.0], [1], 0, "1 log-likelihoods of 1 choices"),
        ([-1.0, -1.0], [1], 0, "2 log-likelihoods of 1 choices"),
        ([-1.0, -2.0], [1, 0], 0, "a choice without text"),
        ([-1.0, -2.0], [1, 1], 2, "choice 2 is none of 2, counted from 0"),
        ([-1.0, -2.0], [1, 1], -1, "choice -1 is none of 2, counted from 0"),
    ],
)
def test_what_cannot_be_judged_is_an_error(values: list[float], sizes: list[int], gold: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        judge_choices(values, sizes, gold, False)


def test_an_item_brings_its_choices() -> None:
    choices = ["no", "über"]
    example = Example(
        id="x",
        origin=Origin("f", 1),
        messages=(Message("user", "?"), Message("assistant", "über")),
        metadata={"choices": choices, "gold": 1},
    )
    rows = tuple(
        TokenRow("x", np.array([5, 6, *tokens], dtype=np.int32), np.array([False, False, *[True] * len(tokens)]))
        for tokens in ([7], [8, 9, 10])
    )
    item = TestItem(example, (5, 6), rows)
    assert continuations(item) == [[7], [8, 9, 10]]
    # 2 and 5 bytes: -1 a byte against -0.8
    assert judge_item(item, [-2.0, -4.0], normalised=True).value == 1.0
    assert judge_item(item, [-2.0, -4.0], normalised=False).value == 0.0
    with pytest.raises(ValueError, match="item 'x': no log-likelihoods"):
        judge_item(item, [math.nan, -4.0], normalised=False)
