"""Rows of a task to the tokens that contestants are asked: `ask_all(examples, encoder, shots, ...)`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from finetune.data.chat.encoder import ChatEncoder, Encoded
from finetune.data.item_choices import CHOICES
from finetune.data.rows import Example, Message, Rejected
from finetune.data.shots import Shots
from finetune.data.tokenising.tokenised import TestItem, ask, ask_choices, with_shots
from finetune.errors import FinetuneError

# Items whose conversations are encoded at once
_BATCH = 128


def ask_all(
    examples: Sequence[Example],
    encoder: ChatEncoder,
    shots: Shots,
    *,
    context_length: int | None,
    max_new_tokens: int | None,
) -> tuple[list[TestItem], list[Rejected]]:
    """Put the examples before every question and encode it, with its answer or with each of its choices.

    Args:
        examples: the rows, all of them conversations.
        encoder: writes conversations as the model was trained to read them.
        shots: the examples.
        context_length: longest text the model takes, in tokens; None where it does not say.
        max_new_tokens: longest answer; None asks for room for a quarter more than the item's own reference.

    Returns:
        the items, and the rows that the template refuses or that do not fit into the context.

    Raises:
        FinetuneError: there are too few examples.
    """
    items: list[TestItem] = []
    rejected: list[Rejected] = []
    for start in range(0, len(examples), _BATCH):
        for example, made in _encoded(examples[start : start + _BATCH], encoder, shots):
            if isinstance(made, TestItem):
                items.append(made)
            else:
                problem = made.problems[0]
                rejected.append(Rejected(example.origin, "refused by the chat template", problem.what, problem.fix))
    over = [_over(item, max_new_tokens, context_length) for item in items]
    rejected += [bad for bad in over if bad is not None]
    return [item for item, bad in zip(items, over, strict=True) if bad is None], rejected


def _encoded(
    examples: Sequence[Example], encoder: ChatEncoder, shots: Shots
) -> Iterator[tuple[Example, TestItem | FinetuneError]]:
    before = [shots.before(example) for example in examples]
    asked = [_conversations(example, turns) for example, turns in zip(examples, before, strict=True)]
    encoded = iter(encoder.encode_many([one for conversations in asked for one in conversations]))
    for example, turns, conversations in zip(examples, before, asked, strict=True):
        found = [next(encoded) for _ in conversations]
        refused = next((one for one in found if isinstance(one, FinetuneError)), None)
        whole = [one for one in found if isinstance(one, Encoded)]
        if refused is not None:
            yield example, refused
        elif CHOICES in example.metadata:
            yield example, ask_choices(example, whole, encoder, turns)
        else:
            yield example, ask(example, whole[0], encoder, turns)


def _conversations(example: Example, shots: Sequence[Message]) -> list[tuple[Message, ...]]:
    """The question after its examples, once with each answer whose likelihood is asked for."""
    context = tuple(replace(turn, learn=False) for turn in with_shots(example.context, shots))
    choices = example.metadata.get(CHOICES)
    if choices is None:
        return [(*context, replace(example.messages[-1], learn=True))]
    return [(*context, Message("assistant", choice)) for choice in choices]


def _over(item: TestItem, max_new_tokens: int | None, context_length: int | None) -> Rejected | None:
    """Say so where an item does not fit into the model's context."""
    longest = max(map(len, item.rows)) - len(item.prompt)
    if CHOICES not in item.example.metadata:
        longest = max(longest, max_new_tokens or math.ceil(1.25 * int(item.row.trained.sum())))
    if context_length is None or len(item.prompt) + longest <= context_length:
        return None
    detail = (
        f"{len(item.prompt):,} tokens and {longest:,} for the answer, the model takes {context_length:,} "
        f"(item {item.example.id!r})"
    )
    return Rejected(item.example.origin, "prompt longer than the context", detail)
