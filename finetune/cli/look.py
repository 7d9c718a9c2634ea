"""`finetune data inspect`: how rows read, what is counted and found, and what will be learned in colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from finetune import pipeline
from finetune.cli.output import DONE, MENDABLE, calm_libraries, problem_lines, show
from finetune.data.inspection import Bar, Inspection
from finetune.data.view import rich_text
from finetune.errors import FinetuneError
from finetune.recipe import Recipe
from finetune.rundir import write_text

_WIDTH = 40


def look(inspection: Inspection, *, as_json: bool, page: Path | None) -> int:
    """Print an inspection, or write it as a page.

    Args:
        inspection: what was found.
        as_json: print one JSON object.
        page: the HTML file to write; None writes none.
    """
    if page is not None:
        write_text(page, inspection.page())
    if as_json:
        show(inspection.as_dict(), as_json=True, text="")
    else:
        _print(inspection)
        if page is not None:
            show(None, as_json=False, text=f"page     {page}")
    return DONE if inspection.passed else MENDABLE


def look_at(
    target: str,
    ready: Callable[[Path, list[str] | None], Recipe],
    *,
    base: str | None,
    rows: int,
    overrides: list[str] | None,
) -> Inspection:
    """Look at a recipe's data, or at data without a recipe.

    Args:
        target: a recipe, told by its ending, or data.
        ready: loads a recipe.
        base: for data without a recipe, the model whose tokens are counted.
        rows: how many training rows to show.
        overrides: values laid over the recipe's.

    Raises:
        FinetuneError: an option that has no effect on such a target, or data that cannot be read.
    """
    if target.lower().endswith((".yaml", ".yml")):
        if base is not None:
            fix = "write --set model.base=NAME"
            raise FinetuneError("--base has no effect: the recipe names its base", where="--base", fix=fix)
        return pipeline.inspect(ready(Path(target), overrides), rows=rows)
    if overrides:
        fix = "write one with: finetune init --data PATH --base NAME"
        raise FinetuneError("--set has no effect without a recipe", where="--set", fix=fix)
    calm_libraries()
    return pipeline.inspect_files(target, base=base, rows=rows)


def _print(inspection: Inspection) -> None:
    console = Console()
    for shown in inspection.examples:
        console.print(f"\n{shown.id}", style="bold", markup=False)
        console.print(rich_text(shown.pieces))
    console.print()
    for name, value in inspection.facts():
        console.print(Text(f"{name:<8} {value}" if name else f"{'':<11}{value}"))
    for line in _sources(inspection):
        console.print(Text(line))
    if inspection.histogram:
        console.print(Text("length of the training rows in tokens"))
    most = max((bar.rows for bar in inspection.histogram), default=1)
    for bar in inspection.histogram:
        console.print(Text(_bar(bar, most)))
    if inspection.problems:
        console.print(Text(problem_lines(inspection.problems)))


def _sources(inspection: Inspection) -> list[str]:
    if len(inspection.sources) < 2:
        return []
    lines = []
    for name, counts in inspection.sources.items():
        said = ", ".join(
            f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in counts.items()
        )
        lines.append(f"source   {name}: {said}")
    return lines


def _bar(bar: Bar, most: int) -> str:
    drawn = "█" * max(1 if bar.rows else 0, round(_WIDTH * bar.rows / most))
    return f"{bar.first:>9,} to {bar.last:<9,} {bar.rows:>9,} {drawn}"
