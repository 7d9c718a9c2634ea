"""Rows of tokens that a model goes on with together, keys and values kept: `begin`, then `extend` as often as wanted.

What all rows start with is computed once (`shared_start`). Every token is given its position, so that columns which
no row needs can be left out and rows can join others that are further on.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

# Columns that a buffer of keys grows by
ROOM = 64
# A shorter common start is not worth a computation of its own
SHORTEST_START = 8


def takes_rows(model: Any) -> bool:
    """Whether a model can be gone on with like this: plain attention over everything, at positions that we say."""
    base = _base(model)
    takes = inspect.signature(base.forward).parameters
    if not {"input_ids", "attention_mask", "position_ids", "past_key_values", "logits_to_keep"} <= set(takes):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=base.config).layers or [None])


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def keeps_logits(model: Any) -> bool:
    """Whether a model can be asked for the logits of the last positions alone."""
    return "logits_to_keep" in inspect.signature(_base(model).forward).parameters


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values in buffers with room at the end: one token more does not copy all that went before."""

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < end:
            self._buffers = (self._grown(self.keys, key_states, end), self._grown(self.values, value_states, end))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def _grown(self, old: torch.Tensor, new: torch.Tensor, end: int) -> torch.Tensor:
        buffer = new.new_empty((*new.shape[:-2], end + ROOM, new.shape[-1]))
        if old.numel():
            buffer[..., : old.shape[-2], :] = old
        return buffer


@dataclass(frozen=True, slots=True)
class CachedRows:
    """Rows at one point of going on: what is kept of them, and the logits after their last tokens.

    Attributes:
        cache: keys and values.
        mask: which columns each row sees, [rows, columns].
        lengths: tokens of each row so far.
        logits: float or the model's own format, [rows, vocabulary].
    """

    cache: Cache
    mask: torch.Tensor
    lengths: torch.Tensor
    logits: torch.Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Columns that are kept."""
        return int(self.mask.shape[1])

    def picked(self, rows: torch.Tensor) -> CachedRows:
        """Return some of the rows, in that order and as often as they are named, without columns that none sees."""
        mask = self.mask[rows]
        columns = mask.any(0)
        whole = bool(columns.all())
        layers = []
        for layer in self.cache.layers:
            keys, values = layer.keys[rows], layer.values[rows]
            layers.append(_Layer(keys, values) if whole else _Layer(keys[..., columns, :], values[..., columns, :]))
        return CachedRows(Cache(layers=layers), mask[:, columns], self.lengths[rows], self.logits[rows])

    def joined(self, other: CachedRows) -> CachedRows:
        """Return these rows and then the other's; the narrower side gets columns in front that no row sees."""
        width = max(self.width, other.width)
        layers: list[Any] = [
            _Layer(
                torch.cat([_in_front(mine.keys, width), _in_front(its.keys, width)]),
                torch.cat([_in_front(mine.values, width), _in_front(its.values, width)]),
            )
            for mine, its in zip(self.cache.layers, other.cache.layers, strict=True)
        ]
        mask = [torch.nn.functional.pad(one.mask, (width - one.width, 0)) for one in (self, other)]
        return CachedRows(
            Cache(layers=layers),
            torch.cat(mask),
            torch.cat([self.lengths, other.lengths]),
            torch.cat([self.logits, other.logits]),
        )


def _in_front(states: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))


def shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts start with, at most all but the last token of each; 0 where few."""
    if len(prompts) < 2:
        return 0
    shortest = min(map(len, prompts)) - 1
    alike = (len(set(column)) == 1 for column in zip(*prompts, strict=False))
    common = next((place for place, same in enumerate(alike) if not same or place == shortest), shortest)
    return common if common >= SHORTEST_START else 0


def begin(model: Any, prompts: Sequence[Sequence[int]], pad: int, start: CachedRows | None = None) -> CachedRows:
    """Read prompts.

    Args:
        model: the model.
        prompts: token ids, one list a row, at least one token each; without the common start where there is one.
        pad: the token that fills up rows; nothing sees it.
        start: what all prompts start with, read before as one row.
    """
    width = max(map(len, prompts))
    device = next(model.parameters()).device
    ids = torch.full((len(prompts), width), pad)
    seen = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        seen[row, width - len(prompt) :] = 1
    return extend(model, _before(model, len(prompts), start, device), ids.to(device), seen.to(device))


def _before(model: Any, count: int, start: CachedRows | None, device: torch.device) -> CachedRows:
    """Return rows that have read nothing, or the common start."""
    if start is None:
        layers = [_Layer() for _ in DynamicCache(config=_base(model).config).layers]
        nothing = torch.zeros(count, dtype=torch.long, device=device)
        return CachedRows(Cache(layers=layers), nothing[:, None][:, :0], nothing, nothing)
    kept = [
        _Layer(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1))
        for layer in start.cache.layers
    ]
    return CachedRows(
        Cache(layers=kept), start.mask.expand(count, -1), start.lengths.expand(count), start.logits.expand(count, -1)
    )


def extend(model: Any, rows: CachedRows, ids: torch.Tensor, seen: torch.Tensor | None = None) -> CachedRows:
    """Go on with one column of tokens or more; the rows given must not be used any more.

    Args:
        model: the model.
        rows: the rows so far.
        ids: the tokens, [rows, columns]; the last column has a token of every row.
        seen: which of them are tokens and not padding; unset means all.
    """
    logits, mask, lengths = _forward(model, rows, ids, seen, last=True)
    return CachedRows(rows.cache, mask, lengths, logits[:, -1])


def logits_after(model: Any, rows: CachedRows, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Go on with columns of tokens and return the logits after each, [rows, columns, vocabulary]; ends the rows."""
    return _forward(model, rows, ids, seen, last=False)[0]


def _forward(
    model: Any, rows: CachedRows, ids: torch.Tensor, seen: torch.Tensor | None, *, last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    seen = torch.ones_like(ids) if seen is None else seen
    mask = torch.cat([rows.mask, seen], dim=1)
    positions = (rows.lengths[:, None] + seen.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=rows.cache,
        use_cache=True,
        logits_to_keep=1 if last else 0,
    )
    return output.logits, mask, rows.lengths + seen.sum(1)
