"""The readings of columns that every format's converter is made of: `text_of(fields, column, empty=...)`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from finetune.data.formats.conversations import RowRefused, as_text, conversation, is_turns, turns_of
from finetune.data.formats.survey import as_list
from finetune.data.rows import Content, Message
from finetune.recipe.schema import DataSection

Convert = Callable[[Mapping[str, Any]], Content]
"""Makes the content of one row's fields, or raises `RowRefused`."""


def value_of(fields: Mapping[str, Any], column: str) -> Any:
    """Return what a row holds under a name that it must have.

    Raises:
        RowRefused: the row has no such column.
    """
    if column not in fields:
        raise RowRefused("column missing", f"there is no column {column!r}")
    return fields[column]


def text_of(fields: Mapping[str, Any], column: str, *, empty: str) -> str:
    """Return a column's value as text; `empty` is the reason given where it holds none.

    Raises:
        RowRefused: the column is missing, empty, or holds neither text nor number.
    """
    return as_text(value_of(fields, column), f"column {column!r}", empty=empty)


def texts_of(fields: Mapping[str, Any], column: str, *, empty: str) -> list[str]:
    """Return the texts of a column that holds a list, or the one text that it is.

    Raises:
        RowRefused: the column is missing, or an item is empty or neither text nor number.
    """
    value = value_of(fields, column)
    items = as_list(value)
    what = f"column {column!r}"
    if items is None:
        return [as_text(value, what, empty=empty)]
    return [as_text(item, f"item {number} of {what}", empty=empty) for number, item in enumerate(items, 1)]


def system_of(fields: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """Return the row's own system prompt, where it has any."""
    value = fields.get(columns["system"]) if "system" in columns else None
    if value is None or value == "":
        return None
    return as_text(value, f"column {columns['system']!r}", empty="empty prompt")


def answer_of(fields: Mapping[str, Any], column: str) -> str:
    """Return an answer as text: an object or list becomes compact JSON, a list of one assistant turn its content.

    Raises:
        RowRefused: the column is missing, empty, or holds other turns.
    """
    value = value_of(fields, column)
    if is_turns(value):
        turns = turns_of(value, f"column {column!r}")
        if len(turns) > 1 or turns[0].role != "assistant":
            raise RowRefused("roles do not alternate", f"column {column!r} holds more than one assistant turn")
        return turns[0].content
    if isinstance(value, (dict, list)):
        if not value:
            raise RowRefused("empty answer", f"column {column!r} is {value!r}")
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return as_text(value, f"column {column!r}", empty="empty answer")


def exchange(prompt: str, answer: str, system: str | None, section: DataSection) -> tuple[Message, ...]:
    """Return one question and its answer, after the row's own system prompt or the recipe's."""
    turns = [Message("user", prompt), Message("assistant", answer)]
    return conversation(turns, section.system if system is None else system)
