"""From the rows of one optimizer step to micro-batches that fit the machine.

An optimizer step always learns from exactly `batch_size` rows. How these are laid out (end to end or padded, in one
micro-batch or in many) changes speed and memory, never the sum of the losses nor its gradient.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypedDict

import datasets
import numpy as np
import torch

from finetune.data.rows import TokenRow

IGNORED = -100


class MicroBatch(TypedDict):
    """Tensors of one forward pass.

    `targets` holds at each position the token to predict next, or -100. `inputs` are the model's arguments: packed
    rows have shape (1, tokens) and `position_ids` that start again with each row, padded ones (rows, longest) and an
    `attention_mask`. `lengths` are the rows' lengths in tokens.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    lengths: list[int]


class StepBatch(TypedDict):
    """What the data loader yields: all of one optimizer step."""

    micro_batches: list[MicroBatch]
    trained_tokens: int
    tokens: int
    row_ids: list[str]


def lay_out(lengths: Sequence[int], *, limit: int, packing: bool) -> list[list[int]]:
    """Divide rows among micro-batches of at most `limit` tokens, padding included.

    Packed rows fill as few micro-batches as best-fit decreasing needs, evenly; padded ones lie with others of like
    length. A row longer than `limit` gets a micro-batch of its own.

    Returns:
        Positions in `lengths`, one list a micro-batch; each position occurs once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    if not packing:
        return _of_like_length(order, lengths, limit)
    tight = best_fit(lengths, limit)
    even = _evenly(order, lengths, len(tight))
    fits = all(len(rows) == 1 or sum(lengths[row] for row in rows) <= limit for rows in even)
    return even if fits else tight


def _of_like_length(order: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for row in order:
        # Rows come longest first, so a bin's first row gives the width of all its rows
        if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= limit:
            bins[-1].append(row)
        else:
            bins.append([row])
    return bins


def best_fit(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Pack rows into bins of `limit` tokens: the longest first, each where it leaves least room (best-fit decreasing).

    Of bins with equal room the first is taken. A row longer than `limit` gets a bin of its own. It never takes more
    than 11/9 of the bins that are needed, plus four (Johnson 1973); a row costs a few operations.

    Returns:
        Positions in `lengths`, one list a bin.
    """
    bins: list[list[int]] = []
    waiting: dict[int, list[int]] = {}
    rooms = 0  # bit n is set where a bin has room for n tokens
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[row]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            index = heapq.heappop(waiting[room])
            if not waiting[room]:
                rooms ^= 1 << room
        else:
            room, index = limit, len(bins)
            bins.append([])
        bins[index].append(row)
        left = room - length
        if left >= 0:
            heapq.heappush(waiting.setdefault(left, []), index)
            rooms |= 1 << left
    return bins


def _evenly(order: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Put each row, longest first, where least lies: a last micro-batch of few tokens costs much per token."""
    bins: list[list[int]] = [[] for _ in range(count)]
    load = [(0, index) for index in range(count)]
    for row in order:
        tokens, index = heapq.heappop(load)
        bins[index].append(row)
        heapq.heappush(load, (tokens + lengths[row], index))
    return [rows for rows in bins if rows]


def shifted_targets(row: TokenRow) -> np.ndarray:
    """Return, for each position, the next token where that one is trained, else -100 (int64)."""
    targets = np.full(len(row), IGNORED, dtype=np.int64)
    targets[:-1] = np.where(row.trained[1:], row.input_ids[1:], IGNORED)
    return targets


class StepCollator:
    """Make a StepBatch of the rows of one optimizer step."""

    def __init__(self, *, limit: int, packing: bool, pad_id: int) -> None:
        self.limit = limit
        self.packing = packing
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[TokenRow]) -> StepBatch:
        """Lay out the rows of a step, as the data loader has them from a `RowDataset`."""
        return self.lay_out(rows)

    def lay_out(self, token_rows: Sequence[TokenRow]) -> StepBatch:
        """Divide rows among micro-batches."""
        token_rows = list(token_rows)
        lengths = [len(row) for row in token_rows]
        make = _packed if self.packing else self._padded
        micro_batches = [
            make([token_rows[position] for position in positions])
            for positions in lay_out(lengths, limit=self.limit, packing=self.packing)
        ]
        return {
            "micro_batches": micro_batches,
            "trained_tokens": sum(int(row.trained[1:].sum()) for row in token_rows),
            "tokens": sum(lengths),
            "row_ids": [row.id for row in token_rows],
        }

    def _padded(self, rows: Sequence[TokenRow]) -> MicroBatch:
        width = max(len(row) for row in rows)
        input_ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        attention = np.zeros((len(rows), width), dtype=np.int64)
        targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row.input_ids
            attention[index, : len(row)] = 1
            targets[index, : len(row)] = shifted_targets(row)
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention)}
        return {"inputs": inputs, "targets": torch.from_numpy(targets), "lengths": [len(row) for row in rows]}


def _packed(rows: Sequence[TokenRow]) -> MicroBatch:
    input_ids = np.concatenate([row.input_ids for row in rows]).astype(np.int64)
    positions = np.concatenate([np.arange(len(row)) for row in rows])
    targets = np.concatenate([shifted_targets(row) for row in rows])
    inputs = {"input_ids": torch.from_numpy(input_ids)[None], "position_ids": torch.from_numpy(positions)[None]}
    return {"inputs": inputs, "targets": torch.from_numpy(targets)[None], "lengths": [len(row) for row in rows]}


class RowDataset(torch.utils.data.Dataset[TokenRow]):
    """Rows as torch's data loader reads them: one after another, from wherever they lie."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> TokenRow:
        return self._rows[index]


def first_row(rows: Sequence[TokenRow]) -> datasets.Dataset:
    """Return the first row as a dataset of the kind that TRL's trainer insists on being built with."""
    columns = {
        "id": [row.id for row in rows[:1]],
        "input_ids": [row.input_ids for row in rows[:1]],
        "trained": [row.trained for row in rows[:1]],
    }
    return datasets.Dataset.from_dict(columns).with_format("numpy")
