"""What a recipe may say of a judge: `JudgeSection`, a language model that says which of two answers is the better."""

from __future__ import annotations

from pydantic import Field

from finetune.recipe.contestants import Endpoint


class JudgeSection(Endpoint):
    """A language model behind an endpoint that compares answers with base's, each pair shown in both orders."""

    contestants: tuple[str, ...] = Field(
        ("tuned",), min_length=1, description="Names of the contestants whose answers are judged against base's."
    )
    instructions: str | None = Field(
        None, description="What makes an answer the better one, e.g. `Prefer the answer that names the right dose.`"
    )
    show_reference: bool = Field(True, description="Show the judge the reference answer beside the two.")
    max_items: int | None = Field(
        100, gt=0, description="At most this many items of a task are judged, drawn at random; null judges all of them."
    )
    max_new_tokens: int = Field(512, gt=0, description="Longest answer of the judge, its reasons included.")
