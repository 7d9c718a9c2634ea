"""What a check hands back: a `Finding` says what was found, how often, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from finetune.errors import Problem, Severity
from finetune.recipe.schema import FindingKind

KINDS: tuple[str, ...] = (*get_args(FindingKind), "personal_data")
SHOWN = 5
_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place of a finding: file and line (of two rows, where two are alike), and what stands there, shortened."""

    where: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.where} ({self.text})" if self.text else self.where


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in the rows that a person should know before they are learned.

    Attributes:
        kind: one of `KINDS`.
        severity: `error` refuses the run, `warning` and `note` do not.
        count: how many rows it concerns.
        what: a sentence, without the places.
        examples: up to five places.
        fix: what to do about it.
    """

    kind: str
    severity: Severity
    count: int
    what: str
    examples: tuple[Sighting, ...] = ()
    fix: str = ""

    def problem(self, where: str) -> Problem:
        """Return it as a problem of the recipe's data, with its places in the text.

        Args:
            where: the recipe's position.
        """
        places = ", ".join(map(str, self.examples))
        more = f" and {self.count - len(self.examples):,} more" if 0 < len(self.examples) < self.count else ""
        return Problem(where, f"{self.what}: {places}{more}" if places else self.what, self.fix, self.severity)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "what": self.what,
            "examples": [{"where": seen.where, "text": seen.text} for seen in self.examples],
            "fix": self.fix,
        }


class Places:
    """Counts the places of a finding and keeps the first five, however many there are."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Sighting] = []

    def add(self, where: object, text: str = "") -> None:
        """Count a place."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Sighting(str(where), text))

    @property
    def examples(self) -> tuple[Sighting, ...]:
        return tuple(self.first)


def some(sightings: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """Return the first five places."""
    return tuple(sighting for _, sighting in zip(range(SHOWN), sightings, strict=False))


def excerpt(text: str, start: int = 0, end: int | None = None) -> str:
    """Return a part of a text in one line, with a little of what stands around it, at most 80 characters."""
    end = min(len(text), start + _WIDTH) if end is None else end
    room = max(0, _WIDTH - (end - start)) // 2
    first, last = max(0, start - room), min(len(text), end + room, start + _WIDTH)
    shown = " ".join(text[first:last].split())
    return ("..." if first else "") + shown + ("..." if last < len(text) else "")


def counted(counts: Sequence[tuple[str, int]]) -> str:
    """Write counts by name, e.g. `3 e-mail, 1 phone`."""
    return ", ".join(f"{count:,} {name}" for name, count in counts)


def rows(count: int, of: str = "") -> str:
    """Write a number of rows: `1 row`, `2 training rows`."""
    kind = f"{of} " if of else ""
    return f"{count:,} {kind}row{'' if count == 1 else 's'}"
