"""Micro-batches: every row once, within the limit, each position with the token it is to predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.rows import TokenRow
from finetune.data.store import Store
from finetune.training.batches import IGNORED, RowDataset, StepCollator, best_fit, first_row, lay_out, shifted_targets

LENGTHS = st.lists(st.integers(1, 60), max_size=40)
PAD = 1


def row(name: str, ids: list[int], trained: list[int]) -> TokenRow:
    return TokenRow(name, np.array(ids, dtype=np.int32), np.array(trained, dtype=bool))


THREE = [
    row("a", [10, 11, 12, 13], [0, 0, 1, 1]),
    row("b", [20, 21], [0, 1]),
    row("c", [30, 31, 32], [1, 1, 0]),
]


@settings(deadline=None)
@given(lengths=LENGTHS, limit=st.integers(1, 120), packing=st.booleans())
def test_each_row_lies_in_one_micro_batch_within_the_limit(lengths: list[int], limit: int, packing: bool) -> None:
    bins = lay_out(lengths, limit=limit, packing=packing)
    assert sorted(position for rows in bins for position in rows) == list(range(len(lengths)))
    for rows in bins:
        widths = [lengths[position] for position in rows]
        held = sum(widths) if packing else len(widths) * max(widths)
        assert held <= limit or len(rows) == 1


@settings(deadline=None)
@given(lengths=LENGTHS, limit=st.integers(1, 120))
def test_packing_takes_no_more_than_twice_the_micro_batches_that_tokens_fill(lengths: list[int], limit: int) -> None:
    count = len(lay_out(lengths, limit=limit, packing=True))
    # Of micro-batches filled by best fit no two would fit in one
    assert sum(lengths) / limit <= count or max(lengths) > limit
    assert count <= 2 * sum(lengths) / limit + 1


@pytest.mark.parametrize(
    ("lengths", "limit", "packing", "expected"),
    [
        ([5, 8, 3, 2, 6], 10, True, [[1], [4, 3], [0, 2]]),
        # Dealt out evenly this would be 6 + 3 + 2 = 11, so it stays packed tight
        ([6, 4, 3, 3, 2, 2], 10, True, [[0, 1], [2, 3, 4, 5]]),
        ([5, 8, 3, 2, 6], 12, False, [[1], [4, 0], [2, 3]]),
        ([50, 1, 1], 10, True, [[0], [1, 2]]),
        ([50, 1, 1], 10, False, [[0], [1, 2]]),
        ([7, 7, 7], 7, True, [[0], [1], [2]]),
        ([], 10, True, []),
        ([], 10, False, []),
    ],
)
def test_rows_fill_micro_batches_evenly_or_lie_with_their_like(
    lengths: list[int], limit: int, packing: bool, expected: list[list[int]]
) -> None:
    assert lay_out(lengths, limit=limit, packing=packing) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=30))
def test_targets_are_the_next_trained_tokens(tokens: list[tuple[int, bool]]) -> None:
    made = row("a", [token for token, _ in tokens], [mark for _, mark in tokens])
    targets = shifted_targets(made)
    assert targets.dtype == np.int64
    assert len(targets) == len(tokens)
    assert targets[-1] == IGNORED
    for position, (token, mark) in enumerate(tokens[1:]):
        assert targets[position] == (token if mark else IGNORED)


def test_packed_rows_lie_end_to_end_with_positions_that_begin_again() -> None:
    step = StepCollator(limit=100, packing=True, pad_id=PAD).lay_out(THREE)
    (batch,) = step["micro_batches"]
    assert batch["inputs"].keys() == {"input_ids", "position_ids"}
    assert batch["inputs"]["input_ids"].tolist() == [[10, 11, 12, 13, 30, 31, 32, 20, 21]]
    assert batch["inputs"]["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1]]
    assert batch["targets"].tolist() == [[IGNORED, 12, 13, IGNORED, 31, IGNORED, IGNORED, 21, IGNORED]]
    assert batch["lengths"] == [4, 3, 2]
    assert (step["trained_tokens"], step["tokens"], step["row_ids"]) == (4, 9, ["a", "b", "c"])


def test_padded_rows_stand_one_below_the_other() -> None:
    (batch,) = StepCollator(limit=100, packing=False, pad_id=PAD).lay_out(THREE)["micro_batches"]
    assert batch["inputs"].keys() == {"input_ids", "attention_mask"}
    assert batch["inputs"]["input_ids"].tolist() == [[10, 11, 12, 13], [30, 31, 32, PAD], [20, 21, PAD, PAD]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["targets"].tolist() == [
        [IGNORED, 12, 13, IGNORED],
        [31, IGNORED, IGNORED, IGNORED],
        [21, IGNORED, IGNORED, IGNORED],
    ]
    assert batch["lengths"] == [4, 3, 2]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    limit=st.integers(1, 60),
    packing=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_step_holds_the_same_lessons_however_it_is_laid_out(
    lengths: list[int], limit: int, packing: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = [
        row(f"row-{n}", generator.integers(2, 500, length).tolist(), (generator.random(length) < 0.5).tolist())
        for n, length in enumerate(lengths)
    ]
    step = StepCollator(limit=limit, packing=packing, pad_id=PAD).lay_out(rows)
    expected = sorted(
        (int(r.input_ids[i]), int(r.input_ids[i + 1])) for r in rows for i in range(len(r) - 1) if r.trained[i + 1]
    )
    found: list[tuple[int, int]] = []
    for batch in step["micro_batches"]:
        chosen = batch["targets"] != IGNORED
        found += zip(batch["inputs"]["input_ids"][chosen].tolist(), batch["targets"][chosen].tolist(), strict=True)
        assert batch["targets"].dtype == batch["inputs"]["input_ids"].dtype == torch.int64
    assert sorted(found) == expected
    assert step["trained_tokens"] == len(expected)
    assert step["tokens"] == sum(lengths)
    assert step["row_ids"] == [r.id for r in rows]


@pytest.mark.parametrize("packing", [True, False])
def test_a_step_made_by_the_data_loader_is_the_same(packing: bool) -> None:
    collator = StepCollator(limit=6, packing=packing, pad_id=PAD)
    loader = torch.utils.data.DataLoader(RowDataset(Store(THREE, memory=0)), batch_size=3, collate_fn=collator)
    (through,) = loader
    direct: Any = collator.lay_out(THREE)
    assert len(direct["micro_batches"]) == 2
    assert str(through) == str(direct)


def test_the_trainer_is_built_with_one_row() -> None:
    data = first_row(THREE)
    assert data["id"][:] == ["a"]
    assert data[0]["input_ids"].tolist() == THREE[0].input_ids.tolist()
    assert len(first_row(Store(THREE, memory=0))) == 1


def fitted_one_by_one(lengths: list[int], limit: int) -> list[list[int]]:
    """Best-fit decreasing as it is defined: look at every bin for every row."""
    bins: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        fitting = [(space, index) for index, space in enumerate(room) if space >= lengths[row]]
        index = min(fitting)[1] if fitting else len(bins)
        if not fitting:
            bins.append([])
            room.append(limit)
        bins[index].append(row)
        room[index] -= lengths[row]
    return bins


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 60), max_size=60), limit=st.integers(1, 80))
def test_the_fast_best_fit_is_the_plain_one(lengths: list[int], limit: int) -> None:
    assert best_fit(lengths, limit) == fitted_one_by_one(lengths, limit)


@pytest.mark.parametrize(("median", "spread"), [(150, 1.0), (300, 0.8), (60, 1.4)])
def test_packs_are_nearly_full(median: float, spread: float) -> None:
    drawn = np.random.default_rng(0).lognormal(np.log(median), spread, 20_000)
    lengths = np.clip(drawn, 4, 2048).astype(int).tolist()
    packs = best_fit(lengths, 2048)
    assert sorted(row for rows in packs for row in rows) == list(range(20_000))
    assert max(sum(lengths[row] for row in rows) for rows in packs) <= 2048
    assert sum(lengths) / (len(packs) * 2048) >= 0.99


def test_micro_batches_of_a_large_step_are_nearly_full() -> None:
    lengths = np.clip(np.random.default_rng(1).lognormal(5, 1, 2000), 4, 2048).astype(int).tolist()
    packs = lay_out(lengths, limit=2048, packing=True)
    assert sum(lengths) / (len(packs) * 2048) >= 0.97
