"""The page a person reads first: `report_html(read_records(folder))`, one self-contained HTML file without scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from finetune.evaluation.compare import BASE
from finetune.evaluation.facts import duration
from finetune.evaluation.plots import ForestRow, forest, loss_curve
from finetune.evaluation.wording import decimals, percent, with_interval

SHOWN = 8
"""Items shown of each sort."""
LONGEST_ANSWER = 1_500
LONGEST_PROMPT = 6_000
"""Characters shown; the rest is in evaluation/answers.jsonl."""

TONES = {"better": "good", "worse": "bad"}
HEADLINES = {
    "better": "Better than its base",
    "worse": "Worse than its base",
    "no detectable difference": "No detectable difference",
    "too few items to tell": "Too few items to tell",
}


def report_html(records: Mapping[str, Any]) -> str:
    """Make the report of a run, trained or evaluated or exported or not.

    Args:
        records: from `read_records`.

    Returns:
        One HTML page without scripts; everything that comes from data is escaped, and nothing is loaded from outside.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    source = resources.files("finetune.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    said = records["said"]
    return environment.from_string(source).render(
        name=records["name"],
        base=records["base"].get("name"),
        trained="train" in records["stages"],
        banners=_banners(records),
        tasks=[_task_view(task, rows) for task, rows in zip(records["tasks"], said["scores"], strict=True)],
        items=_items(records["tasks"][0], records["answers"]) if records["tasks"] and records["answers"] else None,
        proofs=said["proofs"],
        curve=_curve(records),
        data=said["data"],
        problems=(records["certificate"] or {}).get("problems", ()),
        training=said["training"],
        recipe=records["recipe"],
    )


# ------------------------------------------------------------------------------------------------ what comes first


def _banners(records: Mapping[str, Any]) -> list[dict[str, str]]:
    """The outcome in a few large blocks: a verdict a task, a proof a file, or what is still missing."""
    found = [
        _banner(TONES.get(task["verdict"], "neutral"), HEADLINES[task["verdict"]], task["sentence"])
        for task in records["tasks"]
    ]
    if not found and "train" in records["stages"]:
        found.append(_banner("neutral", "Not evaluated yet", "To compare it with its base:", "finetune evaluate RUN"))
    elif not found:
        found.append(_banner("neutral", "Not trained yet", "To train it:", "finetune train RECIPE"))
    for proof in records["said"]["proofs"]:
        if proof["passed"]:
            found.append(_banner("good", "Shipped model verified", _proof_text(proof)))
        else:
            found.append(_banner("bad", "Verification FAILED: do not ship this file", _proof_text(proof)))
    return found


def _banner(tone: str, headline: str, text: str, command: str = "") -> dict[str, str]:
    return {"tone": tone, "headline": headline, "text": text, "command": command}


def _proof_text(proof: Mapping[str, Any]) -> str:
    return (
        f"{proof['sentence']} Mean KL divergence {proof['kl']} nats (bound {proof['kl_bound']}), the same likeliest "
        f"token at {proof['top1']} of {proof['positions']} positions (bound {proof['top1_bound']}), "
        f"{proof['greedy']} greedy answers equal."
    )


# ---------------------------------------------------------------------------------------------------------- scores


def _task_view(task: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
    xlabel = f"difference in {task['scorer']} ({task['unit']})"
    return {
        **task,
        "scores": [{**row, **_bar(row, rows)} for row in rows if row["kind"] != "difference"],
        "differences": differences,
        "forest": _picture(
            forest(marks, xlabel=xlabel, higher_is_better=task["higher_is_better"]),
            forest(marks, xlabel=xlabel, higher_is_better=task["higher_is_better"], dark=True),
        ),
        "fields": _field_rows(task),
        "health": [_health_row(name, health, task) for name, health in task["health"].items()],
    }


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


# ----------------------------------------------------------------------------------------------------------- items


def _items(task: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sort answered items into wins, losses and what is still wrong, the clearest cases first."""
    subject, sign = task["subject"], 1 if task["higher_is_better"] else -1
    gained = [(sign * (answer[subject]["score"] - answer[BASE]["score"]), answer) for answer in answers]
    wins = sorted((pair for pair in gained if pair[0] > 0), key=lambda pair: -pair[0])
    losses = sorted((pair for pair in gained if pair[0] < 0), key=lambda pair: pair[0])
    shown = {id(answer) for _, answer in (*wins[:SHOWN], *losses[:SHOWN])}
    left = [answer for _, answer in gained if answer[subject]["score"] < 1]
    worst = sorted((answer for answer in left if id(answer) not in shown), key=lambda answer: answer[subject]["score"])
    return {
        "subject": subject,
        "wins": {"count": len(wins), "shown": [_item(answer, task) for _, answer in wins[:SHOWN]]},
        "losses": {"count": len(losses), "shown": [_item(answer, task) for _, answer in losses[:SHOWN]]},
        # Where lower is better there is no score that means right
        "wrong": {"count": len(left), "shown": [_item(answer, task) for answer in worst[:SHOWN]]}
        if task["higher_is_better"]
        else None,
    }


def _item(answer: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": answer["id"],
        "group": answer["group"],
        "prompt": _clipped(answer["prompt"], LONGEST_PROMPT),
        "reference": _clipped(answer["reference"], LONGEST_ANSWER),
        "answers": [_said(name, answer[name], task) for name in (BASE, task["subject"])],
    }


def _said(name: str, given: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    detail = given["detail"] or {}
    return {
        "name": name,
        "score": f"{given['score']:.2f}".removesuffix(".00"),
        "ended": given["ended"],
        "text": _clipped(given["text"], LONGEST_ANSWER) if task["health"] else None,
        "invalid_json": detail.get("valid_json") is False,
        "fields": list((detail.get("fields") or {}).items()),
    }


def _clipped(text: str, longest: int) -> dict[str, Any]:
    return {"text": text[:longest], "left": max(0, len(text) - longest)}


# ----------------------------------------------------------------------------------------------------------- plots


def _curve(records: Mapping[str, Any]) -> dict[str, str] | None:
    metrics = records["metrics"]
    if not any(line.get("loss") is not None or line.get("eval_loss") is not None for line in metrics):
        return None
    kept = (records["stages"].get("train") or {}).get("kept_step")
    return _picture(loss_curve(metrics, kept), loss_curve(metrics, kept, dark=True))


def _picture(light: str, dark: str) -> dict[str, str]:
    return {name: _data_uri(svg) for name, svg in (("light", light), ("dark", dark))}


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"
