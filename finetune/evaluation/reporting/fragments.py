"""An evaluation as a piece of HTML for a notebook's page: `evaluation_fragment(results)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.evaluation.reporting.facts import score_rows
from finetune.evaluation.reporting.pages import render
from finetune.evaluation.reporting.panels import Panel, run_panels, task_panels
from finetune.evaluation.reporting.verdicts import outcomes


def evaluation_fragment(results: Mapping[str, Any]) -> str:
    """Return the verdicts and the tables of an evaluation; everything in it is escaped.

    Args:
        results: what `evaluation/results.json` holds, of this or an older version.
    """
    tables = [table for task in results["tasks"] for table in (_scores(task), *task_panels(task))]
    return render(
        "fragment.html.jinja",
        sentences=[outcome.text for outcome in outcomes(results["tasks"], results.get("forgetting"))],
        tables=[*tables, *run_panels(results)],
    )


def _scores(task: Mapping[str, Any]) -> Panel:
    return Panel(
        title="",
        head=(str(task["scorer"]), "score", f"interval ({task['confidence']:.0%})"),
        rows=tuple((row["label"], row["score"], row["interval"]) for row in score_rows(task)),
    )
