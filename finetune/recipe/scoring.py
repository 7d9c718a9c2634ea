"""What a recipe may say of evaluation: the scorers' names and `EvaluateSection`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from finetune.recipe.section import Section

ScorerName = Literal[
    "auto", "exact", "label", "balanced", "choice", "number", "contains", "json_fields", "token_f1", "rouge_l", "tatqa",
    "sql", "tests", "bits_per_byte",
]  # fmt: skip


class EvaluateSection(Section):
    """How the tuned model is compared with its base on the held-out test rows."""

    scorer: ScorerName = Field(
        "auto",
        description="What counts as right. `auto`: a benchmark's own metric, label for classification, json_fields "
        "where all answers are JSON objects, bits_per_byte for raw text, exact for short answers, token_f1 for the "
        "rest. `sql` runs the answer on the row's database, `tests` runs it against the row's unit tests.",
    )
    fields: tuple[str, ...] = Field(
        (), description="Fields that json_fields compares; empty means all of the reference's."
    )
    allow_code_execution: bool = Field(
        False,
        description="Run the Python programs that models write, for `scorer: tests`: each in a process with limits and "
        "without network where the system allows it, which is no prison for hostile code.",
    )
    max_items: int | None = Field(None, gt=0, description="At most this many test rows, drawn at random.")
    max_new_tokens: int | None = Field(
        None, gt=0, description="Longest answer; unset means a quarter more than the longest reference."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="Level of the intervals and of the verdict.")
    require: Literal["better", "not_worse", "nothing"] = Field(
        "not_worse", description="Which verdict lets the command end with exit code 0; others end with 3."
    )
