"""Answers side by side: what was won, what was lost, what base had right and is wrong now, and what is still wrong.

`examples(task, answers)` takes an entry of `evaluation/results.json` and the records of the task's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.evaluation.compare import BASE

SHOWN = 8
"""Items shown of each sort where there is one task."""
SHOWN_OF_SEVERAL = 3
LONGEST_ANSWER = 1_500
LONGEST_PROMPT = 6_000
"""Characters shown; the rest is in the file of the answers."""


def examples(
    task: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], *, file: str, shown: int = SHOWN
) -> dict[str, Any]:
    """Sort a task's answered items into regressions, wins, losses and what is still wrong, the clearest cases first.

    Args:
        task: an entry of `tasks` in `evaluation/results.json`.
        answers: the records of its answers.
        file: where they are, for the reader.
        shown: so many of each sort at most; no item is shown twice.
    """
    subject, sign = task["subject"], 1 if task["higher_is_better"] else -1
    gained = [(sign * (answer[subject]["score"] - answer[BASE]["score"]), answer) for answer in answers]
    regressed = set(task.get("regressions") or ())
    wins = sorted((pair for pair in gained if pair[0] > 0), key=lambda pair: -pair[0])
    lost = sorted((pair for pair in gained if pair[0] < 0), key=lambda pair: pair[0])
    regressions = [answer for _, answer in lost if answer["id"] in regressed]
    named = {id(answer) for answer in regressions[:shown]}
    losses = [answer for _, answer in lost if id(answer) not in named]
    left = [answer for _, answer in gained if answer[subject]["score"] < 1]
    seen = named | {id(answer) for answer in (*(one for _, one in wins[:shown]), *losses[:shown])}
    worst = sorted((answer for answer in left if id(answer) not in seen), key=lambda answer: answer[subject]["score"])

    def group(count: int, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"count": count, "shown": [_item(answer, task, file) for answer in found[:shown]]}

    # Where lower is better there is no score that means right
    ranked = task["higher_is_better"]
    return {
        "task": task["task"],
        "subject": subject,
        "file": file,
        "regressions": group(len(regressions), regressions) if ranked and "regressions" in task else None,
        "wins": group(len(wins), [answer for _, answer in wins]),
        "losses": group(len(lost), losses),
        "wrong": group(len(left), worst) if ranked else None,
    }


def _item(answer: Mapping[str, Any], task: Mapping[str, Any], file: str) -> dict[str, Any]:
    return {
        "id": answer["id"],
        "group": answer["group"],
        "prompt": clipped(answer["prompt"], LONGEST_PROMPT, file),
        "reference": clipped(answer["reference"], LONGEST_ANSWER, file),
        "answers": [said(name, answer[name], file, judged=not task["health"]) for name in (BASE, task["subject"])],
    }


def said(name: str, given: Mapping[str, Any], file: str, *, judged: bool = False) -> dict[str, Any]:
    """Return what one contestant said to an item as the page shows it.

    Args:
        name: the contestant.
        given: its part of the answer's record.
        file: where the whole answer is.
        judged: the text or the choices themselves were judged, and nothing was generated.
    """
    detail = given["detail"] or {}
    return {
        "name": name,
        "score": f"{given['score']:.2f}".removesuffix(".00"),
        "ended": given["ended"],
        "text": None if judged else clipped(given["text"], LONGEST_ANSWER, file),
        "chosen": _chosen(detail),
        "invalid_json": detail.get("valid_json") is False,
        "fields": list((detail.get("fields") or {}).items()),
    }


def _chosen(detail: Mapping[str, Any]) -> str:
    """Say which choice was likeliest, counted from 1, and how likely."""
    chosen, probabilities = detail.get("chosen"), detail.get("probabilities")
    if chosen is None:
        return ""
    if not isinstance(chosen, int):
        return f"likeliest choice: {chosen}"
    chance = f", probability {probabilities[chosen]:.2f}" if probabilities else ""
    return f"likeliest choice: number {chosen + 1}{f' of {len(probabilities)}' if probabilities else ''}{chance}"


def clipped(text: str, longest: int, file: str) -> dict[str, Any]:
    """Return a text's first characters, how many are left out, and where they are."""
    return {"text": text[:longest], "left": max(0, len(text) - longest), "file": file}
