"""Calibration figures by hand, at the edges of bins, and of contestants that are calibrated by construction."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation.statistics.calibration import calibration


def test_figures_by_hand() -> None:
    found = calibration([[0.9, 0.1], [0.85, 0.15], [0.4, 0.6], [0.3, 0.7]], [0, 1, 1, 0])
    # 0.9 and 0.85 share the bin above 0.8: 0.875 against one of two right
    assert [(one.low, one.high, one.n, one.confidence, one.accuracy) for one in found.bins] == [
        (0.5, 0.6, 1, 0.6, 1.0),
        (0.6, 0.7, 1, 0.7, 0.0),
        (0.8, 0.9, 2, pytest.approx(0.875), 0.5),
    ]
    assert found.ece == pytest.approx((0.4 + 0.7 + 2 * 0.375) / 4)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.7225 + 2 * 0.16 + 2 * 0.49) / 4)
    assert (found.n, found.accuracy) == (4, 0.5)
    assert found.confidence == pytest.approx(0.7625)


def test_sure_and_right_is_perfect_sure_and_wrong_the_worst() -> None:
    right = calibration([[1.0, 0.0]] * 20, [0] * 20)
    assert (right.ece, right.brier, right.ece_if_calibrated) == (0.0, 0.0, 0.0)
    wrong = calibration([[1.0, 0.0]] * 20, [1] * 20)
    assert (wrong.ece, wrong.brier) == (1.0, 2.0)
    assert [(one.low, one.high) for one in wrong.bins] == [(0.9, 1.0)]


def test_items_may_have_unlike_numbers_of_choices_and_ties_go_to_the_first() -> None:
    found = calibration([[0.25] * 4, [0.5, 0.5], [0.2] * 5], [0, 1, 0])
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.brier == pytest.approx((0.75 + 0.5 + 0.8) / 3)


def test_a_calibrated_contestant_shows_what_chance_shows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.dirichlet([1.0] * 4, 400)
    gold = [int(rng.choice(4, p=row)) for row in rows]
    found = calibration(rows.tolist(), gold)
    assert found.ece == pytest.approx(found.ece_if_calibrated, abs=0.025)
    assert 0.02 < found.ece_if_calibrated < 0.06
    sharper = rows**4 / (rows**4).sum(axis=1, keepdims=True)
    overconfident = calibration(sharper.tolist(), gold)
    assert overconfident.ece > 5 * overconfident.ece_if_calibrated
    assert overconfident.confidence > overconfident.accuracy + 0.2
    assert overconfident.brier > found.brier


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(2, 6), st.integers(0, 1000), st.integers(1, 20))
def test_bins_hold_every_item_once(n: int, choices: int, seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet([0.3] * choices, n)
    found = calibration(rows.tolist(), rng.integers(0, choices, n).tolist(), bins=bins)
    assert sum(one.n for one in found.bins) == n
    assert all(one.low < one.confidence <= one.high + 1e-12 for one in found.bins)
    assert found.ece == pytest.approx(sum(one.n * abs(one.confidence - one.accuracy) for one in found.bins) / n)
    assert 0 <= found.ece <= 1
    assert 0 <= found.brier <= 2
    assert json.loads(json.dumps(found.as_json(), allow_nan=False)) == found.as_json()


@pytest.mark.parametrize(
    ("probabilities", "gold", "message"),
    [
        ([], [], "needs a bin and an item with its gold index at least, not 10 bins, 0 items, 0 indexes"),
        ([[0.5, 0.5]], [], "needs a bin and an item with its gold index at least, not 10 bins, 1 items, 0 indexes"),
        ([[0.5, 0.5]], [2], "item 0 has 2 choices, none of index 2"),
        ([[0.5, 0.5]], [-1], "item 0 has 2 choices, none of index -1"),
        ([[1.0], [0.5, 0.6]], [0, 1], "probabilities of item 1 are not at least 0 with sum 1: [0.5, 0.6]"),
        ([[1.5, -0.5]], [0], "probabilities of item 0 are not at least 0 with sum 1: [1.5, -0.5]"),
    ],
)
def test_refused(probabilities: list[list[float]], gold: list[int], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        calibration(probabilities, gold)
    assert str(caught.value) == message
