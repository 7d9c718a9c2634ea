"""What a run folder holds, read without loading a model: `read_records(folder)` feeds the report and the model card.

What is not there yet is None or empty. `said` holds the tables that page and card have in common, already in words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from finetune.errors import FinetuneError
from finetune.evaluation.reporting.facts import data_facts, proof_rows, score_rows, training_facts
from finetune.evaluation.reporting.panels import run_panels, task_panels
from finetune.evaluation.reporting.verdicts import outcomes
from finetune.recipe.tasks import HELD_OUT as HELD_OUT
from finetune.rundir import RunFolder
from finetune.tracking import read_metrics

NOTHING: dict[str, Any] = {"tasks": []}


def read_records(folder: RunFolder) -> dict[str, Any]:
    """Read everything the report and the model card are made of.

    Args:
        folder: the run, in whatever state.

    Returns:
        `name`, `identity`, `machine`, `versions`, `base`, `stages` (from the manifest), `recipe` (text), `metrics`,
        `certificate`, `tasks`, `forgetting`, `cost` and `sameness` (as `evaluation/results.json` has them), `answers`
        (records by task), `proofs`, and `said`: `outcomes` (what is said first), `scores` (a list of rows for each
        task), `panels` (a list of tables for each task), `beside` (tables of what holds for all tasks), `data`,
        `training` (name and text) and `proofs` (rows).

    Raises:
        FinetuneError: a file is damaged, or the folder has no manifest.
    """
    manifest = folder.manifest()
    results = read_results(folder)
    records: dict[str, Any] = {
        "name": folder.name,
        **{key: manifest.get(key) or {} for key in ("identity", "machine", "versions", "base", "stages")},
        "recipe": folder.recipe.read_text(encoding="utf-8") if folder.recipe.exists() else "",
        "metrics": read_metrics(folder.metrics),
        "certificate": _json(folder.data / "certificate.json", None),
        "tasks": results["tasks"],
        **{key: results.get(key) for key in ("forgetting", "cost", "sameness")},
        "answers": {task["task"]: read_answers(folder, task["task"]) for task in results["tasks"]},
        "proofs": _json(folder.exports / "verification.json", {}),
    }
    records["said"] = {
        "outcomes": outcomes(records["tasks"], records["forgetting"]),
        "scores": [score_rows(task) for task in records["tasks"]],
        "panels": [task_panels(task) for task in records["tasks"]],
        "beside": run_panels(results),
        "proofs": proof_rows(records["proofs"]),
        "data": data_facts(records["certificate"]),
        "training": training_facts(records),
    }
    return records


def read_results(folder: RunFolder) -> dict[str, Any]:
    """Return `evaluation/results.json`, without tasks where the run has not been evaluated.

    Raises:
        FinetuneError: the file is damaged.
    """
    return {**NOTHING, **_json(folder.evaluation / "results.json", NOTHING)}


def answers_name(task: str) -> str:
    """Return the file of `evaluation/` that holds a task's answers; what a file name cannot hold is written as %XX."""
    return "answers.jsonl" if task == HELD_OUT else f"answers-{quote(task, safe=' ')}.jsonl"


def read_answers(folder: RunFolder, task: str) -> list[dict[str, Any]]:
    """Return the records of the answers to a task, none where there are none.

    Raises:
        FinetuneError: the file is damaged.
    """
    return _json_lines(folder.evaluation / answers_name(task))


def _json(path: Path, absent: Any) -> Any:
    return _parsed(path, path.read_text(encoding="utf-8")) if path.exists() else absent


def _json_lines(path: Path) -> list[dict[str, Any]]:
    # Not splitlines(): U+2028 and its like stand unescaped inside JSON texts
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [_parsed(path, line, number) for number, line in enumerate(lines, 1) if line]


def _parsed(path: Path, text: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise FinetuneError(
            f"this file is damaged: {error}",
            where=f"{path}:{line}" if line else str(path),
            fix="delete it and run the stage that writes it again",
        ) from error
