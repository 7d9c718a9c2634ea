"""The scorers that a recipe can name: `ScorerName`, or one of the user's own, `OwnScorer`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

ScorerName = Literal[
    "auto", "exact", "label", "balanced", "macro_f1", "choice", "number", "contains", "json_fields", "json_schema",
    "token_f1", "rouge_l", "chrf", "tatqa", "sql", "tests", "bits_per_byte", "perplexity", "likelihood",
    "likelihood_norm",
]  # fmt: skip
OWN_SCORER = r"^.+:[A-Za-z_]\w*$"
OwnScorer = Annotated[str, Field(pattern=OWN_SCORER)]
