"""Log probabilities of tokens in a transformers model: of marked tokens in rows, and of continuations of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from finetune.hardware import release_freed_memory
from finetune.runtimes.cached_rows import CachedRows, begin, keeps_logits, logits_after, shared_start
from finetune.runtimes.protocol import Continuation

Tokens = Sequence[int]
# Log probabilities of tokens, [tokens] on the CPU, and whether each is the likeliest of its place
Chosen = tuple[torch.Tensor, bool]
# Rows computed together are at least this long, as a share of the longest; shorter ones would be mostly padding
ALIKE = 0.8
# but fewer tokens than this are not worth a computation of their own
ENOUGH = 256


def score_rows(
    model: Any,
    rows: Sequence[tuple[Tokens, Sequence[bool]]],
    batches: Callable[[Sequence[int]], Iterable[Sequence[int]]],
    pad: int,
    *,
    sparing: bool = True,
) -> list[Chosen]:
    """Score the marked tokens of rows; the first token of a row has nothing before it and is never scored.

    Args:
        model: in evaluation mode, without gradients.
        rows: token ids, and which of them are marked.
        batches: divides rows of these lengths into positions that are computed together.
        pad: the token that fills up rows.
        sparing: make no logits before the first marked token, which can change the last bit of the others.
    """
    found: list[Chosen] = [(torch.zeros(0), True) for _ in rows]
    places = [np.flatnonzero(np.asarray(marks, dtype=bool)[1:]) for _, marks in rows]
    asked = [index for index, some in enumerate(places) if len(some)]
    device = next(model.parameters()).device
    # The last token of a row is only predicted
    for numbers in batches([len(rows[index][0]) - 1 for index in asked]):
        batch = [asked[number] for number in numbers]
        whole = [np.asarray(rows[index][0], dtype=np.int64) for index in batch]
        # Nothing is behind padding on the right, so that no mask is needed
        ids, _ = right_padded([one[:-1] for one in whole], pad)
        first = min(int(places[index][0]) for index in batch) if sparing and keeps_logits(model) else 0
        kept = {"logits_to_keep": ids.shape[1] - first} if first else {}
        logits = model(input_ids=ids.to(device), use_cache=False, **kept).logits
        for row, index in enumerate(batch):
            following = torch.tensor(whole[row][1:][places[index]])
            found[index] = _chosen(logits[row, torch.tensor(places[index] - first, device=device)], following)
    return found


def score_after(
    model: Any,
    prompts: Sequence[Tokens],
    continuations: Sequence[Sequence[Tokens]],
    pad: int,
    *,
    rows: int,
    tokens: int,
) -> list[list[Continuation]]:
    """Read each prompt once, and what all start with once, and go on with a prompt's continuations side by side.

    Args:
        model: one that `takes_rows`, in evaluation mode, without gradients.
        prompts: token ids, one or more a prompt.
        continuations: those of each prompt, of one token or more.
        pad: the token that fills up rows.
        rows: continuations computed at once at the most.
        tokens: tokens kept at once at the most.
    """
    found: list[list[Continuation]] = [[] for _ in prompts]
    common = shared_start(prompts)
    start = begin(model, [prompts[0][:common]], pad) if common else None
    for batch in _families(prompts, continuations, common, rows, tokens):
        read = begin(model, [prompts[index][common:] for index in batch], pad, start)
        asked = [(place, one) for place, index in enumerate(batch) for one in continuations[index]]
        for (place, _), (figures, greedy) in zip(asked, _gone_on(model, read, asked, pad), strict=True):
            found[batch[place]].append(Continuation(float(figures.sum()), greedy))
        release_freed_memory()
    return found


def _gone_on(model: Any, read: CachedRows, asked: Sequence[tuple[int, Tokens]], pad: int) -> Iterator[Chosen]:
    """Yield the figures of each (row that was read, continuation)."""
    after: dict[int, torch.Tensor] = {}
    device = read.mask.device
    for numbers in _alike([len(one) - 1 for _, one in asked]):
        ids, seen = right_padded([asked[number][1][:-1] for number in numbers], pad)
        picked = read.picked(torch.tensor([asked[number][0] for number in numbers], device=device))
        after |= zip(numbers, logits_after(model, picked, ids.to(device), seen.to(device)), strict=True)
    for number, (place, one) in enumerate(asked):
        logits = read.logits[place, None]
        if number in after:
            logits = torch.cat([logits, after[number][: len(one) - 1]])
        yield _chosen(logits, torch.tensor(one))


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield positions of like lengths together, longest first and without those of nothing: padding costs as well."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batch and _too_unlike(lengths[index], lengths[batch[0]], len(batch)):
            yield batch
            batch = []
        if lengths[index]:
            batch.append(index)
    if batch:
        yield batch


def _too_unlike(length: int, longest: int, rows: int) -> bool:
    return length < ALIKE * longest and rows * longest >= ENOUGH


def _families(
    prompts: Sequence[Tokens], continuations: Sequence[Sequence[Tokens]], common: int, rows: int, tokens: int
) -> Iterator[list[int]]:
    """Yield positions of prompts that are alike without their common start, as many as can be gone on with at once."""
    batch: list[int] = []
    count = width = 0
    for index in sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index)):
        more = len(continuations[index])
        wide = len(prompts[index]) + max(map(len, continuations[index]), default=0)
        full = count + more > rows or (count + more) * max(width, wide) > tokens
        if batch and (full or _too_unlike(len(prompts[index]) - common, len(prompts[batch[0]]) - common, len(batch))):
            yield batch
            batch, count, width = [], 0, 0
        batch.append(index)
        count, width = count + more, max(width, wide)
    if batch:
        yield batch


def _chosen(logits: torch.Tensor, following: torch.Tensor) -> Chosen:
    """Score tokens under the logits of one row, [tokens, vocabulary].

    A row at a time: a whole batch of float32 log probabilities would double the peak memory.
    """
    scores = torch.log_softmax(logits.float(), dim=-1)
    following = following.to(scores.device)
    greedy = bool((scores.argmax(-1) == following).all())
    return scores.gather(1, following[:, None])[:, 0].cpu(), greedy


def right_padded(rows: Sequence[Tokens | np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay rows under each other: their ids, and which places hold tokens."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    seen = torch.zeros((len(rows), width), dtype=torch.long)
    for row, some in enumerate(rows):
        ids[row, : len(some)] = torch.tensor(some)
        seen[row, : len(some)] = 1
    return ids, seen
