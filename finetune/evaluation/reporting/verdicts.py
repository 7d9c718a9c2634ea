"""What is said first of a run: a task's verdict after Holm's correction, and whether better was paid for by forgetting.

`outcome(task, forgetting)` reads an entry of `evaluation/results.json` and returns verdict, headline, tone and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.evaluation.wording import p_words

BETTER_BUT_FORGETS = "better but forgets"
TONES = {"better": "good", "worse": "bad", BETTER_BUT_FORGETS: "mixed"}
HEADLINES = {
    "better": "Better than its base{}",
    "worse": "Worse than its base{}",
    "no detectable difference": "No detectable difference{}",
    "too few items to tell": "Too few items to tell{}",
    BETTER_BUT_FORGETS: "Better{}, but forgets",
}
FORGETTING = {
    "keeps": ("good", "Keeps what its base could do"),
    "forgets": ("bad", "Forgets what its base could do"),
    "cannot tell": ("neutral", "Cannot tell whether it forgets"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One statement that comes first: `tone` is good, bad, mixed or neutral; `text` gives the figures behind it.

    `command` is what to type where something is still missing.
    """

    verdict: str
    tone: str
    headline: str
    text: str
    command: str = ""


def verdict_after_holm(task: Mapping[str, Any]) -> str:
    """Return a task's verdict, corrected for the number of tasks where there are several."""
    return str((task.get("holm") or task)["verdict"])


def run_verdict(task: Mapping[str, Any], forgetting: Mapping[str, Any] | None) -> str:
    """Return the verdict on a run by one task: that after Holm, or `better but forgets`.

    Args:
        task: an entry of `tasks` in `evaluation/results.json`.
        forgetting: what stands under `forgetting` there, None where it was not measured.
    """
    verdict = verdict_after_holm(task)
    return BETTER_BUT_FORGETS if verdict == "better" and forgetting and forgetting["forgets"] else verdict


def outcomes(tasks: Sequence[Mapping[str, Any]], forgetting: Mapping[str, Any] | None) -> list[Outcome]:
    """Return all that is said first of an evaluation: a verdict a task, what was forgotten, and test items that leaked.

    Args:
        tasks: `tasks` of `evaluation/results.json`.
        forgetting: what stands under `forgetting` there, None where it was not measured.
    """
    found = [outcome(task, forgetting, named=len(tasks) > 1) for task in tasks]
    found += [forgetting_outcome(forgetting)] if forgetting else []
    return [*found, *(leak for leak in map(leak_outcome, tasks) if leak is not None)]


def outcome(task: Mapping[str, Any], forgetting: Mapping[str, Any] | None, *, named: bool = False) -> Outcome:
    """Return what is said first of a run's result on one task.

    Args:
        task: as for `run_verdict`.
        forgetting: as for `run_verdict`.
        named: the headline names the task, as it has to where there are several.
    """
    verdict = run_verdict(task, forgetting)
    headline = HEADLINES[verdict].replace("{}", f" on {task['task']}" if named else "")
    return Outcome(verdict, TONES.get(verdict, "neutral"), headline, holm_sentence(task))


def holm_sentence(task: Mapping[str, Any]) -> str:
    """Return the task's sentence, followed by the p-value and verdict after Holm's correction where it applies."""
    sentence, holm = str(task["sentence"]), task.get("holm")
    if not holm or holm["tasks"] < 2 or task.get("p_holm") is None:
        return sentence
    corrected = p_words(task["p_holm"], task["confidence"])
    return f"{sentence} Corrected for {holm['tasks']} tasks (Holm), {corrected}: {holm['verdict']}."


def forgetting_outcome(forgetting: Mapping[str, Any]) -> Outcome:
    """Return what is said first of what the run forgot; the argument is `forgetting` of `evaluation/results.json`."""
    tone, headline = FORGETTING[forgetting["verdict"]]
    return Outcome(str(forgetting["verdict"]), tone, headline, str(forgetting["sentence"]))


def leak_outcome(task: Mapping[str, Any]) -> Outcome | None:
    """Return the warning that test items stand in the training rows; None where none does or nobody looked."""
    leak = task.get("leak")
    if not leak or not leak["overlap"]:
        return None
    return Outcome("leak", "mixed", f"Test items of {task['task']} stand in the training rows", str(leak["sentence"]))
