"""What a converter gives for a document: its text as `Converted`, or `Unreadable` with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LARGEST = 256 * 1024**2
"""Bytes of one document, unpacked."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A document's text, its title where it has one, and what was left out, by kind."""

    text: str
    title: str = ""
    stripped: Counter[str] = field(default_factory=Counter)


class Unreadable(Exception):
    """This document gives no text: why, in a few kinds, with detail and remedy."""

    def __init__(self, reason: str, detail: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail, self.fix = reason, detail, fix


def one_line(value: Any) -> str:
    """Return a title as one line of text; an empty one for what is no text."""
    return " ".join(value.split()) if isinstance(value, str) else ""
