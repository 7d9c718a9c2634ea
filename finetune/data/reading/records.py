"""What every container reader hands back: the container in words, and its rows as they come, `Records`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.data.rows import Rejected, Row
from finetune.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """A file about to be read.

    Attributes:
        container: what it is, in words.
        items: rows and unreadable rows in file order, made one after another; going through them raises FinetuneError
            where the file as a whole turns out to be wrong.
        notes: what was decided about it and a person ought to know.
        table: it is a CSV or TSV, whose first line may or may not name the columns.
    """

    container: str
    items: Iterator[Row | Rejected]
    notes: tuple[Problem, ...] = ()
    table: bool = False
