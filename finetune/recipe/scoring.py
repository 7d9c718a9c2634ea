"""What a recipe may say of evaluation: `EvaluateSection`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune.recipe.contestants import Contestant
from finetune.recipe.costs import CostSection
from finetune.recipe.forgetting import ForgettingSection
from finetune.recipe.judging import JudgeSection
from finetune.recipe.scorer_names import OwnScorer as OwnScorer
from finetune.recipe.scorer_names import ScorerName as ScorerName
from finetune.recipe.section import Section
from finetune.recipe.tasks import EvaluateTask, HeldOutTask


class EvaluateSection(Section):
    """How the tuned model is compared with its base on the held-out test rows."""

    scorer: ScorerName | OwnScorer = Field(
        "auto",
        description="What counts as right. `auto`: a benchmark's own metric, label for classification, json_fields "
        "where all answers are JSON objects, bits_per_byte for raw text, exact for short answers, token_f1 for the "
        "rest. `sql` runs the answer on the row's database, `tests` runs it against the row's unit tests. "
        "`module:function` is one of your own, in `module.py` beside the recipe (docs/evaluation.md).",
    )
    fields: tuple[str, ...] = Field(
        (), description="Fields that json_fields compares; empty means all of the reference's."
    )
    schema_file: str | None = Field(
        None, description="JSON Schema that answers have to be valid against, for `scorer: json_schema`."
    )
    allow_code_execution: bool = Field(
        False,
        description="Run the Python programs that models write, for `scorer: tests`: each in a process with limits and "
        "without network where the system allows it, which is no prison for hostile code. Import a scorer of your own, "
        "for `scorer: module:function`: it runs with all your rights.",
    )
    max_items: int | None = Field(None, gt=0, description="At most this many test rows, drawn at random.")
    max_new_tokens: int | None = Field(
        None, gt=0, description="Longest answer; unset means a quarter more than the longest reference."
    )
    tasks: tuple[EvaluateTask, ...] = Field(
        (HeldOutTask(),),
        description="What is asked, each task with a verdict of its own: the recipe's own test rows, and other data.",
    )
    contestants: tuple[Contestant, ...] = Field(
        (), description="Who answers beside base and tuned: other models, exported files, endpoints."
    )
    slices: tuple[str, ...] = Field(
        (), description="Columns of the test rows whose values are compared one by one (department, length, source)."
    )
    judge: JudgeSection | None = Field(
        None, description="A language model that says which of two answers is the better; none unless asked for."
    )
    forgetting: ForgettingSection = Field(
        default_factory=ForgettingSection,
        description="What the tuned model must not have lost of what its base could do; always measured.",
    )
    cost: CostSection = Field(
        default_factory=CostSection, description="What an answer costs each contestant: time, memory, price."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of the intervals and of the verdict.")
    require: Literal["better", "not_worse", "nothing"] = Field(
        "not_worse",
        description="Which verdicts let the command end with exit code 0; others end with 3. `better` asks for better "
        "on every task without forgetting, `not_worse` for worse on none.",
    )
