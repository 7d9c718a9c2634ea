"""Greedy decoding of many prompts: `answers(...)`. Rows that have ended make room at once for prompts that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune.runtimes.cached_rows import CachedRows, begin, extend, shared_start
from finetune.runtimes.protocol import cut_at

# Ended rows are computed on until they are this share of all: taking them out copies what the others have read
ENDED = 8
# Waiting prompts join when there is room for this share of the rows: reading them holds up the others
JOINING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far and how wide to decode.

    Attributes:
        longest: tokens of an answer at the most.
        rows: rows computed at once at the most.
        tokens: tokens, read and still to be said, that are kept of all rows together at the most.
    """

    longest: int
    rows: int
    tokens: int

    def room(self, width: int) -> int:
        """Return how many rows of so many tokens fit."""
        return max(1, min(self.rows, self.tokens // (width + self.longest)))


@dataclass(slots=True)
class _Answers:
    """Rows on their way: which prompt each is of (None where it has ended) and what it has said."""

    rows: CachedRows
    prompts: list[int | None]
    said: list[list[int]] = field(default_factory=list)

    @property
    def running(self) -> list[int]:
        return [row for row, prompt in enumerate(self.prompts) if prompt is not None]

    def without_ended(self) -> _Answers:
        running = self.running
        rows = self.rows.picked(torch.tensor(running, device=self.rows.mask.device))
        return _Answers(rows, [self.prompts[row] for row in running], [self.said[row] for row in running])

    def joined(self, other: _Answers) -> _Answers:
        return _Answers(self.rows.joined(other.rows), self.prompts + other.prompts, self.said + other.said)


def answers(
    model: Any,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    pad: int,
    ends: Callable[[list[int]], bool],
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yield, step by step, the answers that have ended: positions of prompts and the tokens said, the last included.

    Args:
        model: in evaluation mode, without gradients.
        prompts: token ids.
        limits: how far and how wide.
        pad: the token that fills up rows.
        ends: whether these tokens end an answer.
    """
    common = shared_start(prompts)
    start = begin(model, [prompts[0][:common]], pad) if common else None
    waiting = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    going: _Answers | None = None
    while waiting or going is not None:
        going = _filled(model, going, waiting, prompts, common, start, limits, pad)
        following = going.rows.logits.argmax(-1)
        ended = _said(going, following.tolist(), limits.longest, ends)
        if ended:
            yield ended
        left = going.running
        if not left:
            going = None
        elif (len(going.prompts) - len(left)) * ENDED >= len(going.prompts):
            following = following[torch.tensor(left, device=following.device)]
            going = going.without_ended()
        if going is not None:
            going.rows = extend(model, going.rows, following[:, None])


def _filled(
    model: Any,
    going: _Answers | None,
    waiting: list[int],
    prompts: Sequence[Sequence[int]],
    common: int,
    start: CachedRows | None,
    limits: Limits,
    pad: int,
) -> _Answers:
    """Let waiting prompts join, taking them off the list, where there is room for enough of them."""
    if going is not None and not waiting:
        return going
    width = max(len(prompts[waiting[0]]), 0 if going is None else going.rows.width)
    fitting = limits.room(width)
    room = fitting if going is None else fitting - len(going.prompts)
    if going is not None and room * JOINING < min(fitting, len(waiting) * JOINING):
        return going
    chosen, waiting[:] = waiting[:room], waiting[room:]
    rows = begin(model, [prompts[index][common:] for index in chosen], pad, start)
    joining = _Answers(rows, list(chosen), [[] for _ in chosen])
    return joining if going is None else going.joined(joining)


def _said(
    going: _Answers, following: list[int], longest: int, ends: Callable[[list[int]], bool]
) -> list[tuple[int, list[int]]]:
    """Note what each row says next and return the answers that are complete."""
    ended = []
    for row in going.running:
        said, prompt = going.said[row], going.prompts[row]
        said.append(following[row])
        if prompt is not None and (len(said) >= longest or ends(said)):
            ended.append((prompt, said))
            going.prompts[row] = None
    return ended


def ender(stop: Sequence[int], until: Sequence[str], decode: Callable[[list[int]], str]) -> Callable[[list[int]], bool]:
    """Return what tells whether the last of some tokens ends an answer: a stop token, or the end of a stop text."""
    stops = set(stop)
    # A token has a byte or more, so that a stop text lies in as many of the last tokens; one more may be cut open
    reach = max((len(text.encode()) for text in until), default=0) + 1

    def ends(said: list[int]) -> bool:
        return said[-1] in stops or bool(until and cut_at(decode(said[-reach:]), until) is not None)

    return ends
