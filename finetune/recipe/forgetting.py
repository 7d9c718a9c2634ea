"""What a recipe may say of forgetting: `ForgettingSection`, which hangs under `evaluate`."""

from __future__ import annotations

from pydantic import Field

from finetune.recipe.section import Section


class ForgettingSection(Section):
    """What the tuned model must not have lost of what its base could do: measured on general items in every run."""

    texts: str | None = Field(
        None,
        description="JSON Lines file of general texts, each under `text`, instead of finetune's own 40 English ones.",
    )
    questions: str | None = Field(
        None,
        description="JSON Lines file of general questions with `question`, `choices` (a list) and `answer` (the number "
        "of the right choice, counted from 0), instead of finetune's own 60.",
    )
    prompts: str | None = Field(
        None,
        description="JSON Lines file of neutral prompts, each under `prompt`, on which the divergence from the base is "
        "measured, instead of finetune's own 24.",
    )
    margin: float = Field(
        0.05,
        gt=0,
        description="How many more bits per byte the tuned model may need for the general texts. It keeps what the "
        "base knew where the interval of the rise lies below, and forgets where it lies above.",
    )
    questions_margin: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Which share of the general questions, in balance, the tuned model may answer wrong that the base "
        "answers right. Judged by the interval as well.",
    )
