"""Plots as SVG text: `loss_curve` of a training run, `forest` of paired differences; for reports and notebooks.

In a notebook: `IPython.display.SVG(loss_curve(read_metrics(path), kept_step))`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.6
"""Inches at 72 points each: the text column of the report."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a plot on a light or on a dark page; the background is the page's own."""

    text: str
    grid: str
    raw: str
    line: str
    accent: str
    good: str
    bad: str
    neutral: str


LIGHT = Palette("#52606d", "#e3e7ec", "#a9c3e6", "#2563ab", "#c2570c", "#1a7f4b", "#b42318", "#697586")
DARK = Palette("#a7b1bd", "#303844", "#3d5c85", "#74a9ec", "#f0974f", "#4cc38a", "#f47067", "#98a3b0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One paired difference: `value` with its interval `low` to `high`, and the verdict that colours it."""

    label: str
    value: float
    low: float
    high: float
    text: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How often a contestant was right in each bin of its probability: points of mean probability, share right, n."""

    label: str
    points: tuple[tuple[float, float, int], ...]


def loss_curve(metrics: Sequence[Mapping[str, Any]], kept_step: int | None, *, dark: bool = False) -> str:
    """Draw training loss (raw and smoothed) and validation loss over steps, and mark the kept step.

    The smoothed line is a centred moving average over a twentieth of the steps, at least 5; under 10 steps only the
    raw line is drawn.

    Args:
        metrics: lines of `metrics.jsonl`.
        kept_step: the step whose weights were kept, if it is known.
        dark: colours for a dark page.

    Raises:
        ValueError: no line has a loss.
    """
    train = [(line["step"], line["loss"]) for line in metrics if line.get("loss") is not None]
    validation = [(line["step"], line["eval_loss"]) for line in metrics if line.get("eval_loss") is not None]
    if not train and not validation:
        raise ValueError("no line of the metrics has a loss")
    colours = DARK if dark else LIGHT
    with _canvas(colours, height=2.9) as (figure, axes):
        if train:
            steps, losses = np.array(train, dtype=float).T
            smooth = len(losses) >= 10
            colour, width = (colours.raw, 1.0) if smooth else (colours.line, 1.8)
            axes.plot(steps, losses, label="training, each step", color=colour, linewidth=width)
            if smooth:
                window = max(5, len(losses) // 20)
                label = f"training, mean of {window} steps"
                axes.plot(steps, _smoothed(losses, window), color=colours.line, linewidth=2, label=label)
        if validation:
            axes.plot(
                *zip(*validation, strict=True),
                "o-",
                color=colours.accent,
                linewidth=1.2,
                markersize=5,
                label="validation",
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats a token)")
        axes.grid(axis="y")
        axes.margins(x=0.03)
        if kept_step is not None:
            axes.axvline(kept_step, color=colours.text, linewidth=1, linestyle=(0, (4, 3)))
            _beside(axes, kept_step, f"step {kept_step:,} kept", "right", colours)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9.5)
        return _svg(figure)


def _smoothed(values: np.ndarray[Any, Any], window: int) -> np.ndarray[Any, Any]:
    """Centred moving average; towards the ends over what there is."""
    kernel = np.ones(window)
    smoothed: np.ndarray[Any, Any] = np.convolve(values, kernel, "same") / np.convolve(
        np.ones(len(values)), kernel, "same"
    )
    return smoothed


def forest(
    rows: Sequence[ForestRow], *, xlabel: str = "difference", higher_is_better: bool = True, dark: bool = False
) -> str:
    """Draw differences with their intervals, one row each, and the line of no difference.

    Args:
        rows: the differences, on one scale.
        xlabel: what is measured, in which unit.
        higher_is_better: on which side of zero the better results lie.
        dark: colours for a dark page.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("a forest plot needs at least one difference")
    colours = DARK if dark else LIGHT
    tints = {"better": colours.good, "worse": colours.bad}
    with _canvas(colours, height=1.15 + 0.42 * len(rows)) as (figure, axes):
        axes.axvline(0, color=colours.text, linewidth=1.2)
        for position, row in enumerate(rows):
            tint = tints.get(row.verdict, colours.neutral)
            axes.plot([row.low, row.high], [position, position], color=tint, linewidth=2.6, solid_capstyle="butt")
            for end in (row.low, row.high):
                axes.plot([end, end], [position - 0.13, position + 0.13], color=tint, linewidth=2.6)
            axes.plot([row.value], [position], "D", color=tint, markersize=7)
            axes.text(
                row.value,
                position - 0.24,
                row.text,
                color=tint,
                ha="center",
                fontsize=9.5,
                weight="bold",
                parse_math=False,
            )
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.set_ylim(len(rows) - 0.5, -0.75)
        _show_zero(axes, rows)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        worse, better = ("right", "left") if higher_is_better else ("left", "right")
        for side, word in ((worse, "worse"), (better, "better")):
            _beside(
                axes,
                0,
                f"\N{LEFTWARDS ARROW} {word}" if side == "right" else f"{word} \N{RIGHTWARDS ARROW}",
                side,
                colours,
            )
        axes.set_xlabel(xlabel, parse_math=False)
        return _svg(figure)


def reliability(lines: Sequence[Reliability], *, dark: bool = False) -> str:
    """Draw the share right over the probability given, a line a contestant, and the diagonal of perfect calibration.

    Larger points stand for more answers.

    Args:
        lines: the contestants, base first; each needs at least one point.
        dark: colours for a dark page.
    """
    colours = DARK if dark else LIGHT
    with _canvas(colours, height=3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=colours.text, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        tints = (colours.neutral, colours.line, colours.accent, colours.good)
        for number, line in enumerate(lines):
            tint = tints[number % len(tints)]
            probability, right, counts = (np.array(column, dtype=float) for column in zip(*line.points, strict=True))
            axes.plot(probability, right, color=tint, linewidth=1.6, label=line.label)
            axes.scatter(probability, right, s=18 + 90 * counts / counts.max(), color=tint, zorder=3)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("probability of the chosen answer")
        axes.set_ylabel("share right")
        axes.grid()
        legend = figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9.5)
        for text in legend.get_texts():
            text.set_parse_math(False)
        return _svg(figure)


def _beside(axes: Axes, step: float, text: str, side: str, colours: Palette) -> None:
    """Write beside the top of a vertical line; `side` is that of the text which touches the line."""
    axes.annotate(
        text,
        (step, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if side == "right" else 5, -1),
        textcoords="offset points",
        ha=side,
        va="top",
        fontsize=9,
        color=colours.text,
    )


def _show_zero(axes: Axes, rows: Sequence[ForestRow]) -> None:
    """Show zero and all intervals, with room for the text above the outermost marks."""
    low, high = min(0.0, *(row.low for row in rows)), max(0.0, *(row.high for row in rows))
    room = 0.12 * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)


@contextmanager
def _canvas(colours: Palette, *, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure and its axes in the house style; matplotlib's own settings are put back afterwards."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "axes.edgecolor": colours.grid,
        "axes.labelcolor": colours.text,
        "axes.axisbelow": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica Neue", "Segoe UI", "Roboto", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 10,
        "grid.color": colours.grid,
        "legend.labelcolor": colours.text,
        "svg.fonttype": "none",
        # The same run gives the same file: ids are hashed with a fixed salt, and no date is written
        "svg.hashsalt": "finetune",
        "xtick.color": colours.text,
        "ytick.color": colours.text,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
