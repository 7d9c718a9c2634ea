"""Runs set side by side as a page: `across_html(compare_runs(...))`; `across_fragment` is the notebooks' short form."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.evaluation.reporting.across import Across, AcrossTask, Compared
from finetune.evaluation.reporting.examples import LONGEST_ANSWER, LONGEST_PROMPT, clipped, said
from finetune.evaluation.reporting.pages import picture, render
from finetune.evaluation.reporting.pairings import Pairing
from finetune.evaluation.reporting.panels import GIBIBYTE, Panel, latency
from finetune.evaluation.reporting.plots import ForestRow, forest
from finetune.evaluation.reporting.records import answers_name
from finetune.evaluation.reporting.verdicts import TONES, Outcome
from finetune.evaluation.statistics.paired import Estimate
from finetune.evaluation.wording import decimals, percent, with_interval

SHOWN = 4
"""Items shown of each sort, for each comparison."""
SHOWN_SETTINGS = 20
HEADLINES = {
    "better": "{run} is better than {reference} on {task}",
    "worse": "{run} is worse than {reference} on {task}",
    "no detectable difference": "No detectable difference between {run} and {reference} on {task}",
    "too few items to tell": "Too few items to tell {run} from {reference} on {task}",
}


def across_html(across: Across) -> str:
    """Make the page that compares runs.

    Args:
        across: from `compare_runs`.

    Returns:
        One HTML page without scripts; everything that comes from data is escaped, and nothing is loaded from outside.
    """
    return render(
        "across.html.jinja",
        names=[run.name for run in across.runs],
        banners=_banners(across),
        tasks=[_task_view(task) for task in across.tasks],
        panels=run_panels(across),
    )


def across_fragment(across: Across) -> str:
    """Return the sentences and the tables of scores as HTML for a notebook's page."""
    return render(
        "fragment.html.jinja", sentences=across.sentences, tables=[score_panel(task) for task in across.tasks]
    )


def _banners(across: Across) -> list[Outcome]:
    """One block a statement: seeds of one recipe, every comparison, every refusal."""
    seeds = [Outcome("", "neutral", "Seeds of one recipe", sentence) for sentence in across.seed_sentences]
    refused = [
        Outcome("", "mixed", f"Not compared: {one.run} on {one.task}", f"{one.reason[:1].upper()}{one.reason[1:]}.")
        for one in across.refused
    ]
    judged = [_banner(one) for task in across.tasks for one in (*task.over_seeds, *task.pairings)]
    return [*seeds, *judged, *refused]


def _banner(pairing: Pairing) -> Outcome:
    headline = HEADLINES[pairing.verdict].format(run=pairing.run, reference=pairing.reference, task=pairing.task)
    headline = headline[:1].upper() + headline[1:] if pairing.run.startswith("the ") else headline
    return Outcome(pairing.verdict, TONES.get(pairing.verdict, "neutral"), headline, pairing.sentence)


# ----------------------------------------------------------------------------------------------------------- a task


def _task_view(task: AcrossTask) -> dict[str, Any]:
    marks = [_mark(pairing, task) for pairing in task.pairings]
    xlabel = f"difference in {task.scorer} ({task.unit})"
    return {
        "task": task.task,
        "about": _about(task),
        "scores": score_panel(task),
        "forest": picture(
            *(forest(marks, xlabel=xlabel, higher_is_better=task.higher_is_better, dark=dark) for dark in (False, True))
        ),
        "left_out": task.left_out,
        "examples": [_examples(pairing, task) for pairing in task.pairings],
    }


def _about(task: AcrossTask) -> str:
    direction = "higher" if task.higher_is_better else "lower"
    return (
        f"{task.scorer} ({task.unit}, {direction} is better) on the {task.n:,} items that all these runs have in "
        f"common, asked with the same prompt. Brackets hold {percent(task.confidence)} intervals."
    )


def _mark(pairing: Pairing, task: AcrossTask) -> ForestRow:
    found = pairing.comparison
    text = with_interval(found.difference, found.interval, _places(found.interval, task), signed=True)
    return ForestRow(
        label=f"{pairing.run} - {pairing.reference}",
        value=found.difference,
        low=found.interval[0],
        high=found.interval[1],
        text=text,
        verdict=pairing.verdict,
    )


def score_panel(task: AcrossTask) -> Panel:
    """Return the scores of all runs and their bases on the common items, and the differences to the first run."""
    differences = {pairing.run: pairing for pairing in task.pairings}

    def difference(run: str) -> tuple[str, str]:
        if run not in differences:
            return "", ""
        pairing = differences[run]
        found = pairing.comparison
        return pairing.verdict, with_interval(
            found.difference, found.interval, _places(found.interval, task), signed=True
        )

    first = next(iter(task.scores))
    return Panel(
        title=f"Scores on {task.task}",
        head=("run", f"against {first}", "its base", "score", f"difference to {first}"),
        rows=tuple(
            (run, verdict, _estimate(task.base_scores[run], task), _estimate(score, task), gained)
            for run, score in task.scores.items()
            for verdict, gained in [difference(run)]
        ),
        words=2,
    )


def _estimate(estimate: Estimate, task: AcrossTask) -> str:
    return with_interval(estimate.mean, estimate.interval, _places(estimate.interval, task))


def _places(interval: tuple[float, float], task: AcrossTask) -> int:
    return decimals(interval, 2 if task.higher_is_better else 3)


def _examples(pairing: Pairing, task: AcrossTask) -> dict[str, Any]:
    """Items on which a run did better, and worse, than the first one, the clearest cases first."""
    sign = 1 if task.higher_is_better else -1
    mine, other = task.subjects[pairing.reference], task.subjects[pairing.run]
    pairs = [
        (sign * (two[other]["score"] - one[mine]["score"]), one, two)
        for one, two in zip(task.answers[pairing.reference], task.answers[pairing.run], strict=True)
    ]

    def group(found: Sequence[tuple[float, Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
        return {"count": len(found), "shown": [_item(one, two, pairing, task) for _, one, two in found[:SHOWN]]}

    return {
        "run": pairing.run,
        "reference": pairing.reference,
        "file": f"evaluation/{answers_name(task.task)} of both runs",
        "wins": group(sorted((pair for pair in pairs if pair[0] > 0), key=lambda pair: -pair[0])),
        "losses": group(sorted((pair for pair in pairs if pair[0] < 0), key=lambda pair: pair[0])),
    }


def _item(first: Mapping[str, Any], other: Mapping[str, Any], pairing: Pairing, task: AcrossTask) -> dict[str, Any]:
    file = f"evaluation/{answers_name(task.task)}"
    sides = ((pairing.reference, first), (pairing.run, other))
    return {
        "id": first["id"],
        "group": first["group"],
        "prompt": clipped(first["prompt"], LONGEST_PROMPT, file),
        "reference": clipped(first["reference"], LONGEST_ANSWER, file),
        "answers": [
            said(run, record[task.subjects[run]], file, judged=record[task.subjects[run]]["log_likelihood"] is not None)
            for run, record in sides
        ],
    }


# --------------------------------------------------------------------------------------------------- about the runs


def run_panels(across: Across) -> list[Panel]:
    """Return what the runs are and how they differ: settings, seeds, what was forgotten, what serving costs."""
    found = (_seeds(across), _settings(across.runs), _forgetting(across.runs), _cost(across.runs))
    return [panel for panel in found if panel is not None]


def _settings(runs: Sequence[Compared]) -> Panel:
    """Say what differs between the recipes, and nothing of what does not."""
    names = dict.fromkeys(name for run in runs for name in run.identity)
    told = {name: [_plain(run.identity.get(name)) for run in runs] for name in names}
    differing = {name: values for name, values in told.items() if len(set(values)) > 1}
    left = len(differing) - SHOWN_SETTINGS
    return Panel(
        title="What differs between the runs",
        sentences=() if differing else ("Nothing that decides the trained weights.",),
        notes=(f"{left} more settings differ; they are in each run's manifest.json.",) if left > 0 else (),
        head=("setting", *(run.name for run in runs)),
        rows=(
            ("base model", *(run.base for run in runs)),
            *((name, *values) for name, values in list(differing.items())[:SHOWN_SETTINGS]),
        ),
        words=1 + len(runs),
    )


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(_plain(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) or "none"
    text = f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
    return text if len(text) < 64 else f"{text[:12]}..."


def _seeds(across: Across) -> Panel | None:
    """Say how far the score of one recipe wanders with its seed."""
    groups = [group for group in across.recipes if len(group) > 1]
    rows = [
        _seed_row(task, [run.name for run in group if run.name in task.scores])
        for group in groups
        for task in across.tasks
    ]
    rows = [row for row in rows if row]
    if not rows:
        return None
    return Panel(
        title="What the seed does",
        notes=(
            "Scores of runs that differ in nothing but their seed, on the common items. A difference between recipes "
            "that is not larger than this spread may be the seed's.",
        ),
        head=("task", "runs", "mean", "lowest", "highest", "standard deviation"),
        rows=tuple(rows),
        words=2,
    )


def _seed_row(task: AcrossTask, names: Sequence[str]) -> tuple[str, ...]:
    if len(names) < 2:
        return ()
    scores = [task.scores[name].mean for name in names]
    figures = (statistics.fmean(scores), min(scores), max(scores), statistics.stdev(scores))
    return (task.task, ", ".join(names), *(f"{figure:.3f}" for figure in figures))


def _forgetting(runs: Sequence[Compared]) -> Panel | None:
    measured = {run.name: run.results.get("forgetting") for run in runs}
    if not any(measured.values()):
        return None
    return Panel(
        title="Forgetting",
        head=("run", "outcome", "rise in bits a byte", "difference in questions right", "mean KL (nats)"),
        rows=tuple((name, *_forgotten(found)) for name, found in measured.items()),
        words=2,
    )


def _forgotten(found: Mapping[str, Any] | None) -> tuple[str, ...]:
    if not found:
        return ("not measured", "", "", "")
    differences = [
        with_interval(
            part["difference"], tuple(part["interval"]), decimals(tuple(part["interval"]), least), signed=True
        )
        if (part := found.get(key))
        else ""
        for key, least in (("text_bits", 3), ("choices", 2))
    ]
    return (str(found["verdict"]), *differences, f"{found['kl']['mean']:.3g}")


def _cost(runs: Sequence[Compared]) -> Panel | None:
    costs = {run.name: _subject_cost(run) for run in runs}
    if not any(costs.values()):
        return None
    return Panel(
        title="Cost of serving",
        head=("run", "measured on", "one request, median", "95th percentile", "tokens a second", "peak memory"),
        rows=tuple((name, *_cost_cells(found)) for name, found in costs.items()),
        words=2,
    )


def _subject_cost(run: Compared) -> Mapping[str, Any] | None:
    costs = run.results.get("cost") or {}
    subjects: Iterable[str] = (task["subject"] for task in run.results["tasks"])
    return next((costs[name] for name in subjects if name in costs), None)


def _cost_cells(found: Mapping[str, Any] | None) -> tuple[str, ...]:
    if not found:
        return ("not measured", "", "", "", "")
    memory = found.get("peak_memory")
    return (
        str(found["hardware"]),
        latency(found["latency_p50"]),
        latency(found["latency_p95"]),
        "unknown" if found["tokens_per_second"] is None else f"{found['tokens_per_second']:,.1f}",
        "unknown" if memory is None else f"{memory / GIBIBYTE:.2f} GiB",
    )
