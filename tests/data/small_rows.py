"""Rows as a test writes them, recognised and converted: `convert({"prompt": "p", ...}, format="auto")`."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.data.formats.examples import to_examples
from finetune.data.formats.recognise import Recognition, recognise
from finetune.data.rows import Example, Origin, Rejected, Row
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection


def rows(*fields: dict[str, Any]) -> list[Row]:
    return [Row(Origin("train.jsonl", line), each) for line, each in enumerate(fields, 1)]


def section(**settings: Any) -> DataSection:
    return DataSection.model_validate({"train": "train.jsonl"} | settings)


def recognised(*fields: dict[str, Any], **settings: Any) -> Recognition:
    return recognise(rows(*fields), section(**settings), where="recipe.yaml:4")


def convert(*fields: dict[str, Any], **settings: Any) -> tuple[list[Example], list[Rejected]]:
    examples, rejected = to_examples(rows(*fields), recognised(*fields, **settings), section(**settings))
    return list(examples), rejected


def refused(*fields: dict[str, Any], **settings: Any) -> tuple[Problem, ...]:
    with pytest.raises(FinetuneError) as caught:
        convert(*fields, **settings)
    return caught.value.problems


def said(rejected: list[Rejected]) -> list[tuple[int, str, str]]:
    return [(bad.origin.line, bad.reason, bad.detail) for bad in rejected]


def asked(example: Example) -> str:
    """The user's last words."""
    return next(message.content for message in reversed(example.messages) if message.role == "user")
