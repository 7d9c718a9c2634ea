"""Does a file ask the model what training asked it? Conversations of the run become tokens in both, and are compared.

A prompt that differs in one token is another prompt: a doubled begin-of-text, a missing blank, another template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Characters shown on either side of the place where two prompts part
SHOWN = 24


@dataclass(frozen=True, slots=True)
class Conversation:
    """A real conversation of the run, up to the answer.

    `messages` are what a client would send, `text` is what the trained template makes of them and `prompt` the tokens
    that training put before the answer. A raw text has no messages.
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    text: str
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parity:
    """The share of conversations with the same prompt tokens, of how many, and what is wrong with the others."""

    share: float | None
    conversations: int
    problems: tuple[str, ...]


def compare_prompts(
    conversations: Sequence[Conversation],
    texts: Sequence[str | None],
    ids: Sequence[Sequence[int]],
    *,
    bos: tuple[int, str] | None,
    who: str,
) -> Parity:
    """Compare the prompts that a file makes with those of training.

    Args:
        conversations: what was trained.
        texts: what the file's template writes; None where it refuses.
        ids: the tokens that the file's tokenizer makes of these texts.
        bos: the begin-of-text token, as id and as text, if there is one.
        who: whose template it is, for the problems: `the file's template`.
    """
    kinds: dict[str, list[str]] = {}
    for one, text, found in zip(conversations, texts, ids, strict=True):
        if tuple(found) != one.prompt or text is None:
            what, where = _difference(one, text, tuple(found), bos, who)
            kinds.setdefault(what, []).append(f"{one.id}{where}")
    wrong = sum(map(len, kinds.values()))
    total = len(conversations)
    problems = tuple(f"{what} ({len(all_)} of {total} conversations, first {all_[0]})" for what, all_ in kinds.items())
    return Parity(1 - wrong / total if total else None, total, problems)


def _difference(
    one: Conversation, text: str | None, found: tuple[int, ...], bos: tuple[int, str] | None, who: str
) -> tuple[str, str]:
    """Return what is wrong, and where in this conversation."""
    if text is None:
        return f"{who} refuses conversations that were trained", ""
    if bos is not None and found == (bos[0], *one.prompt):
        return f"the prompt begins with {bos[1]!r}, which training did not put there or put there once", ""
    if bos is not None and (bos[0], *found) == one.prompt:
        return f"the prompt lacks the {bos[1]!r} that it began with in training", ""
    begin = bos[1] if bos is not None else ""
    mine, its = one.text.removeprefix(begin), text.removeprefix(begin)
    if mine != its:
        place = next((at for at, pair in enumerate(zip(mine, its, strict=False)) if pair[0] != pair[1]), None)
        at = min(len(mine), len(its)) if place is None else place
        # Where one has stopped, the other goes on
        return f"{who} writes another prompt", f": {its[at : at + SHOWN]!r} instead of {mine[at : at + SHOWN]!r}"
    at = next((at for at, pair in enumerate(zip(one.prompt, found, strict=False)) if pair[0] != pair[1]), 0)
    return "the file's tokenizer makes other tokens of the same prompt", (
        f": {list(found[at : at + 4])} instead of {list(one.prompt[at : at + 4])} at token {at}"
    )


def compare_folder(conversations: Sequence[Conversation], tokenizer: Any, render: Callable[..., str]) -> Parity:
    """Compare the prompts that a saved tokenizer makes with those of training.

    Args:
        conversations: what was trained.
        tokenizer: loaded from the exported folder.
        render: writes messages by that tokenizer's template, with the generation prompt.
    """
    texts = [render(one.messages) if one.messages else one.text for one in conversations]
    ids = [
        tokenizer(text, add_special_tokens=not one.messages).input_ids
        for one, text in zip(conversations, texts, strict=True)
    ]
    return compare_prompts(conversations, texts, ids, bos=begin_of_text(tokenizer), who="the folder's template")


def begin_of_text(tokenizer: Any) -> tuple[int, str] | None:
    """Return a tokenizer's begin-of-text token as id and text, if it has one."""
    if tokenizer.bos_token_id is None:
        return None
    return int(tokenizer.bos_token_id), str(tokenizer.bos_token)


def missing_stops(ends: Sequence[int], stops: Sequence[int], tokenizer: Any) -> tuple[str, ...]:
    """Say of each token that trained answers end in, if nobody who serves the file would stop there.

    Args:
        ends: tokens that trained answers end in.
        stops: the file's own end-of-answer tokens.
        tokenizer: names them.
    """
    return tuple(
        f"answers were trained to end in {tokenizer.convert_ids_to_tokens(end)!r} (token {end}), which is no stop "
        "token of the file"
        for end in ends
        if end not in stops
    )
