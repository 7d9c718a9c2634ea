"""The evaluation of a run: every contestant answers every task, answers are kept as they come, then all is judged.

`hold(work)` is the stage; `require_tasks(work)` refuses before training what could not be judged afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finetune import results
from finetune.entrants import Entrant, entrants_of
from finetune.keeping import forgetting_of, general_files, require_general
from finetune.results import Evaluation
from finetune.rundir import write_json, write_json_lines
from finetune.session import Run, versions

if TYPE_CHECKING:
    from finetune.evaluation.compare import Answer
    from finetune.evaluation.contestants import Contestant
    from finetune.evaluation.entries import Judged
    from finetune.evaluation.lm_eval.preparing import LmEval
    from finetune.evaluation.sameness import Circumstances
    from finetune.evaluation.tasks import Task

Tell = Callable[[str], None]


@dataclass(slots=True)
class Heard:
    """What was answered to one task so far, and how long each contestant took."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def require_tasks(work: Run, *, tell: Tell) -> None:
    """Make every task and say what it can show, so that what cannot be judged is refused while that costs nothing.

    Raises:
        FinetuneError: no test rows, items that cannot be asked, or a scorer that does not fit them.
    """
    from finetune.evaluation.statistics.multiple import planned_sentence

    require_general(work)
    for task in work.tasks:
        for note in task.notes:
            tell(f"{task.name}: {note}")
        planned = planned_sentence(
            task.name,
            len(task.items),
            binary=task.scorer.binary,
            bounds=task.scorer.bounds,
            confidence=work.recipe.evaluate.confidence,
            clusters=task.clusters,
        )
        tell(planned)


def contest_settings(work: Run) -> dict[str, Any]:
    """Return what decides an evaluation: the recipe's `evaluate`, and who takes part as things are."""
    return {
        **work.recipe.evaluate.model_dump(mode="json"),
        "tasks": [
            {**section.model_dump(mode="json"), "name": task.name, "fingerprint": task.fingerprint}
            for section, task in zip(work.recipe.evaluate.tasks, work.tasks, strict=True)
        ],
        "general_files": general_files(work.recipe.evaluate.forgetting),
        "entrants": {entrant.name: entrant.fingerprint for entrant in entrants_of(work, tell=lambda _: None)},
    }


def hold(work: Run, *, tell: Tell, quiet: bool) -> Evaluation:
    """Let everyone answer everything, judge it and write `evaluation/`.

    Args:
        work: a trained run.
        tell: told what happens.
        quiet: no progress bars.

    Raises:
        FinetuneError: a contestant that cannot be opened, or that was asked something else than base.
    """
    from finetune.evaluation.entries import entries
    from finetune.evaluation.sameness import sameness
    from finetune.evaluation.tasks import answer_records

    section, seed = work.recipe.evaluate, work.recipe.run.seed
    tasks = work.tasks
    heard = {task.name: Heard() for task in tasks}
    cost: dict[str, Any] = {}
    circumstances: dict[str, Circumstances] = {}
    entrants = entrants_of(work, tell=tell)
    for entrant in entrants:
        with entrant.open() as contestant:
            for task in tasks:
                _hear(work, entrant, contestant, task, heard[task.name], tell, quiet)
            cost[entrant.name] = _cost(work, entrant, contestant, tasks)
            if any(entrant.name in heard[task.name].answers for task in tasks):
                circumstances[entrant.name] = contestant.circumstances(versions())
    judged = [_judged(work, task, heard[task.name]) for task in tasks]
    found = entries(judged, work.data.train_examples, columns=section.slices, confidence=section.confidence, seed=seed)
    for one, entry in zip(judged, found, strict=True):
        entry["judge"] = _judge(work, one, tell)
    evaluation = Evaluation(
        tasks=tuple(found),
        forgetting=_forgetting(work, entrants),
        cost={name: one for name, one in cost.items() if one is not None},
        sameness=sameness([one.result for one in judged], circumstances).as_json(),
    )
    evaluation.write(work.folder, {one.result.task: answer_records(one.result) for one in judged})
    for sentence in evaluation.sentences:
        tell(f"evaluate {sentence}")
    return evaluation


# ------------------------------------------------------------------------------------------------------- answering


def _hear(
    work: Run,
    entrant: Entrant,
    contestant: Contestant,
    task: Task | LmEval,
    heard: Heard,
    tell: Tell,
    quiet: bool,
) -> None:
    """Have one contestant answer one task; what it answered before is taken as it is."""
    from finetune.evaluation.given import Given, portions_of
    from finetune.evaluation.tasks import Task

    refused = contestant.refuses(task)
    if refused:
        tell(f"evaluate {entrant.name} does not take part in {task.name}: {refused}")
        return
    file = quote(f"{task.name}--{entrant.name}.jsonl", safe=" ")
    kept = Given(_given(work) / file, f"{task.fingerprint} {entrant.fingerprint}")

    def ask(places: Sequence[int], done: Callable[[int], None]) -> list[Answer]:
        if isinstance(task, Task):
            return contestant.answer(task, [task.items[place] for place in places], done)
        return contestant.answer_standard(task, done)

    # lm-eval counts requests, several an item, so its bar has no length of its own
    portions = portions_of(task.items) if isinstance(task, Task) else [range(len(task.items))]
    with results.progress_on_terminal(f"{entrant.name}: {task.name}", len(task.items), quiet=quiet) as watch:
        heard.answers[entrant.name], heard.seconds[entrant.name] = kept.complete(portions, ask, watch)


def _given(work: Run) -> Path:
    return work.folder.evaluation / "given"


def _judged(work: Run, task: Task | LmEval, heard: Heard) -> Judged:
    from finetune.evaluation.entries import Judged
    from finetune.evaluation.lm_eval.tasks import judge_lm_eval
    from finetune.evaluation.tasks import Task, judge

    confidence, seed = work.recipe.evaluate.confidence, work.recipe.run.seed
    if not isinstance(task, Task):
        result = judge_lm_eval(task, heard.answers, confidence=confidence, seed=seed, seconds=heard.seconds)
        return Judged(result=result, scorer=task.scorer, items=None)
    result = judge(
        task,
        heard.answers,
        decode=lambda tokens: str(work.tokenizer.decode(tokens)),
        confidence=confidence,
        seed=seed,
        seconds=heard.seconds,
    )
    return Judged(result=result, scorer=task.scorer, items=task.items)


# ----------------------------------------------------------------------------------------- what goes beside verdicts


def _cost(work: Run, entrant: Entrant, contestant: Contestant, tasks: Sequence[Task | LmEval]) -> dict[str, Any] | None:
    """Measure what answering costs a contestant, on the first task of ours that it takes part in."""
    from finetune.evaluation.cost import requests_of
    from finetune.evaluation.tasks import Task

    section = work.recipe.evaluate.cost
    task = next((one for one in tasks if isinstance(one, Task) and not contestant.refuses(one)), None)
    if task is None or not section.requests:
        return None

    def measure() -> dict[str, Any] | None:
        found = contestant.cost(section, task, requests_of(task.items, section, work.recipe.run.seed), work.machine)
        return None if found is None else found.as_json()

    said = f"{entrant.fingerprint} {task.fingerprint} {section.model_dump_json()} {work.machine}"
    found: dict[str, Any] | None = _kept(_given(work) / f"cost--{entrant.name}.json", said, measure)
    return found


def _forgetting(work: Run, entrants: Sequence[Entrant]) -> dict[str, Any]:
    """Measure what the tuned model lost of what its base knew."""
    section = work.recipe.evaluate.forgetting
    said = " ".join([*(entrant.fingerprint for entrant in entrants[:2]), *general_files(section).values()])
    told = f"{said} {section.model_dump_json()} {work.recipe.evaluate.confidence}"
    found: dict[str, Any] = _kept(_given(work) / "forgetting.json", told, lambda: forgetting_of(work).as_json())
    return found


def _judge(work: Run, one: Judged, tell: Tell) -> dict[str, Any] | None:
    """Let the recipe's judge compare the answers to a task, where there is one; keep what it said of each item."""
    from finetune.evaluation.judging import judge_answers, questions_of
    from finetune.runtimes import EndpointRuntime

    section = work.recipe.evaluate.judge
    if section is None or one.items is None:
        return None
    store = _given(work) / "judge-replies.jsonl"
    with EndpointRuntime(section, name=f"judge {section.model}", store=store) as asker:
        found = judge_answers(
            section,
            one.result,
            questions=questions_of(one.items),
            asker=asker,
            confidence=work.recipe.evaluate.confidence,
            seed=work.recipe.run.seed,
        )
    said = [record for judgement in found.values() for record in judgement.records()]
    write_json_lines(work.folder.evaluation / quote(f"judge-{one.result.task}.jsonl", safe=" "), said)
    for judgement in found.values():
        tell(f"evaluate {one.result.task}: {judgement.sentence}")
    return {name: judgement.as_json() for name, judgement in found.items()}


def _kept(path: Path, fingerprint: str, make: Callable[[], Any]) -> Any:
    """Return what was measured before under the same circumstances, or measure it and keep it."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if before.get("fingerprint") == fingerprint:
        return before["found"]
    found = make()
    write_json(path, {"fingerprint": fingerprint, "found": found})
    return found
