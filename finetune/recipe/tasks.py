"""What contestants are asked, one section a kind: `EvaluateTask` is their union, told apart by `kind`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from finetune.recipe.data_names import split_name
from finetune.recipe.row_forms import (
    COLUMNS,
    FORMAT,
    HEADER,
    INSTRUCTION,
    TEMPLATE,
    AnswerIs,
    DataFormat,
    Header,
    TemplateSection,
)
from finetune.recipe.scorer_names import OwnScorer, ScorerName
from finetune.recipe.section import Section

# What verdicts call the recipe's own test rows
HELD_OUT = "held-out"
TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class HeldOutTask(Section):
    """The recipe's own test rows, judged as `evaluate` says."""

    kind: Literal["held-out"] = "held-out"


class DataTask(Section):
    """Rows of your own or of a benchmark, asked of every contestant with the same examples before each question."""

    kind: Literal["data"] = "data"
    name: str | None = Field(
        None, pattern=TASK_NAME, description="What verdicts call the task; unset means the name of its file or folder."
    )
    test: str | tuple[str, ...] = Field(
        description="The items: file, folder, glob, list of these, or hub dataset id, as `data.train` names them. Of a "
        "benchmark's folder only the official test split is asked."
    )
    examples: str | tuple[str, ...] | None = Field(
        None,
        description="Rows that `shots` are drawn from, read as the items are; unset means the benchmark's own training "
        "split. Items are never shown as examples of themselves.",
    )
    shots: int = Field(
        0,
        ge=0,
        description="How many examples with their answers stand before each question, as turns of the conversation: "
        "drawn once, the same for every item and contestant, and of all labels alike.",
    )
    format: DataFormat = Field("auto", description=FORMAT)
    columns: dict[str, str] = Field(default_factory=dict, description=COLUMNS)
    template: TemplateSection | None = Field(None, description=TEMPLATE)
    system: str | None = Field(
        None,
        description="System prompt put before every item that has none of its own; unset means that of `data.system`, "
        "an empty text means none.",
    )
    instruction: str | None = Field(None, description=INSTRUCTION)
    answer_is: AnswerIs = Field(
        "auto",
        description="How an item's answer names its choice, with `choices` or `format: multiple_choice`: by letter, by "
        "number from 0 or from 1, or by the choice's text. `auto` decides over all items and refuses to guess.",
    )
    header: Header = Field("auto", description=HEADER)
    group_by: str | None = Field(
        None, description="Column whose equal values are not independent of each other (document, customer)."
    )
    choices: str | tuple[str, ...] | None = Field(
        None,
        description="Answer by likelihood instead of by writing: the column that holds an item's choices, or a list "
        "of them, each a text or Jinja over the columns such as `{{ option_a }}`. The likeliest one is the answer.",
    )
    scorer: ScorerName | OwnScorer = Field(
        "auto",
        description="What counts as right, as `evaluate.scorer`. With `choices`: `likelihood` takes the choice of the "
        "highest log-likelihood, `likelihood_norm` of the highest for each byte of the choice; `auto` takes the first "
        "where all items have the same choices, the second where each has its own.",
    )
    fields: tuple[str, ...] = Field(
        (), description="Fields that json_fields compares; empty means all of the reference's."
    )
    schema_file: str | None = Field(
        None, description="JSON Schema that answers have to be valid against, for `scorer: json_schema`."
    )
    max_items: int | None = Field(None, gt=0, description="At most this many items, drawn at random.")
    max_new_tokens: int | None = Field(
        None, gt=0, description="Longest answer; unset means a quarter more than the longest reference."
    )
    on_bad_row: Literal["error", "drop"] = Field(
        "error",
        description="What to do with items that cannot be read, asked within the model's context or judged: refuse the "
        "run, or leave them out, counted by reason.",
    )
    seed: int = Field(0, description="Seed of the draws: of items and of examples.")


def task_name(task: DataTask) -> str:
    """Return what verdicts call a task: its own name, or that of its file, folder or data set without the ending."""
    if task.name is not None:
        return task.name
    first = task.test if isinstance(task.test, str) else task.test[0]
    named = split_name(first)
    stem = re.split(r"[/\\]", (named.member or named.path).rstrip("/\\"))[-1].partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "task"


class LmEvalTask(Section):
    """A task of lm-eval (the package's own, or your YAML file), with the prompts and metrics that it has there."""

    kind: Literal["lm_eval"] = "lm_eval"
    task: str | None = Field(
        None,
        pattern=TASK_NAME,
        description="Name of one of lm-eval's own tasks, e.g. `arc_easy`; its data set comes from the hub and its code "
        "from the package.",
    )
    path: str | None = Field(
        None,
        description="Your own task as a YAML file of lm-eval, instead of `task`. Its `data_files` count from its "
        "folder, `fewshot_split` must be a split of its own, and whatever would run code is refused.",
    )
    name: str | None = Field(
        None, pattern=TASK_NAME, description="What verdicts call the task; unset means the name that it has."
    )
    metric: str | None = Field(
        None, description="Which of the task's metrics the verdict is of; unset means the first. One figure an item."
    )
    answer_filter: str | None = Field(
        None, description="Which of the task's ways to read an answer counts (`filter_list`); unset means the first."
    )
    shots: int | None = Field(
        None, ge=0, description="Examples before each question; unset means what the task says, which may be none."
    )
    chat_template: bool = Field(
        False,
        description="Ask in the chat template, examples as turns, instead of plain text. Figures of the two are not "
        "comparable: the plain one is what is published for base models.",
    )
    group_by: str | None = Field(
        None, description="Column whose equal values are not independent of each other (document, customer)."
    )
    max_items: int | None = Field(None, gt=0, description="At most this many items, drawn at random.")
    max_new_tokens: int | None = Field(
        None,
        gt=0,
        description="Longest answer, for tasks that are answered in writing; unset means what the task says.",
    )
    seed: int = Field(0, description="Seed of the draws: of items and of examples.")


EvaluateTask = Annotated[HeldOutTask | DataTask | LmEvalTask, Field(discriminator="kind")]
