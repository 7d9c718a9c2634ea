"""The public face for Python and notebooks: the pipeline with a live curve and tables where there is a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune import pipeline, recipe
from finetune.recipe import Recipe
from finetune.results import Checked, Evaluation, Exports, RunResult
from finetune.session import Run
from finetune.tracking import Figures


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file.
        overrides: values by dotted key, e.g. `{"train.steps": 20}`; they win over the file's.

    Raises:
        FinetuneError: every problem of the recipe at once.
    """
    given = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    return recipe.load_recipe(path, given)


def check(settings: Recipe) -> Checked:
    """Say now all that would fail later."""
    return pipeline.check(settings)


def run(settings: Recipe) -> RunResult:
    """Do the whole path: data, training, evaluation, exports, report."""
    return pipeline.run(settings, tell=print)


def train(settings: Recipe) -> Run:
    """Prepare the data and train; in a notebook with a curve that grows."""
    return pipeline.train(settings, tell=print, watcher=LiveCurve() if in_notebook() else None)


def evaluate(work: Run) -> Evaluation:
    """Compare the tuned model with its base on the held-out rows."""
    return pipeline.evaluate(work)


def export(work: Run, to: str | None = None) -> Exports:
    """Write and prove the recipe's exports, or one kind such as `merged` or `merged:float16`."""
    return pipeline.export(work, to)


def open_run(path: str | Path) -> Run:
    """Open the run that lives in a folder."""
    return Run.open(path)


class Shown:
    """A piece of HTML that a notebook shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text


def show_mask(settings: Recipe, rows: int = 3) -> Shown:
    """Show the first training rows as the model will see them, with what is learned in green.

    Raises:
        FinetuneError: as the data stage.
    """
    from finetune.data.view import as_html

    work = Run(settings)
    return Shown("".join(as_html(row, work.tokenizer) for row in work.data.train[:rows]))


class LiveCurve:
    """A tracker that redraws the loss curve below a notebook cell."""

    EVERY = 5

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._display: Any = None

    def log(self, step: int, figures: Figures) -> None:
        self._lines.append({"step": step, **figures})
        if len(self._lines) % self.EVERY == 0:
            self._draw()

    def finish(self, summary: Figures) -> None:
        """Draw the whole curve."""
        self._draw()

    def _draw(self) -> None:
        from IPython.display import SVG, display

        from finetune.evaluation.plots import loss_curve

        picture = SVG(loss_curve(self._lines, None))
        if self._display is None:
            self._display = display(picture, display_id=True)
        else:
            self._display.update(picture)


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and shell.has_trait("kernel")
