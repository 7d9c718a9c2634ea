"""Compare runs with each other on the test items that they have in common: `compare_runs(["runs/a", "runs/b"])`.

Every task is compared on items of the same id, prompt and right answer, paired; what cannot be paired is refused with
the reason. Runs that differ in nothing but their seed are told as one recipe.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError, Problem
from finetune.evaluation.compare import BASE, clusters_of
from finetune.evaluation.reporting.common_items import Records, Shared, judged_differently, pairable, unfit
from finetune.evaluation.reporting.pairings import Pairing, deviation_words, pairing
from finetune.evaluation.reporting.records import answers_name, read_answers, read_results
from finetune.evaluation.statistics.multiple import holm
from finetune.evaluation.statistics.paired import Estimate, mean_interval, paired_comparison
from finetune.evaluation.statistics.seeds import MIN_SEEDS, seed_comparison
from finetune.rundir import RunFolder, open_run

SEED = "run.seed"
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One run: `identity` decides its weights, `results` is its `evaluation/results.json`."""

    name: str
    folder: str
    base: str
    identity: dict[str, Any] = field(repr=False)
    results: dict[str, Any] = field(repr=False)

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        found: int | None = self.identity.get(SEED)
        return found

    def same_recipe(self, other: Compared) -> bool:
        """Whether nothing but the seed differs."""
        names = {*self.identity, *other.identity} - {SEED}
        return all(self.identity.get(name) == other.identity.get(name) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcrossTask:
    """One task on the items common to all runs in `scores`; the others are compared with the first of them.

    `scores` and `base_scores` are of the common items alone. `over_seeds` has recipes that ran with several seeds in
    the place of single runs, against their base and against the first run where that is no seed of theirs. `left_out`
    says what was not compared and why. `answers` holds each run's records of the common items, in one order.
    """

    task: str
    scorer: str
    unit: str
    higher_is_better: bool
    confidence: float
    n: int
    subjects: dict[str, str]
    scores: dict[str, Estimate]
    base_scores: dict[str, Estimate]
    pairings: tuple[Pairing, ...]
    over_seeds: tuple[Pairing, ...]
    left_out: tuple[str, ...]
    answers: dict[str, list[Record]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A run that cannot be compared on a task, and why."""

    task: str
    run: str
    reason: str


@dataclass(frozen=True)
class Across:
    """Runs set side by side. In a notebook it shows itself; `across_html` makes the page."""

    runs: tuple[Compared, ...]
    tasks: tuple[AcrossTask, ...]
    refused: tuple[Refusal, ...]

    @cached_property
    def recipes(self) -> tuple[tuple[Compared, ...], ...]:
        """The runs by recipe: those in one group differ in nothing but their seed."""
        return _by_recipe(self.runs)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What can be concluded, in words: seeds of one recipe, every comparison, every refusal."""
        pairings = [one.sentence for task in self.tasks for one in (*task.over_seeds, *task.pairings)]
        refused = [f"{one.run} is not compared on {one.task}: {one.reason}." for one in self.refused]
        return (*self.seed_sentences, *pairings, *refused)

    @property
    def seed_sentences(self) -> tuple[str, ...]:
        """A sentence for each recipe that ran with several seeds."""
        return tuple(_seed_sentence(group) for group in self.recipes if len(group) > 1)

    def as_dict(self) -> dict[str, Any]:
        """The comparison in values of strict JSON, without the answers."""
        runs = [{"name": run.name, "folder": run.folder, "base": run.base, "seed": run.seed} for run in self.runs]
        values = {
            "runs": runs,
            "recipes": [[run.name for run in group] for group in self.recipes],
            "tasks": [asdict(replace(task, answers={})) for task in self.tasks],
            "refused": [asdict(one) for one in self.refused],
            "sentences": self.sentences,
        }
        found: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
        return found

    def _repr_html_(self) -> str:
        from finetune.evaluation.reporting.across_page import across_fragment

        return across_fragment(self)


def compare_runs(folders: Sequence[str | Path]) -> Across:
    """Compare runs with the first of them, on every task, on the items that they have in common.

    Args:
        folders: at least two run folders, all evaluated.

    Returns:
        The comparisons, corrected for their number (Holm), and what was refused.

    Raises:
        FinetuneError: fewer than two runs, a run named twice, one that was not evaluated, damaged files, or nothing
            that could be compared.
    """
    runs = _opened(folders)
    tasks: list[AcrossTask] = []
    refused: list[Refusal] = []
    for name in dict.fromkeys(task["task"] for run in runs for task in run.results["tasks"]):
        found = _across_task(name, runs, refused)
        if found is not None:
            tasks.append(found)
    if not tasks:
        fix = "compare runs that were evaluated on the same test rows with the same prompts"
        raise FinetuneError.of([Problem(f"{one.run}, task {one.task!r}", one.reason, fix) for one in refused])
    return Across(runs, _corrected(tasks), tuple(refused))


# ---------------------------------------------------------------------------------------------------- runs and items


def _opened(folders: Sequence[str | Path]) -> tuple[Compared, ...]:
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        what = "the same run is named twice" if len(paths) > 1 else "one run alone has nothing to be compared with"
        raise FinetuneError(what, where=", ".join(map(str, paths)), fix="finetune report RUN OTHER_RUN")
    opened = [open_run(path) for path in paths]
    bare = [folder for folder in opened if not read_results(folder)["tasks"]]
    if bare:
        fix = "finetune evaluate RUN"
        raise FinetuneError.of(
            [Problem(str(folder.path), "this run has not been evaluated yet", fix) for folder in bare]
        )
    names = [folder.name for folder in opened]
    return tuple(
        _compared(folder, folder.name if names.count(folder.name) == 1 else str(folder.path)) for folder in opened
    )


def _compared(folder: RunFolder, name: str) -> Compared:
    manifest = folder.manifest()
    return Compared(
        name=name,
        folder=str(folder.path),
        base=str((manifest.get("base") or {}).get("name", "")),
        identity=manifest["identity"],
        results={**read_results(folder), "settings": (manifest["stages"].get("evaluate") or {}).get("settings") or {}},
    )


@dataclass(frozen=True, slots=True)
class _Entrant:
    """A run with its entry in `results.json` for one task and its answers."""

    run: Compared
    task: Mapping[str, Any]
    answers: Records


def _across_task(name: str, runs: Sequence[Compared], refused: list[Refusal]) -> AcrossTask | None:
    """Compare the runs on one task; what cannot be is added to `refused`."""
    entrants: list[_Entrant] = []
    left_out: list[str] = []
    common: frozenset[str] = frozenset()
    for run in runs:
        entrant = _entrant(name, run)
        if isinstance(entrant, str):
            refused.append(Refusal(task=name, run=run.name, reason=entrant))
            continue
        shared = _shared(entrants[0], entrant, common) if entrants else Shared(ids=frozenset(entrant.answers))
        if shared.reason:
            refused.append(Refusal(task=name, run=run.name, reason=shared.reason))
            continue
        entrants.append(entrant)
        left_out += shared.left_out
        common = shared.ids
    if len(entrants) < 2:
        refused += [
            Refusal(task=name, run=one.run.name, reason="no other run can be compared with it") for one in entrants
        ]
        return None
    return _judged(name, entrants, common, left_out)


def _entrant(name: str, run: Compared) -> _Entrant | str:
    """Return a run's part in a task, or why it has none that could be compared."""
    task = next((one for one in run.results["tasks"] if one["task"] == name), None)
    if task is None:
        return "it has not been evaluated on this task"
    answers = {one["id"]: one for one in read_answers(RunFolder(Path(run.folder)), name)}
    return unfit(task, answers, f"evaluation/{answers_name(name)}") or _Entrant(run, task, answers)


def _shared(first: _Entrant, other: _Entrant, common: frozenset[str]) -> Shared:
    """Return the items that a run shares with the first one and with those between."""
    settings = (other.run.results["settings"], first.run.results["settings"])
    reason = judged_differently(other.task, first.task, settings, first.run.name)
    shared = Shared(reason=reason) if reason else pairable(first.run.name, first.answers, other.run.name, other.answers)
    ids = shared.ids & common
    if shared.ids and not ids:
        return Shared(reason="it shares no test item with all the runs before it")
    return replace(shared, ids=ids)


# ------------------------------------------------------------------------------------------------------ comparisons


def _judged(name: str, entrants: Sequence[_Entrant], common: frozenset[str], left_out: Sequence[str]) -> AcrossTask:
    first = entrants[0]
    records = {one.run.name: [one.answers[key] for key in first.answers if key in common] for one in entrants}
    subjects = {one.run.name: str(one.task["subject"]) for one in entrants}
    scores = {who: [float(one[subjects[who]]["score"]) for one in found] for who, found in records.items()}
    bases = {who: [float(one[BASE]["score"]) for one in found] for who, found in records.items()}
    highest = max(1.0, *(max(found) for found in (*scores.values(), *bases.values())))
    higher = bool(first.task["higher_is_better"])
    settled: dict[str, Any] = {
        "confidence": first.task["confidence"],
        "clusters": clusters_of((one["id"], one["group"]) for one in records[first.run.name]),
        "bounds": (0.0, highest) if higher else None,
        "binary": False,
    }
    found = AcrossTask(
        task=name,
        scorer=first.task["scorer"],
        unit=first.task["unit"],
        higher_is_better=higher,
        confidence=first.task["confidence"],
        n=len(common),
        subjects=subjects,
        scores={who: mean_interval(values, **settled) for who, values in scores.items()},
        base_scores={who: mean_interval(values, **settled) for who, values in bases.items()},
        pairings=(),
        over_seeds=(),
        left_out=(*left_out, *_other_base_scores(entrants, bases)),
        answers=records,
    )
    mine = scores[first.run.name]
    judged = [
        (one.run, paired_comparison(mine, scores[one.run.name], higher_is_better=higher, **settled))
        for one in entrants[1:]
    ]
    return replace(
        found,
        pairings=tuple(
            pairing(found, first.run.name, run.name, comparison, tail=_seed_words(first.run, run))
            for run, comparison in judged
        ),
        over_seeds=tuple(_over_seeds(found, entrants, scores, bases[first.run.name], settled)),
    )


def _seed_words(first: Compared, run: Compared) -> str:
    return f"Only the seed differs: {first.seed} and {run.seed}." if first.same_recipe(run) else ""


def _other_base_scores(entrants: Sequence[_Entrant], bases: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Say where the same base scored differently in two runs: then more than the tuning differs between them."""
    first, *others = (one.run for one in entrants)
    for run in others:
        if run.identity.get("base") != first.identity.get("base"):
            continue
        differing = sum(one != two for one, two in zip(bases[first.name], bases[run.name], strict=True))
        if differing:
            yield (
                f"the same base scored differently in {first.name} and {run.name} on {differing:,} of "
                f"{len(bases[run.name]):,} items: machine, versions or settings differ too"
            )


def _over_seeds(
    found: AcrossTask,
    entrants: Sequence[_Entrant],
    scores: Mapping[str, Sequence[float]],
    base: Sequence[float],
    settled: Mapping[str, Any],
) -> Iterator[Pairing]:
    """Compare each recipe that ran with several seeds with its base, and with the first run where that is another."""
    groups = _by_recipe([one.run for one in entrants])
    for group in groups:
        seeds = {run.seed: scores[run.name] for run in group}
        if len(seeds) < MIN_SEEDS:
            continue
        names = ", ".join(run.name for run in group)
        first = entrants[0].run.name
        against = {"base": base}
        if group is not groups[0] and len(groups[0]) == 1:
            against[first] = scores[first]
        for reference, values in against.items():
            over = seed_comparison(values, list(seeds.values()), higher_is_better=found.higher_is_better, **settled)
            yield pairing(
                found,
                reference,
                f"the recipe of {names} ({len(seeds)} seeds)",
                over.comparison,
                tail=deviation_words(over),
            )


def _by_recipe(runs: Sequence[Compared]) -> tuple[tuple[Compared, ...], ...]:
    """Group runs that differ in nothing but their seed."""
    groups: list[list[Compared]] = []
    for run in runs:
        home = next((group for group in groups if group[0].same_recipe(run)), None)
        groups.append([run]) if home is None else home.append(run)
    return tuple(tuple(group) for group in groups)


def _corrected(tasks: Sequence[AcrossTask]) -> tuple[AcrossTask, ...]:
    """Correct the verdicts for the number of comparisons on the page (Holm)."""
    together = iter(holm([one.comparison for task in tasks for one in (*task.pairings, *task.over_seeds)]))
    return tuple(
        replace(
            task,
            pairings=tuple(one.after_holm(next(together)) for one in task.pairings),
            over_seeds=tuple(one.after_holm(next(together)) for one in task.over_seeds),
        )
        for task in tasks
    )


# ------------------------------------------------------------------------------------------------------------ words


def _seed_sentence(group: Sequence[Compared]) -> str:
    names = ", ".join(run.name for run in group)
    seeds = [str(run.seed) for run in group]
    told = f"the seeds {', '.join(seeds)}" if len(set(seeds)) > 1 else f"the same seed, {seeds[0]}"
    few = f"; with {MIN_SEEDS} seeds or more the recipe itself can be judged" if len(set(seeds)) < MIN_SEEDS else ""
    return f"{names} are {len(group)} runs of one recipe with {told}{few}."
