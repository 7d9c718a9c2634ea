"""The main path, to be read first: recipe -> data -> train -> evaluate -> export -> report.

Every stage leaves its files in the run folder and says so in its manifest. Called again, `run` goes on where it
stopped: finished stages are taken as they are, an interrupted training resumes from its newest whole checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import results
from finetune.errors import FinetuneError, Problem
from finetune.hardware import release_freed_memory
from finetune.recipe import Recipe, recipe_from_dict
from finetune.results import Checked, Evaluation, Exports, RunResult
from finetune.session import Run
from finetune.tracking import Tracker, Trackers, open_trackers

if TYPE_CHECKING:
    from finetune.data.inspection import Inspection
    from finetune.evaluation import Across
    from finetune.exporting import Verification

# Rows may be this long, in tokens, where a base does not say what it takes
_LONGEST = 32_768

Tell = Callable[[str], None]


def silent(_: str) -> None:
    """Tell nobody."""


def run(recipe: Recipe, *, tell: Tell = silent, quiet: bool = True) -> RunResult:
    """Do the whole path of a recipe, or what is left of it.

    Args:
        recipe: from `load_recipe`.
        tell: told a line a stage.
        quiet: no progress bars.

    Raises:
        FinetuneError: something the user can mend; nothing half-written is left.
    """
    from finetune.contest import require_tasks

    work = _opened(recipe, tell)
    require_tasks(work, tell=lambda said: tell(f"evaluate {said}"))
    _train(work, tell=tell, quiet=quiet)
    evaluation = evaluate(work, tell=tell, quiet=quiet)
    exports = export(work, tell=tell)
    # Exported files may be contestants too; what was answered before is not asked again
    evaluation = evaluate(work, tell=tell, quiet=quiet)
    page = report(work)
    tell(f"report   {page}")
    return results.collect(work.folder, recipe, evaluation, exports, page)


def train(recipe: Recipe, *, tell: Tell = silent, quiet: bool = True, watcher: Tracker | None = None) -> Run:
    """Prepare and certify the data, then train; the result is in the run folder and live in the returned run.

    Args:
        recipe: from `load_recipe`.
        tell: told a line a stage.
        quiet: no progress bars.
        watcher: told every step, beside the trackers that the recipe names.
    """
    work = _opened(recipe, tell)
    _train(work, tell=tell, quiet=quiet, watcher=watcher)
    return work


def _opened(recipe: Recipe, tell: Tell) -> Run:
    work = Run(recipe)
    tell(f"base     {work.base.name} on {work.machine}")
    for note in work.notes:
        tell(str(note))
    tell(f"data     {results.data_line(work.data.certificate)}")
    if work.data.cached is not None:
        tell(f"data     tokens taken from the cache: {work.data.cached}")
    return work


def _train(work: Run, *, tell: Tell, quiet: bool, watcher: Tracker | None = None) -> None:
    recipe, folder = work.recipe, work.create()
    if folder.finished("train") is not None and folder.has_result():
        tell(f"train    done before, in {folder.trained()}")
        return
    from finetune.keeping import forgetting_watch
    from finetune.models import count_trainable
    from finetune.training import resume_point, step_of
    from finetune.training import train as fit

    checkpoint, skipped = resume_point(folder)
    for problem in skipped:
        tell(str(problem))
    if checkpoint is not None:
        tell(f"train    goes on from {checkpoint.name}")
    opened = open_trackers(
        recipe.track,
        folder=folder.path,
        run_name=folder.name,
        config=recipe.model_dump(mode="json"),
        resume_step=(checkpoint and step_of(checkpoint)) or 0,
    )
    tracker = Trackers(opened, watcher) if watcher is not None else opened
    model = work.learner()
    trainable = count_trainable(model)
    tell(f"train    {recipe.method.kind}: {trainable}")
    done = fit(
        recipe,
        model=model,
        tokenizer=work.tokenizer,
        rows=work.data.train,
        validation=work.data.validation,
        folder=folder,
        machine=work.machine,
        tracker=tracker,
        resume=checkpoint,
        quiet=quiet,
        forgetting=forgetting_watch(work, model),
    )
    facts = {**done.as_dict(), "trainable": trainable.learning, "parameters": trainable.total}
    tracker.finish({key: value for key, value in facts.items() if isinstance(value, (int, float))})
    folder.finish("train", **facts)
    work.settle()
    release_freed_memory()
    tell(f"train    {results.training_line(done)}")


def evaluate(work: Run, *, tell: Tell = silent, quiet: bool = True) -> Evaluation:
    """Let base, tuned and whom the recipe names answer every task, and say what can be concluded.

    Raises:
        FinetuneError: the run has not been trained, or a contestant that cannot be opened.
    """
    from finetune.contest import contest_settings, hold

    settings = contest_settings(work)
    before = work.folder.finished("evaluate")
    if before is not None and before["settings"] == settings and Evaluation.path(work.folder).exists():
        return Evaluation.read(work.folder)
    evaluation = hold(work, tell=tell, quiet=quiet)
    work.folder.finish("evaluate", settings=settings, sentence=" ".join(evaluation.sentences))
    return evaluation


def export(work: Run, to: str | None = None, *, tell: Tell = silent) -> Exports:
    """Write the files that the recipe asks for, or one kind (`merged:float16`, `gguf:q8_0`, `ollama`), each proven.

    Raises:
        FinetuneError: an unknown kind, or a file that cannot be written.
    """
    from finetune.shipping import export_name, ship

    sections = work.recipe.export if to is None else (results.export_section(to, work.recipe),)
    settings = [section.model_dump(mode="json") for section in sections]
    before = work.folder.finished("export")
    if before is not None and before["settings"] == settings and Exports.whole(work.folder, map(export_name, sections)):
        return Exports.read(work.folder)
    work.require_exports(sections)
    exports = Exports.write(work.folder, ship(work, sections, tell=tell))
    work.folder.finish("export", settings=settings)
    return exports


def verify(work: Run, path: Path) -> Verification:
    """Compare a file that is there already with what the run trained.

    Raises:
        FinetuneError: there is no such file, or it cannot be loaded.
    """
    from finetune import shipping

    return shipping.verify(work, path)


def report(work: Run) -> Path:
    """Write `report.html` and the model card from what the run folder holds; returns the page's path."""
    from finetune.evaluation import read_records, report_html
    from finetune.exporting import card_markdown
    from finetune.rundir import write_text

    records = read_records(work.folder)
    write_text(work.folder.path / "README.md", card_markdown(records))
    page = work.folder.path / "report.html"
    write_text(page, report_html(records))
    return page


def compare_runs(folders: Sequence[Path], page: Path) -> Across:
    """Compare runs on the test items that they have in common, and write the page that says so.

    Args:
        folders: run folders; the first is the one that the others are compared with.
        page: where the page is written.

    Raises:
        FinetuneError: a folder without an evaluation, or runs that have nothing in common.
    """
    from finetune.evaluation import across_html
    from finetune.evaluation import compare_runs as compare
    from finetune.rundir import write_text

    found = compare(folders)
    write_text(page, across_html(found))
    return found


def inspect(recipe: Recipe, *, rows: int = 3) -> Inspection:
    """Look at a recipe's data as its base will see it.

    Args:
        recipe: from `load_recipe`.
        rows: how many training rows to show.
    """
    from finetune.data.inspection import inspect_prepared

    work = Run(recipe)
    return inspect_prepared(recipe.run.name or "data", work.data, work.tokenizer, rows)


def inspect_files(path: str, *, base: str | None = None, rows: int = 3) -> Inspection:
    """Look at data without a recipe; what cannot be used is counted, and tokens are counted where a base is given.

    Args:
        path: file, folder, glob or hub data set.
        base: the model whose tokenizer and template are to be used.
        rows: how many training rows to show.

    Raises:
        FinetuneError: the data cannot be read or recognised.
    """
    from finetune.data import read_corpus
    from finetune.data.inspection import check_unencoded, inspect_corpus
    from finetune.models.base import context_length

    section: dict[str, Any] = {
        "train": path,
        "on_bad_row": "drop",
        "overlong": "drop",
        "split": {"validation": 0.0, "test": 0.0},
    }
    values: dict[str, Any] = {"model": {"base": base or "none"}, "data": section, "run": {"name": Path(path).stem}}
    recipe = recipe_from_dict(values, where=path)
    corpus = read_corpus(recipe, any_objective=True)
    if base is None:
        return inspect_corpus(path, corpus, check_unencoded(corpus, recipe.data.checks), rows, where=path)
    section["max_length"] = context_length(Run(recipe).base) or _LONGEST
    values["objective"] = {"kind": "pretrain" if corpus.raw_text else "sft"}
    return replace(inspect(recipe_from_dict(values, where=path), rows=rows), title=path)


def check(recipe: Recipe) -> Checked:
    """Say now all that would fail later: the base, the data, the masks, the method's names, the disk.

    Collects problems instead of raising the first one.
    """
    from finetune.contest import require_tasks
    from finetune.data import read_corpus

    work = Run(recipe)
    problems: list[Problem] = []

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except FinetuneError as error:
            problems.extend(error.problems)
            return None

    if attempt(lambda: work.base) is None:
        attempt(lambda: read_corpus(recipe))
        return Checked(tuple(problems), None)
    attempt(work.require_fit)
    tokenizer = attempt(lambda: work.tokenizer)
    problems.extend(work.notes if tokenizer is not None else ())
    if tokenizer is not None:
        attempt(lambda: work.require_exports(recipe.export))
    data = attempt(lambda: work.data) if tokenizer is not None else attempt(lambda: read_corpus(recipe)) and None
    if data is None:
        return Checked(tuple(problems), None)
    problems.extend(data.certificate.problems)
    attempt(lambda: require_tasks(work, tell=lambda said: problems.append(Problem("", said, severity="note"))))
    return Checked(tuple(problems), json.loads(json.dumps(data.certificate.as_dict())))
