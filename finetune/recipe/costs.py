"""What a recipe may say of measuring what an answer costs: `CostSection`."""

from __future__ import annotations

from pydantic import Field

from finetune.recipe.section import Section


class CostSection(Section):
    """Latency, speed, memory and price of answering, one request at a time after warming up."""

    requests: int = Field(
        20,
        ge=0,
        description="Requests that are timed for each contestant, drawn from the test items; 0 measures no costs.",
    )
    warm_up: int = Field(2, ge=0, description="Requests before the timed ones that are not counted.")
    seconds: float = Field(
        30.0, gt=0, description="No further request of a contestant is begun after so many seconds of timing."
    )
