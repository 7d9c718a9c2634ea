"""Multiple choice by log-likelihood: the likeliest choice is a contestant's answer. `judge_choices(...)` says if right.

A choice's log-likelihood is the summed log probability of its tokens after the prompt, without the end-of-turn, as
lm-eval's `acc` and `acc_norm` take it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from finetune.data import TestItem
from finetune.data.item_choices import CHOICES, GOLD
from finetune.evaluation.scoring.scorer import Score


def continuations(item: TestItem) -> list[list[int]]:
    """Return the tokens of each choice of an item, which follow its prompt."""
    return [row.input_ids[len(item.prompt) :].tolist() for row in item.rows]


def judge_item(item: TestItem, log_likelihoods: Sequence[float], *, normalised: bool) -> Score:
    """Judge an item with choices; see `judge_choices`.

    Raises:
        ValueError: likelihoods that are none, or not one for each choice.
    """
    choices: list[str] = item.example.metadata[CHOICES]
    sizes = [len(choice.encode("utf-8", "surrogatepass")) for choice in choices]
    gold: int = item.example.metadata[GOLD]
    try:
        return judge_choices(log_likelihoods, sizes, gold, normalised)
    except ValueError as error:
        raise ValueError(f"item {item.example.id!r}: {error}") from None


def judge_choices(
    log_likelihoods: Sequence[float], lengths_in_bytes: Sequence[int], gold: int, normalised: bool
) -> Score:
    """Take the likeliest choice for the answer: 1 where it is the right one, else 0.

    Args:
        log_likelihoods: of each choice, in nats.
        lengths_in_bytes: of each choice's text in UTF-8.
        gold: place of the right choice, counted from 0.
        normalised: compare the log-likelihood for each byte of the choice, so that long choices are not at a
            disadvantage (as `acc_norm` of the LM Evaluation Harness).

    Returns:
        the score, with the place of the choice taken and the probability of each: the softmax of what was compared. Of
        equal ones the first is taken, which `tied` says.

    Raises:
        ValueError: numbers that are no log-likelihoods, an empty choice, or no such place.
    """
    if len(log_likelihoods) != len(lengths_in_bytes) or len(log_likelihoods) < 2:
        raise ValueError(f"{len(log_likelihoods)} log-likelihoods of {len(lengths_in_bytes)} choices")
    if not 0 <= gold < len(log_likelihoods):
        raise ValueError(f"choice {gold} is none of {len(log_likelihoods)}, counted from 0")
    if any(math.isnan(value) for value in log_likelihoods) or math.isinf(max(log_likelihoods)):
        raise ValueError(f"no log-likelihoods: {list(log_likelihoods)}")
    if min(lengths_in_bytes) < 1:
        raise ValueError("a choice without text")
    sizes = lengths_in_bytes if normalised else [1] * len(log_likelihoods)
    compared = [value / size for value, size in zip(log_likelihoods, sizes, strict=True)]
    best = max(compared)
    chosen = compared.index(best)
    weights = [math.exp(value - best) for value in compared]
    total = math.fsum(weights)
    detail = {"chosen": chosen, "probabilities": [weight / total for weight in weights]}
    if compared.count(best) > 1:
        detail["tied"] = compared.count(best)
    return Score(float(chosen == gold), detail)
