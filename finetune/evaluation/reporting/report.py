"""The page a person reads first: `report_html(read_records(folder))`, one self-contained HTML file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.evaluation.compare import BASE
from finetune.evaluation.reporting.examples import SHOWN, SHOWN_OF_SEVERAL, examples
from finetune.evaluation.reporting.facts import duration
from finetune.evaluation.reporting.pages import picture, render
from finetune.evaluation.reporting.panels import CALIBRATION
from finetune.evaluation.reporting.plots import ForestRow, Reliability, forest, loss_curve, reliability
from finetune.evaluation.reporting.records import answers_name
from finetune.evaluation.reporting.verdicts import Outcome, verdict_after_holm
from finetune.evaluation.statistics.multiple import DISCORDANCE
from finetune.evaluation.wording import decimals, percent, rounded_up, with_interval


def report_html(records: Mapping[str, Any]) -> str:
    """Make the report of a run, trained or evaluated or exported or not.

    Args:
        records: from `read_records`.

    Returns:
        One HTML page without scripts; everything that comes from data is escaped, and nothing is loaded from outside.
    """
    said, tasks = records["said"], records["tasks"]
    views = [_task_view(task, *rows) for task, *rows in zip(tasks, said["scores"], said["panels"], strict=True)]
    return render(
        "report.html.jinja",
        name=records["name"],
        base=records["base"].get("name"),
        trained="train" in records["stages"],
        banners=_banners(records),
        sameness=(records["sameness"] or {}).get("sentence"),
        glance=_glance(tasks, said["scores"]),
        tasks=views,
        calibration=CALIBRATION,
        beside=said["beside"],
        items=_items(records),
        proofs=said["proofs"],
        curve=_curve(records),
        data=said["data"],
        problems=(records["certificate"] or {}).get("problems", ()),
        training=said["training"],
        recipe=records["recipe"],
    )


# ------------------------------------------------------------------------------------------------ what comes first


def _banners(records: Mapping[str, Any]) -> list[Outcome]:
    """The outcome in a few large blocks: verdicts, what was forgotten, leaks, proofs, or what is still missing."""
    found = list(records["said"]["outcomes"])
    if not found and "train" in records["stages"]:
        found.append(_missing("Not evaluated yet", "To compare it with its base:", "finetune evaluate RUN"))
    elif not found:
        found.append(_missing("Not trained yet", "To train it:", "finetune train RECIPE"))
    return [*found, *map(_proven, records["said"]["proofs"])]


def _missing(headline: str, text: str, command: str) -> Outcome:
    return Outcome("", "neutral", headline, text, command)


def _proven(proof: Mapping[str, Any]) -> Outcome:
    if proof["passed"]:
        return Outcome("", "good", "Shipped model verified", _proof_text(proof))
    return Outcome("", "bad", "Verification FAILED: do not ship this file", _proof_text(proof))


def _proof_text(proof: Mapping[str, Any]) -> str:
    return (
        f"{proof['sentence']} Mean KL divergence {proof['kl']} nats (bound {proof['kl_bound']}), the same likeliest "
        f"token at {proof['top1']} of {proof['positions']} positions (bound {proof['top1_bound']}), "
        f"{proof['greedy']} greedy answers equal."
    )


# ---------------------------------------------------------------------------------------------------------- scores


def _glance(tasks: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One forest plot over all tasks of a scale, for runs with several; nothing for one task."""
    if len(tasks) < 2:
        return []
    scales: dict[tuple[bool, str], list[ForestRow]] = {}
    for task, found in zip(tasks, rows, strict=True):
        row = next(one for one in found if one["label"] == f"difference, {task['subject']} - base")
        # Shares of whatever is counted lie on one scale
        scale = (task["higher_is_better"], "share" if task["higher_is_better"] else task["unit"])
        mark = ForestRow(
            label=task["task"],
            value=row["value"],
            low=row["low"],
            high=row["high"],
            text=f"{row['score']} {row['interval']}",
            verdict=verdict_after_holm(task),
        )
        scales.setdefault(scale, []).append(mark)
    return [
        {"tasks": [mark.label for mark in marks], "plot": _forest(marks, f"difference to base ({unit})", higher)}
        for (higher, unit), marks in scales.items()
    ]


def _forest(marks: Sequence[ForestRow], xlabel: str, higher_is_better: bool) -> dict[str, str]:
    return picture(
        *(forest(marks, xlabel=xlabel, higher_is_better=higher_is_better, dark=dark) for dark in (False, True))
    )


def _task_view(task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], panels: Sequence[Any]) -> dict[str, Any]:
    differences = [row for row in rows if row["kind"] == "difference"]
    named = {f"difference, {name} - base": name for name in task["comparisons"]}
    marks = [
        ForestRow(
            label=f"{named[row['label']]} - base",
            value=row["value"],
            low=row["low"],
            high=row["high"],
            text=f"{row['score']} {row['interval']}",
            verdict=task["comparisons"][named[row["label"]]]["verdict"],
        )
        for row in differences
    ]
    return {
        **task,
        "scores": [{**row, **_bar(row, rows)} for row in rows if row["kind"] != "difference"],
        "differences": differences,
        "forest": _forest(marks, f"difference in {task['scorer']} ({task['unit']})", task["higher_is_better"]),
        "planned": _planned(task),
        "fields": _field_rows(task),
        "panels": panels,
        "reliability": _reliability(task),
        "health": [_health_row(name, health, task) for name, health in task["health"].items()],
    }


def _planned(task: Mapping[str, Any]) -> str:
    """Say what the task was to show before anyone had answered."""
    planned = task.get("minimum_detectable_planned")
    if planned is None:
        return ""
    return (
        f"Before anyone had answered, {task['n']:,} items were to show a difference of {rounded_up(planned, 2)} or "
        f"more with 80 % power if the contestants differ on {percent(DISCORDANCE)} of them."
    )


def _bar(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Lengths of a score's bar in percent; the scale goes to 1, or as far as the scores do."""
    scale = max(1.0, *(other["high"] for other in rows if other["kind"] != "difference")) / 100
    return {
        "fill": f"{max(0.0, row['value']) / scale:.2f}",
        "start": f"{max(0.0, row['low']) / scale:.2f}",
        "span": f"{(row['high'] - max(0.0, row['low'])) / scale:.2f}",
    }


def _field_rows(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a JSON field: name, and for base and subject the score with its interval and a bar."""
    scores = task["field_scores"]
    names = list(dict.fromkeys(field for fields in scores.values() for field in fields))
    return [
        {
            "name": name,
            "cells": [_field_cell(scores.get(contestant, {}).get(name)) for contestant in (BASE, task["subject"])],
        }
        for name in names
    ]


def _field_cell(estimate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    low, high = estimate["interval"]
    text = with_interval(estimate["score"], (low, high), decimals((low, high)))
    row = {"kind": "field", "value": estimate["score"], "low": low, "high": high}
    return {"text": text, "n": estimate["n"], **_bar(row, [row, row])}


def _health_row(name: str, health: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of answers, which need no interval."""
    counts = {key: None if share is None else f"{round(share * task['n']):,}" for key, share in health.items()}
    seconds = task["seconds"].get(name)
    return {**counts, "name": name, "time": "" if seconds is None else duration(seconds)}


# ------------------------------------------------------------------------------------------------- items and plots


def _items(records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Examples of every task whose answers are there; fewer of each where there are several tasks."""
    answered = [(task, records["answers"][task["task"]]) for task in records["tasks"]]
    shown = SHOWN if len(answered) == 1 else SHOWN_OF_SEVERAL
    return [
        examples(task, answers, file=f"evaluation/{answers_name(task['task'])}", shown=shown)
        for task, answers in answered
        if answers
    ]


def _reliability(task: Mapping[str, Any]) -> dict[str, str] | None:
    found = {
        name: tuple((one["confidence"], one["accuracy"], one["n"]) for one in measured["bins"] if one["n"])
        for name, measured in (task.get("calibration") or {}).items()
    }
    lines = [Reliability(label=name, points=points) for name, points in found.items() if points]
    if not lines:
        return None
    return picture(*(reliability(lines, dark=dark) for dark in (False, True)))


def _curve(records: Mapping[str, Any]) -> dict[str, str] | None:
    metrics = records["metrics"]
    if not any(line.get("loss") is not None or line.get("eval_loss") is not None for line in metrics):
        return None
    kept = (records["stages"].get("train") or {}).get("kept_step")
    return picture(loss_curve(metrics, kept), loss_curve(metrics, kept, dark=True))
