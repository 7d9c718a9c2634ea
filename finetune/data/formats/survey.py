"""What the columns of a corpus hold, summed up over its rows: `survey_columns(rows)`; formats are fitted to this."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.data.rows import Row

SHORT = 100
"""Longest text, in characters, that counts as a label or a name."""

_MOST_ITEMS = 5_000


@dataclass(slots=True)
class Column:
    """What the sampled rows hold under one name.

    `lists` counts lists of texts and numbers, also those written as JSON in a text; `items` are their distinct short
    items and `held` is how many they hold together. `shapes` counts lists of turns by their two keys.
    """

    name: str
    filled: int = 0
    texts: int = 0
    characters: int = 0
    longest: int = 0
    values: set[str] = field(default_factory=set)
    shapes: Counter[str] = field(default_factory=Counter)
    lists: int = 0
    mappings: int = 0
    transcripts: int = 0
    items: set[str] = field(default_factory=set)
    text_items: bool = True
    held: int = 0

    def see(self, value: Any) -> None:
        if value is None:
            return
        self.filled += 1
        if isinstance(value, list):
            self.shapes[_shape(value)] += 1
        elif isinstance(value, dict):
            self.mappings += 1
        elif isinstance(value, (str, int, float)):
            text = str(value)
            self.texts += isinstance(value, str)
            self.characters += len(text)
            self.longest = max(self.longest, len(text))
            self.values.add(text if len(text) <= SHORT else text[:SHORT])
            self.transcripts += "\n\nAssistant:" in text and text.lstrip().startswith("Human:")
        found = as_list(value)
        if found is not None and all(isinstance(item, (str, int, float)) for item in found):
            self.lists += 1
            self.held += len(found)
            self.text_items &= all(isinstance(item, str) for item in found)
            if len(self.items) < _MOST_ITEMS:
                self.items.update(str(item)[: SHORT + 1] for item in found)

    @property
    def turns(self) -> str:
        """The two keys of the turns that nearly all values are lists of, or an empty text."""
        shape, count = self.shapes.most_common(1)[0] if self.shapes else ("", 0)
        return shape if count * 2 > self.filled else ""

    @property
    def mean_length(self) -> float:
        return self.characters / self.filled if self.filled else 0.0

    def mostly(self, count: int) -> bool:
        """Tell whether `count` of the values are nearly all of them."""
        return count > 0 and count * 10 >= self.filled * 9


Survey = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Fit:
    """A format that fits: role -> column, and why."""

    columns: dict[str, str]
    why: str


def survey_columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Sum up what the rows hold under each name, in order of first appearance."""
    survey: dict[str, Column] = {}
    for row in rows:
        for name, value in row.fields.items():
            if name not in survey:
                survey[name] = Column(name)
            survey[name].see(value)
    return survey


def as_list(value: Any) -> list[Any] | None:
    """Return a list, also one that a table holds as JSON text; None for everything else."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or not (value.startswith("[") and value.endswith("]")):
        return None
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def folded(name: str) -> str:
    """Return a column's name as names are compared: lower case, words joined by underscores."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def named(survey: Survey, names: Iterable[str]) -> list[str]:
    """Return the columns that bear one of the usual names, in the order of these names."""
    by_folded: dict[str, str] = {}
    for column in survey:
        by_folded.setdefault(folded(column), column)
    return [by_folded[name] for name in names if name in by_folded]


def listed(names: Iterable[str]) -> str:
    """Name at most 30 columns for a message."""
    names = list(names)
    rest = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return ", ".join(map(repr, names[:30])) + rest


def columns_words(names: Iterable[str]) -> str:
    """Name the columns that a format was found by."""
    *first, last = map(repr, names)
    return f"columns {', '.join(first)} and {last}" if first else f"column {last}"


def own_system(survey: Survey) -> dict[str, str]:
    """Return the role of a column that is named as a system prompt."""
    names = named(survey, ("system", "system_prompt"))
    return {"system": names[0]} if names else {}


def _shape(value: list[Any]) -> str:
    """Name the two keys that all turns of a list have, or nothing where it holds no turns."""
    if not value or not all(isinstance(turn, dict) for turn in value):
        return ""
    for who, says in (("role", "content"), ("from", "value"), ("role", "text"), ("role", "value"), ("from", "content")):
        if all(who in turn and not turn.keys().isdisjoint((says, "tool_calls", "function_call")) for turn in value):
            return f"{who} and {says}"
    return ""
