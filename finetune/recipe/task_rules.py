"""What the tasks of a recipe mean for each other and for its scorers; run with all other rules by `rules.findings`."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.recipe.finding import Finding, Rule, is_set
from finetune.recipe.schema import Recipe
from finetune.recipe.tasks import HELD_OUT, DataTask, HeldOutTask, LmEvalTask, task_name

_BY_CHOICE = ("likelihood", "likelihood_norm")
_OF_HELD_OUT = ("scorer", "fields", "schema_file", "max_items", "max_new_tokens")


def data_tasks(recipe: Recipe) -> Iterator[tuple[str, DataTask]]:
    """Yield the tasks that are described as data, each with its key."""
    for number, task in enumerate(recipe.evaluate.tasks):
        if isinstance(task, DataTask):
            yield f"evaluate.tasks.{number}", task


def something_is_asked(recipe: Recipe) -> Iterator[Finding]:
    """Without tasks there is no verdict."""
    if not recipe.evaluate.tasks:
        yield Finding("evaluate.tasks", "evaluate.tasks is empty: nothing is asked", "name a task, or remove the key")


def tasks_have_names(recipe: Recipe) -> Iterator[Finding]:
    """Verdicts and files are told by the task's name, so each has its own."""
    seen: dict[str, int] = {}
    for number, task in enumerate(recipe.evaluate.tasks):
        key = f"evaluate.tasks.{number}"
        name = _name(task)
        first = seen.setdefault(name, number) if name else number
        if name == HELD_OUT and not isinstance(task, HeldOutTask):
            what = f"{key} is called {name!r}, as the recipe's own test rows are"
            yield Finding(f"{key}.name", what, f"set {key}.name to another name")
        elif first != number and isinstance(task, HeldOutTask):
            yield Finding(
                key, f"{key} asks the same as evaluate.tasks.{first}: the recipe's own test rows", "remove it"
            )
        elif first != number:
            what = f"{key} is called {name!r}, as evaluate.tasks.{first} is"
            yield Finding(f"{key}.name", what, f"set {key}.name to another name")


def _name(task: HeldOutTask | DataTask | LmEvalTask) -> str | None:
    """Return what verdicts call a task, as far as the recipe alone tells it."""
    if isinstance(task, HeldOutTask):
        return HELD_OUT
    return task_name(task) if isinstance(task, DataTask) else task.name or task.task


def held_out_settings_are_used(recipe: Recipe) -> Iterator[Finding]:
    """How the recipe's own test rows are judged says nothing where they are not asked."""
    if any(isinstance(task, HeldOutTask) for task in recipe.evaluate.tasks):
        return
    for name in _OF_HELD_OUT:
        if is_set(recipe, f"evaluate.{name}"):
            what = f"evaluate.{name} has no effect: it is of the held-out task, which evaluate.tasks leaves out"
            yield Finding(f"evaluate.{name}", what, f"write {name} under the task that it is meant for")


def choices_are_judged_by_likelihood(recipe: Recipe) -> Iterator[Finding]:
    """Where the likeliest choice is the answer, nothing is written that could be judged, and the other way round."""
    for key, task in data_tasks(recipe):
        if task.choices is None:
            if task.scorer in _BY_CHOICE:
                what = f"{key}.scorer: {task.scorer} takes the likeliest of an item's choices, and there are none"
                yield Finding(f"{key}.scorer", what, f"name them under {key}.choices")
            continue
        if task.scorer not in ("auto", *_BY_CHOICE):
            what = f"{key}.scorer: {task.scorer} judges written answers, and with choices none is written"
            fix = f"remove {key}.choices, or write scorer: likelihood or likelihood_norm"
            yield Finding(f"{key}.scorer", what, fix)
        for name in ("fields", "schema_file", "max_new_tokens"):
            if getattr(task, name):
                what = f"{key}.{name} has no effect with choices: no answer is written"
                yield Finding(f"{key}.{name}", what, f"remove {key}.{name}")
        if not isinstance(task.choices, str) and len(task.choices) < 2:
            what = f"{key}.choices has {len(task.choices)} of the two that there have to be"
            yield Finding(f"{key}.choices", what, "name at least two, or the column that holds them")


def settings_of_task_scorers(recipe: Recipe) -> Iterator[Finding]:
    """Some settings belong to one scorer; see `settings_of_scorers` for those of the held-out task."""
    for key, task in data_tasks(recipe):
        if task.choices is not None:
            continue
        if task.fields and task.scorer not in ("auto", "json_fields"):
            what = f"{key}.fields has no effect with scorer: {task.scorer}"
            yield Finding(f"{key}.fields", what, f"write scorer: json_fields, or remove {key}.fields")
        if (task.schema_file is not None) != (task.scorer == "json_schema"):
            what = f"{key}.schema_file has no effect with scorer: {task.scorer}"
            if task.scorer == "json_schema":
                what = f"{key}: json_schema checks answers against a JSON Schema, and {key}.schema_file gives none"
            yield Finding(f"{key}.schema_file", what, "give both scorer: json_schema and the schema's file, or neither")


def seeds_of_tasks_are_used(recipe: Recipe) -> Iterator[Finding]:
    """A seed without a draw decides nothing."""
    for key, task in data_tasks(recipe):
        if "seed" in task.model_fields_set and not task.shots and task.max_items is None:
            what = f"{key}.seed has no effect: neither shots nor max_items draws anything"
            yield Finding(f"{key}.seed", what, f"remove {key}.seed")


TASK_RULES: tuple[Rule, ...] = (
    something_is_asked,
    tasks_have_names,
    held_out_settings_are_used,
    choices_are_judged_by_likelihood,
    settings_of_task_scorers,
    seeds_of_tasks_are_used,
)
