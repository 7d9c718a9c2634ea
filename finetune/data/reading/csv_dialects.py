"""How a CSV or TSV is written: delimiter, quotes, line ends, and whether its first line names the columns."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from finetune.data.reading.json_values import excerpt
from finetune.data.reading.packed import Content
from finetune.data.reading.utf8 import text_pieces
from finetune.errors import FinetuneError
from finetune.recipe.schema import Header

Record = tuple[int, "list[str] | csv.Error"]
"""The line a record starts on, and its fields or what is wrong with it."""

_DELIMITERS = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV", "|": "CSV with bars"}
_LONGEST_COLUMN_NAME = 80
_SAMPLED = 500
# fmt: off
_USUAL_NAMES = frozenset({
    "id", "index", "text", "label", "labels", "question", "answer", "answers", "prompt", "completion", "response",
    "instruction", "input", "output", "context", "messages", "conversations", "category", "intent", "class", "topic",
    "sentence", "utterance", "title", "body", "content", "document", "source", "target", "query", "summary",
    "dialogue", "chosen", "rejected", "name", "date",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the fields of a table are written; `words` say it."""

    delimiter: str
    line_end: str
    words: str
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    escape: str | None = None
    padded: bool = False

    @property
    def is_odd(self) -> bool:
        """Whether the fields are not written as RFC 4180 has it."""
        return self.quoting != csv.QUOTE_MINIMAL or self.escape is not None or self.padded


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a table's columns, whether they stand in its first line, and why that is thought so."""

    names: list[str]
    in_file: bool
    why: str = ""


def find_dialect(content: Content, start: str) -> Dialect:
    r"""Find out how a table is written.

    Quotes follow RFC 4180. A table that breaks these rules, but has the right number of fields on every line when its
    quotes are taken as plain characters (TSV) or `\"` as a quote inside a field (CSV), is read so.

    Args:
        content: the table.
        start: its first megabyte.
    """
    delimiter = "\t" if content.extension in (".tsv", ".tab") else _delimiter(start)
    dialect = Dialect(delimiter, "\n" if "\n" in start or "\r" not in start else "\r", _DELIMITERS[delimiter])
    others = []
    if delimiter == "\t":
        others.append(replace(dialect, quoting=csv.QUOTE_NONE, words="TSV with literal quotes"))
    if '\\"' in start:
        others.append(replace(dialect, escape="\\", words=f'{dialect.words} with quotes written \\"'))
    if others and any(isinstance(fields, csv.Error) for _, fields in records(content, dialect)):
        fitting = (other for other in others if _is_even(records(content, other)))
        dialect = next(fitting, dialect)
    if delimiter != "\t" and _is_padded(itertools.islice(records(content, dialect), _SAMPLED)):
        dialect = replace(dialect, padded=True, words=f"{dialect.words} with a space before each field")
    return dialect


def _is_padded(found: Iterable[Record]) -> bool:
    """Tell whether every field but the first of its line begins with a space, as people write lists."""
    inner = [field for _, fields in found if isinstance(fields, list) for field in fields[1:]]
    return bool(inner) and all(field[:1] == " " for field in inner)


def records(content: Content, dialect: Dialect) -> Iterator[Record]:
    """Yield the records of a table as it is read; blank lines are none."""
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for piece in text_pieces(content):
            seen += piece.count(dialect.line_end)
            yield piece

    reader = csv.reader(
        counted(),
        delimiter=dialect.delimiter,
        quoting=dialect.quoting,
        escapechar=dialect.escape,
        skipinitialspace=dialect.padded,
        strict=True,
    )
    while True:
        line = seen + 1
        # The longest field the module takes is global to the process: lifted here, and put back at once
        before = csv.field_size_limit(sys.maxsize)
        found: list[str] | csv.Error
        try:
            found = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = error
        finally:
            csv.field_size_limit(before)
        if found:
            yield line, found


def find_columns(content: Content, dialect: Dialect, header: Header) -> Columns:
    """Find out what the columns are called.

    With `auto` the first line names them, unless one of its values occurs again further down in the same column, as
    no name does: then it is a row like the others.

    Args:
        content: the table.
        dialect: how it is written.
        header: True or False where the user says it.

    Raises:
        FinetuneError: the first line cannot be names, and is not like the rows either.
    """
    sampled = list(itertools.islice(records(content, dialect), _SAMPLED))
    line, first = sampled[0]
    where = f"{content.name}:{line}"
    rows = [fields for _, fields in sampled[1:] if isinstance(fields, list)]
    if header is False:
        return _numbered([first, *rows] if isinstance(first, list) else rows, "data.header says so", where)
    if isinstance(first, csv.Error):
        raise FinetuneError(f"broken header: {first}", where=where)
    if header == "auto":
        again = _again(first, rows)
        if again is not None:
            why = f"{excerpt(first[again], 0, 60)} in the first line occurs again below it, in column_{again + 1}"
            return _numbered([first, *rows], why, where)
    return Columns(_named(first, where, header), in_file=True)


def _again(first: list[str], rows: list[list[str]]) -> int | None:
    """Return the column in which a value of the first line occurs again, if that tells that it is a row."""
    names = {field.strip().lower() for field in first}
    alike = [row for row in rows if len(row) == len(first)]
    if names & _USUAL_NAMES or first in alike or len(alike) * 2 < len(rows):
        return None
    for column, value in enumerate(first):
        if value.strip() and any(row[column] == value for row in alike):
            return column
    return None


def _numbered(rows: list[list[str]], why: str, where: str) -> Columns:
    if not rows:
        raise FinetuneError("no rows: none of the first lines can be read", where=where)
    ((width, _),) = Counter(map(len, rows)).most_common(1)
    return Columns([f"column_{number}" for number in range(1, width + 1)], in_file=False, why=why)


def _named(first: list[str], where: str, header: Header) -> list[str]:
    columns = [field or f"column_{number}" for number, field in enumerate(first, 1)]
    wordy = next((name for name in columns if len(name) > _LONGEST_COLUMN_NAME or "\n" in name), None)
    if wordy is not None and header == "auto":
        raise FinetuneError(
            f"the first line does not name columns: it holds {excerpt(wordy, 0, 60)}",
            where=where,
            fix="put a line with the names of the columns first, or set data.header: false; where this line does name "
            "them, set data.header: true",
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        names = ", ".join(map(repr, twice))
        fix = "give each column its own name, or set data.header: false where this line is a row"
        raise FinetuneError(f"columns with the same name: {names}", where=where, fix=fix)
    return columns


def _is_even(found: Iterable[Record]) -> bool:
    widths: set[int] = set()
    for _, fields in found:
        widths.add(len(fields) if isinstance(fields, list) else -1)
        if len(widths) > 1 or -1 in widths:
            return False
    return True


def _delimiter(start: str) -> str:
    """Return the comma, or what the first line has instead of commas outside its quotes."""
    first_line = re.sub(r'"[^"]*"', "", start.lstrip().partition("\n")[0])
    counts = {separator: first_line.count(separator) for separator in _DELIMITERS}
    return "," if counts[","] or not any(counts.values()) else max(counts, key=lambda separator: counts[separator])
