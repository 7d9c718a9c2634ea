"""Which answers of two runs can be paired: the same items, asked with the same prompts and judged in the same way.

`unfit`, `judged_differently` and `pairable` give the reason in words where they cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What an evaluation's settings say of the judging; with other values another thing was judged
JUDGING = ("scorer", "fields", "schema_file")

Records = Mapping[str, Mapping[str, Any]]
"""The records of a task's answers by the id of their item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The ids of items that can be paired, what was left out and why; `reason` says why there is none."""

    ids: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    reason: str = ""


def unfit(task: Mapping[str, Any], records: Records, file: str) -> str:
    """Say why a run's answers to a task cannot be compared with anybody's; nothing where they can.

    Args:
        task: an entry of `tasks` in `evaluation/results.json`.
        records: its answers.
        file: where they have to be.
    """
    if not records:
        return f"{file} with its answers is not there"
    scores = [one[task["subject"]]["score"] for one in records.values()]
    # Figures of the whole set, such as macro F1, are no mean over items that could be paired
    if abs(sum(scores) / len(scores) - task["tuned"]) > 1e-6:
        return f"its {task['scorer']} is not the mean of its items' scores, so items cannot be paired"
    return ""


def judged_differently(
    task: Mapping[str, Any],
    first: Mapping[str, Any],
    settings: tuple[Mapping[str, Any], Mapping[str, Any]],
    first_name: str,
) -> str:
    """Say how the judging of one task differs between two runs; nothing where it does not.

    Args:
        task: the task's entry in a run's `evaluation/results.json`.
        first: that of the run it is compared with.
        settings: what the recipe said under `evaluate`, of either.
        first_name: name of the run it is compared with.
    """
    if (task["scorer"], task["unit"]) != (first["scorer"], first["unit"]):
        return f"it was judged by {task['scorer']!r}, {first_name} by {first['scorer']!r}"
    mine, others = (_settings(one, task["task"]) for one in settings)
    differing = [key for key in JUDGING if mine.get(key) != others.get(key)]
    if not differing:
        return ""
    told = "; ".join(f"{key} {mine.get(key)!r} here, {others.get(key)!r} there" for key in differing)
    return f"it was judged with other settings than {first_name}: {told}"


def _settings(settings: Mapping[str, Any], task: str) -> Mapping[str, Any]:
    """Return what the recipe says of a task: its entry in `tasks`, or the section itself for the held-out rows."""
    entries = settings.get("tasks") or ()
    found: Mapping[str, Any] = next((one for one in entries if one.get("name") == task), settings)
    return found


def pairable(first: str, records: Records, run: str, others: Records) -> Shared:
    """Return the items that two runs have in common: the same id, the same prompt, the same right answer.

    Args:
        first: name of the run that is compared with.
        records: its answers.
        run: name of the other run.
        others: its answers.
    """
    shared = [key for key in records if key in others]
    asked = [key for key in shared if records[key]["prompt"] == others[key]["prompt"]]
    equal = [key for key in asked if records[key]["reference"] == others[key]["reference"]]
    if not shared:
        return Shared(reason=f"it shares no test item with {first}: {len(others):,} here, {len(records):,} there")
    if not asked:
        why = "(another chat template, system prompt or examples)"
        return Shared(
            reason=f"all {len(shared):,} items that it shares with {first} were asked with other prompts {why}, "
            f"first {shared[0]!r}"
        )
    if not equal:
        return Shared(reason=f"all items that it shares with {first} have another right answer, first {asked[0]!r}")
    counts = {
        f"only in {first}": len(records) - len(shared),
        f"only in {run}": len(others) - len(shared),
        f"asked with another prompt in {run}": len(shared) - len(asked),
        f"with another right answer in {run}": len(asked) - len(equal),
    }
    left = (f"{count:,} {'item' if count == 1 else 'items'} {why}" for why, count in counts.items() if count)
    return Shared(ids=frozenset(equal), left_out=tuple(left))
