"""The public face for Python and notebooks: the pipeline with a live curve and tables where there is a notebook."""

from __future__ import annotations

import contextlib
import html
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import pipeline, recipe
from finetune.errors import FinetuneError
from finetune.recipe import Recipe
from finetune.results import Checked, Evaluation, Exports, RunResult
from finetune.session import Run
from finetune.tracking import Figures, read_metrics

if TYPE_CHECKING:
    from finetune.data.inspection import Inspection
    from finetune.evaluation.reporting.across import Across


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Keep libraries from drawing bars and from warning of what only we can mend; afterwards they do so again."""
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        # tqdm, when it is imported in a notebook without ipywidgets
        warnings.filterwarnings("ignore", message="IProgress not found")
        from transformers.utils import logging as transformers_logging

        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        # When it is imported it looks for optional CPU kernels, and says so when there are none
        bitsandbytes.setLevel(logging.ERROR)
        try:
            yield
        finally:
            bitsandbytes.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()


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


@calm()
def check(settings: Recipe) -> Checked:
    """Say now all that would fail later."""
    return pipeline.check(settings)


@calm()
def inspect(what: Recipe | str | Path, *, base: str | None = None, rows: int = 3) -> Inspection:
    """Look at a recipe's data, or at data without a recipe: what is counted, what is odd, what is learned.

    Args:
        what: a recipe, or a file, folder, glob or hub data set.
        base: for data without a recipe, the model whose tokens are counted.
        rows: how many training rows to show.

    Raises:
        FinetuneError: the data cannot be read or recognised, or a base beside a recipe, which names its own.
    """
    if not isinstance(what, Recipe):
        return pipeline.inspect_files(str(what), base=base, rows=rows)
    if base is not None:
        raise FinetuneError("`base` has no effect: the recipe names its base", fix="set model.base in the recipe")
    return pipeline.inspect(what, rows=rows)


@calm()
def run(settings: Recipe) -> RunResult:
    """Do the whole path: data, training, evaluation, exports, report."""
    return pipeline.run(settings, tell=print)


@calm()
def train(settings: Recipe) -> Run:
    """Prepare the data and train; in a notebook with a curve that grows, and is drawn whole at the end."""
    if not in_notebook():
        return pipeline.train(settings, tell=print)
    curve = LiveCurve()
    work = pipeline.train(settings, tell=print, watcher=curve)
    curve.draw(read_metrics(work.folder.metrics), (work.folder.finished("train") or {}).get("kept_step"))
    return work


@calm()
def evaluate(work: Run) -> Evaluation:
    """Compare the tuned model with its base on the held-out rows."""
    return pipeline.evaluate(work)


@calm()
def export(work: Run, to: str | None = None) -> Exports:
    """Write and prove the recipe's exports, or one kind such as `merged` or `merged:float16`."""
    return pipeline.export(work, to)


@calm()
def compare_runs(*folders: str | Path) -> Across:
    """Compare evaluated runs with the first of them on the test items that they have in common.

    Raises:
        FinetuneError: fewer than two runs, one that was not evaluated, or nothing that could be compared.
    """
    from finetune.evaluation.reporting.across import compare_runs as compare

    return compare(folders)


def open_run(path: str | Path) -> Run:
    """Open the run that lives in a folder."""
    return Run.open(path)


class Shown:
    """A piece of HTML that a notebook shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text


@calm()
def show_mask(settings: Recipe, rows: int = 3) -> Shown:
    """Show the first training rows as the model will see them, with what is learned in green.

    Raises:
        FinetuneError: as the data stage.
    """
    from finetune.data.view import NOT_LEARNED, STYLE, as_html

    work = Run(settings)
    legend = f'<p><span style="{STYLE}">learned</span> <span style="{NOT_LEARNED}">read, not learned</span></p>'
    shown = [
        f"<p><b>{html.escape(row.id)}</b>: {int(row.trained.sum()):,} of {len(row):,} tokens are learned</p>"
        + as_html(row, work.tokenizer)
        for row in work.data.train[:rows]
    ]
    return Shown(legend + "".join(shown))


class LiveCurve:
    """A tracker that redraws the loss curve below a notebook cell."""

    EVERY = 5

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._display: Any = None

    def log(self, step: int, figures: Figures) -> None:
        self._lines.append({"step": step, **figures})
        if len(self._lines) % self.EVERY == 0:
            self.draw(self._lines)

    def finish(self, summary: Figures) -> None:
        """Nothing to do: `train` draws the whole curve, with the steps of before an interruption."""

    def draw(self, lines: Sequence[Mapping[str, Any]], kept_step: int | None = None) -> None:
        """Draw a curve, in place of the one drawn before; nothing where no line has a loss."""
        from IPython.display import SVG, display

        from finetune.evaluation.reporting.plots import loss_curve

        if not any("loss" in line or "eval_loss" in line for line in lines):
            return
        picture = SVG(loss_curve(lines, kept_step))
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
