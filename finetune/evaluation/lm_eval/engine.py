"""lm-eval's task objects, made of what we have checked: `own_engine(file, ...)`, `stock_engine(name, ...)`."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from finetune.data.rows import Row
from finetune.errors import FinetuneError, Problem, nearest, some
from finetune.evaluation.lm_eval.task_files import TaskFile
from finetune.evaluation.lm_eval.templates import Refused, Unrenderable, compile_list, compile_template, literal

_TEXTS = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")
# What a task file says about itself and to lm-eval's index; nothing of it decides a figure
_ABOUT = ("tag", "task_alias", "metadata", "dataset_path", "dataset_name", "dataset_kwargs")
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


class Docs(list[dict[str, Any]]):
    """Rows of a split as lm-eval takes them: a list that knows its columns."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(dict(row.fields) for row in rows)
        self.features = dict.fromkeys((name for row in rows for name in row.fields), "")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's bars and remarks from the terminal; what matters of them we say ourselves."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def own_engine(file: TaskFile) -> Any:
    """Make lm-eval's object of a user's task file; our own sandbox renders the templates.

    Raises:
        FinetuneError: templates that cannot be used, and items that they do not fit, each with its line.
    """
    from lm_eval.api.task import ConfigurableTask

    made = _compiled(file)
    _require_rows(file, made)
    settings = {key: value for key, value in file.values.items() if key not in (*_TEXTS, *_ABOUT, *_SPLITS)}
    splits = {"test_split": file.asked_split, "fewshot_split": file.shots_split}
    docs = {split: Docs(rows) for split, rows in file.splits.items()}
    # lm-eval renders these two itself, as trusted text: for every item the same, they need no rendering
    fixed: dict[str, Any] = {key: made[key]({}) for key in ("description", "gen_prefix") if key in made}
    functions: dict[str, Any] = {
        key: made[key] for key in ("doc_to_text", "doc_to_target", "doc_to_choice") if key in made
    }
    settings = {**settings, **splits, **functions, **fixed, "custom_dataset": lambda **_: docs}
    with quiet():
        return ConfigurableTask(config=settings)


def _compiled(file: TaskFile) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """Compile every template of a task file."""
    problems: list[Problem] = []
    made: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    columns = {name for split in file.splits for name in file.columns(split)}
    kind = str(file.values.get("output_type", "generate_until"))
    for key in _TEXTS:
        value = file.values.get(key)
        if value is None:
            continue
        try:
            made[key] = _template(key, value, columns if key.startswith("doc_to_") else set(), kind)
        except Refused as error:
            problems.append(Problem(file.where(key), f"{key} {error}", "write columns as {{ column }}"))
    if problems:
        raise FinetuneError.of(problems)
    return made


def _template(key: str, value: Any, columns: set[str], kind: str) -> Callable[[Mapping[str, Any]], Any]:
    if isinstance(value, str) and "{" in value and key in ("description", "gen_prefix"):
        raise Refused("is the same text for every item here, and holds a template")
    if key == "doc_to_choice" and isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, str):
        return lambda fields: value
    if key == "doc_to_choice":
        return compile_list(value, columns)
    rendered = compile_template(value, columns)
    if key != "doc_to_target" or value in columns:
        return rendered
    return lambda fields: _target(rendered(fields), kind)


def _target(text: str, kind: str) -> Any:
    """Read what a template writes as the number of a choice or as a list, as lm-eval does."""
    return int(text) if text.isdigit() and kind == "multiple_choice" else literal(text)


def _require_rows(file: TaskFile, made: Mapping[str, Callable[[Mapping[str, Any]], Any]]) -> None:
    """Refuse rows that would score 0 for what is wrong with them, whoever answers; all at once."""
    kind = str(file.values.get("output_type", "generate_until"))
    problems = []
    for rows in file.splits.values():
        for row in rows:
            try:
                fault = item_fault(
                    kind,
                    made["doc_to_text"](row.fields),
                    made["doc_to_target"](row.fields),
                    made["doc_to_choice"](row.fields) if "doc_to_choice" in made else None,
                )
            except Unrenderable as error:
                fault = str(error)
            if fault:
                problems.append(Problem(str(row.origin), fault, "mend the row, or the task file's templates"))
    if problems:
        raise FinetuneError.of(problems)


def item_fault(kind: str, text: Any, target: Any, choices: Any) -> str:
    """Say what is wrong with an item; nothing where it can be asked and judged.

    Args:
        kind: the task's `output_type`.
        text: what is asked.
        target: what is right.
        choices: the choices, where it has them.
    """
    if not isinstance(text, str) and not (isinstance(text, int) and choices is not None):
        return f"the question is no text: {_clip(text)}"
    if choices is not None:
        return _choices_fault(text, target, choices)
    wanted = target if isinstance(target, (list, tuple)) else [target]
    if not wanted or any(one is None or not str(one).strip() for one in wanted):
        return "there is no answer"
    if kind != "generate_until" and not isinstance(target, str):
        return f"the answer is no text: {_clip(target)}"
    return ""


def _choices_fault(text: Any, target: Any, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) < 2:
        return f"the choices are no list of two or more: {_clip(choices)}"
    if not all(isinstance(choice, str) and choice for choice in choices):
        return f"a choice is no text or empty: {_clip(choices)}"
    # Where the question is a number, it is the one of the choices that fits what follows
    answers = [text] if isinstance(text, int) else target if isinstance(target, (list, tuple)) else [target]
    if not answers or None in answers or "" in answers:
        return "there is no answer"
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, (int, str)):
            return f"the answer {_clip(answer)} is neither a number nor a choice"
        if isinstance(answer, int) and not 0 <= answer < len(choices):
            return f"the answer {answer} is none of the choices 0 to {len(choices) - 1}"
        if isinstance(answer, str) and answer not in choices:
            hint = "; letters are no choices, write {{['A', 'B'].index(answer)}}" if len(answer) == 1 else ""
            return f"the answer {answer!r} is none of the choices {_clip(choices)}{hint}"
    return ""


def _clip(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# ------------------------------------------------------------------------------------------------- lm-eval's own tasks


def stock_engine(name: str, where: str) -> Any:
    """Make one of lm-eval's own tasks; its data set is loaded from the hub or the local cache.

    Raises:
        FinetuneError: there is no such task, it is a group, it needs what is refused here, or its data cannot be had.
    """
    manager = _manager()
    entry = manager.task_index.get(name)
    if entry is None:
        near = nearest(name, manager.all_subtasks)
        fix = f"did you mean {near!r}?" if near else "`lm-eval ls tasks` lists them; your own goes under `path`"
        raise FinetuneError(f"lm-eval has no task {name!r}", where=where, fix=fix)
    if name not in set(manager.all_subtasks):
        members = sorted(entry.tags) or [one for one in manager.all_subtasks if one.startswith(f"{name}_")]
        raise FinetuneError(f"{name!r} is a group of tasks", where=where, fix=f"name one of them: {some(members)}")
    _require_harmless(name, entry, where)
    try:
        with quiet():
            engine = manager.load([name])["tasks"][name]
    # Data sets fail in ways of their own: network, missing files, scripts that are no longer run
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        fix = "connect once so that its data set is in the cache, or write the task as a file of your own"
        raise FinetuneError(f"the task {name!r} cannot be loaded: {said[0][:300]}", where=where, fix=fix) from error
    if getattr(engine, "MULTIMODAL", False):
        raise FinetuneError(f"the task {name!r} asks with images or sounds", where=where, fix="name a task of texts")
    return engine


@cache
def _manager() -> Any:
    """Index lm-eval's tasks; takes half a minute, for there are over ten thousand."""
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager(include_defaults=True)


def _require_harmless(name: str, entry: Any, where: str) -> None:
    """Refuse a task that runs what models write, or whose metrics would be code that the hub holds."""
    from lm_eval.api.registry import metric_registry
    from lm_eval.tasks._yaml_loader import load_yaml

    settings = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else {}
    if settings.get("unsafe_code"):
        fix = "give its rows as `kind: data` with `scorer: tests`"
        raise FinetuneError(f"the task {name!r} runs what models write", where=where, fix=fix)
    if settings.get("process_results") is not None:
        return
    for metric in settings.get("metric_list") or []:
        called = metric.get("metric")
        foreign = isinstance(called, str) and not called.startswith("/") and called not in metric_registry
        if metric.get("hf_evaluate") or foreign:
            what = f"the metric {called!r} of {name!r} is a program on the hub, which is not run here"
            raise FinetuneError(what, where=where, fix="write the task as a file of your own, with another metric")
