"""Replace personal data by placeholders, the same value of a row by the same one: `mask_example(example)`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from finetune.data.checks.personal import personal_data
from finetune.data.rows import Example

_PLACEHOLDER = re.compile(r"\[(EMAIL|IBAN|CARD|SSN|RECORD_NUMBER|BIRTH_DATE|IP|PHONE)_([0-9]+)\]")
_KEPT = ("id", "origin", "group", "label")


class Mask:
    """The placeholders of one row: `[EMAIL_1]` is the same address wherever the row names it.

    Numbers begin after those of placeholders that the row's texts hold already, so that none gets a second meaning.

    Attributes:
        counts: places replaced, by kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()

    def see(self, text: str) -> str:
        """Take note of the placeholders that a text of the row holds already; returns the text."""
        for kind, number in _PLACEHOLDER.findall(text):
            self._last[kind] = max(self._last[kind], int(number))
        return text

    def __call__(self, text: str) -> str:
        """Return the text with its personal data replaced and all else as it was."""
        # What overlapped a place may be one by itself once that is gone
        while places := personal_data(text):
            for place in reversed(places):
                text = text[: place.start] + self._placeholder(place.kind, place.value) + text[place.end :]
                self.counts[place.kind] += 1
        return text

    def _placeholder(self, kind: str, value: str) -> str:
        name = kind.upper()
        if (kind, value) not in self._numbers:
            self._last[name] += 1
            self._numbers[kind, value] = self._last[name]
        return f"[{name}_{self._numbers[kind, value]}]"


def mask_text(text: str) -> str:
    """Return one text with its personal data replaced."""
    mask = Mask()
    return mask(mask.see(text))


def mask_example(example: Example) -> tuple[Example, Counter[str]]:
    """Return a row with the personal data of all its texts replaced, and how many places of each kind were.

    Its id, group and class name stay: rows are told apart by them. The answer of a row with a class is that class.

    Args:
        example: a row understood.
    """
    mask = Mask()
    _rewritten(example, mask.see)
    masked = _rewritten(example, lambda text: text if text == example.label else mask(text))
    return masked, mask.counts


def _rewritten(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of any shape with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _rewritten(inner, change) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_rewritten(inner, change) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        kept = _KEPT if isinstance(value, Example) else ()
        changed = {
            part.name: _rewritten(getattr(value, part.name), change) for part in fields(value) if part.name not in kept
        }
        return replace(value, **changed)
    return value
