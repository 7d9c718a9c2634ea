"""Few-shot examples: drawn by seed, all labels alike, never the item itself."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.rows import Example, Message, Origin
from finetune.data.shots import Shots, question_key
from finetune.errors import FinetuneError


def example(number: int, *, label: str | None = None, question: str = "", **metadata: int) -> Example:
    asked = question or f"Question {number}?"
    turns = (Message("system", "S"), Message("user", asked), Message("assistant", f"answer {number}"))
    return Example(id=f"e{number}", origin=Origin("f", number), messages=turns, label=label, metadata=dict(metadata))


def ids(shots: Shots) -> list[str]:
    return [one.id for one in shots.examples]


@given(count=st.integers(0, 12), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_the_draw_depends_on_content_and_seed_alone(count: int, seed: int, order: random.Random) -> None:
    pool = [example(number, label="ab"[number % 2]) for number in range(20)]
    drawn = ids(Shots(pool, count, seed, where="w"))
    assert len(drawn) == len(set(drawn)) == count
    order.shuffle(pool)
    assert ids(Shots(pool, count, seed, where="w")) == drawn
    # More examples begin with the fewer ones
    assert ids(Shots(pool, count + 1, seed, where="w"))[:count] == drawn
    labels = Counter(one.label for one in Shots(pool, count, seed, where="w").examples)
    assert abs(labels["a"] - labels["b"]) <= 1


def test_other_seeds_draw_others() -> None:
    pool = [example(number) for number in range(50)]
    assert len({tuple(ids(Shots(pool, 3, seed, where="w"))) for seed in range(20)}) > 15


@given(st.integers(0, 19), st.integers(1, 19))
def test_no_item_is_shown_to_itself(number: int, count: int) -> None:
    pool = [example(place) for place in range(20)]
    shots = Shots(pool, count, 0, where="w")
    item = example(99, question=f"  QUESTION {number}? ")
    turns = shots.before(item)
    assert [turn.role for turn in turns] == ["user", "assistant"] * count
    assert not any(turn.learn for turn in turns)
    assert f"Question {number}?" not in [turn.content for turn in turns]
    assert shots.replaced == (f"e{number}" in ids(shots))


def test_a_question_that_occurs_twice_is_drawn_once() -> None:
    pool = [example(number, question=f"Same {number // 2}?") for number in range(10)]
    shots = Shots(pool, 4, 0, where="w")
    assert len({question_key(one) for one in shots.examples}) == 4
    with pytest.raises(FinetuneError, match="6 examples are asked for, and there are only 5 different ones"):
        Shots(pool, 6, 0, where="w")
    full = Shots(pool, 5, 0, where="w")
    with pytest.raises(FinetuneError, match="5 examples are asked for, and there are only 4 different ones"):
        full.before(pool[0])


def test_right_choices_are_shown_in_all_places() -> None:
    pool = [example(number, gold=0 if number < 40 else number % 4) for number in range(60)]
    shots = Shots(pool, 8, 0, where="w")
    assert Counter(one.metadata["gold"] for one in shots.examples) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_none_are_drawn_where_none_are_asked_for() -> None:
    assert Shots([], 0, 0, where="w").examples == ()
    assert Shots([], 0, 0, where="w").before(example(1)) == ()
