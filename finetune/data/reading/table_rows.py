"""Rows out of CSV and TSV, read as a stream, each with the line it starts on: `read_table(content)`."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from finetune.data.reading.csv_dialects import Columns, Dialect, find_columns, find_dialect, records
from finetune.data.reading.json_values import excerpt
from finetune.data.reading.packed import Content
from finetune.data.reading.records import Records
from finetune.data.reading.utf8 import head
from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import Header


def read_table(content: Content, *, header: Header = "auto") -> Records:
    """Read the rows of a CSV or TSV; `.tsv` and `.tab` are tab-separated, any other name finds its delimiter.

    Args:
        content: the table.
        header: whether the first line names the columns; `auto` finds out and says why.

    Raises:
        FinetuneError: there is no usable header, no row under it, or a quote that is never closed.
    """
    dialect = find_dialect(content, head(content))
    columns = find_columns(content, dialect, header)
    words = dialect.words
    notes = [Problem(content.name, f"read as {words}", severity="note")] if dialect.is_odd else []
    if not columns.in_file:
        words += " without header"
        names = f"{columns.names[0]} to {columns.names[-1]}" if len(columns.names) > 1 else columns.names[0]
        what = f"read without a header, its columns called {names}: {columns.why}"
        fix = "" if header is False else "set data.header: true if the first line does name the columns"
        notes.append(Problem(content.name, what, fix, "note"))
    return Records(container=words, items=_rows(content, dialect, columns), notes=tuple(notes), table=True)


def _rows(content: Content, dialect: Dialect, columns: Columns) -> Iterator[Row | Rejected]:
    found = records(content, dialect)
    names = columns.names
    expected = f"where the header has {len(names)}" if columns.in_file else f"where most rows have {len(names)}"
    if columns.in_file:
        next(found)
    empty = True
    for line, fields in found:
        empty = False
        origin = Origin(content.name, line)
        if isinstance(fields, csv.Error):
            yield _broken(fields, origin)
        elif len(fields) != len(names):
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            said = dialect.delimiter.join(fields)
            yield Rejected(origin, "wrong number of fields", f"{count} {expected}: {excerpt(said, 0, 60)}")
        else:
            yield Row(origin, dict(zip(names, fields, strict=True)))
    if empty:
        raise FinetuneError("no rows: there is only a header", where=content.name)


def _broken(error: csv.Error, origin: Origin) -> Rejected:
    if "unexpected end" in str(error):
        raise FinetuneError(
            "a quoted field in this row is never closed and takes in the rest of the file",
            where=str(origin),
            fix='close the quote, or double it ("") where it is part of the text',
        )
    return Rejected(origin, "broken CSV", str(error), 'double a quote ("") that is part of a text')
