"""The one exception a user is meant to see, and the problem reports it carries.

FinetuneError          the user can mend it: text only, exit code 2, no traceback
anything else          a bug: traceback, exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands, what was found, and what to do about it."""

    where: str
    what: str
    fix: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n    -> {self.fix}" if self.fix else ""
        return f"{place}{self.what}{remedy}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class FinetuneError(Exception):
    """Something the user can mend. Carries every problem found, not only the first.

    FinetuneError("no such file", where="recipe.yaml:3", fix="give a path that exists")
    FinetuneError.of(problems)
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(where=where, what=what, fix=fix),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> FinetuneError:
        """Bundle several problems in one error; at least one is required."""
        if not problems:
            raise ValueError("a FinetuneError needs at least one problem")
        error = cls(problems[0].what, where=problems[0].where, fix=problems[0].fix)
        error.problems = tuple(problems)
        return error

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1))
        return f"{len(self.problems)} problems:\n{lines}"


def missing_extra(package: str, extra: str, purpose: str) -> FinetuneError:
    """Say which optional part of finetune has to be installed for `purpose`."""
    return FinetuneError(
        f"{purpose} needs the package {package!r}, which is not installed",
        fix=f"pip install 'finetune[{extra}]'",
    )


def some(names: Iterable[str], at_most: int = 5) -> str:
    """List the first few of many names: `a, b, c, d, e and 12 more`."""
    names = list(names)
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most:,} more" if len(names) > at_most else "")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name most like `name`, whatever their case, or None when nothing comes near."""
    spellings = {choice.lower(): choice for choice in valid}
    found = difflib.get_close_matches(name.lower(), list(spellings), n=1, cutoff=0.6)
    return spellings[found[0]] if found else None
