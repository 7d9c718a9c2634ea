"""Plots: well-formed SVG that holds what was asked for, without touching matplotlib's settings."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import numpy as np
import pytest

from finetune.evaluation.reporting.plots import ForestRow, Reliability, _smoothed, forest, loss_curve, reliability

TRAIN: list[dict[str, Any]] = [{"step": step, "loss": 2.0 / step} for step in range(1, 41)]
LOOKS: list[dict[str, Any]] = [{"step": step, "eval_loss": 2.2 / step} for step in (10, 20, 30, 40)]


def words(svg: str) -> str:
    return " ".join(
        "".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    )


def row(label: str = "tuned - base", verdict: str = "better") -> ForestRow:
    return ForestRow(label=label, value=0.4, low=0.3, high=0.5, text="+0.40 [0.30, 0.50]", verdict=verdict)


def test_loss_curve_names_its_lines_and_the_kept_step() -> None:
    text = words(loss_curve(TRAIN + LOOKS, 30))
    for part in (
        "training, each step",
        "training, mean of 5 steps",
        "validation",
        "step 30 kept",
        "loss (nats a token)",
    ):
        assert part in text


def test_a_short_run_is_not_smoothed() -> None:
    text = words(loss_curve(TRAIN[:9], None))
    assert "each step" in text
    assert "mean of" not in text
    assert "kept" not in text


def test_validation_alone_can_be_drawn_and_nothing_cannot() -> None:
    assert "validation" in words(loss_curve(LOOKS, None))
    with pytest.raises(ValueError, match="no line of the metrics has a loss"):
        loss_curve([{"step": 1, "learning_rate": 0.1}], None)


def test_smoothing_keeps_a_constant_and_its_length() -> None:
    np.testing.assert_allclose(_smoothed(np.full(23, 1.5), 5), np.full(23, 1.5))
    assert _smoothed(np.arange(10.0), 5)[5] == pytest.approx(5.0)


def test_forest_says_which_side_is_better() -> None:
    text = words(forest([row(), row("other - base", "worse")], xlabel="difference in exact (share right)"))
    for part in ("tuned - base", "other - base", "+0.40 [0.30, 0.50]", "\u2190 worse", "better \u2192", "share right"):
        assert part in text
    lower = words(forest([row()], higher_is_better=False))
    assert "\u2190 better" in lower
    assert "worse \u2192" in lower


def test_names_are_no_formulas_and_no_markup() -> None:
    assert "$x^2$ <b>" in words(forest([row("$x^2$ <b>")]))


def test_light_and_dark_differ_and_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    assert forest([row()]) != forest([row()], dark=True)
    assert dict(matplotlib.rcParams) == before
    assert forest([row()]) == forest([row()])


def test_a_forest_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least one difference"):
        forest([])


def test_reliability_draws_a_line_a_contestant_and_the_diagonal() -> None:
    lines = [
        Reliability(label="base", points=((0.3, 0.2, 5), (0.7, 0.4, 9))),
        Reliability(label="$tuned$ <b>", points=((0.9, 0.8, 3),)),
    ]
    text = words(reliability(lines))
    for part in ("perfectly calibrated", "base", "$tuned$ <b>", "probability of the chosen answer", "share right"):
        assert part in text
    assert reliability(lines) == reliability(lines)
    assert reliability(lines) != reliability(lines, dark=True)
