"""Rows out of CSV and TSV text and out of Parquet, each with its line or row number; `sources` calls it."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError

_LONGEST_COLUMN_NAME = 80


def rows_from_csv(text: str, file: str, *, delimiter: str | None = None) -> tuple[list[Row], list[Rejected], str]:
    """Read the rows of a CSV or TSV text whose first line names the columns.

    Quotes follow RFC 4180. A tab-separated text that breaks these rules, but has the right number of fields on every
    line when its quotes are taken as plain characters, is read so, and the container says it.

    Args:
        text: the whole file, decoded, line ends untouched.
        file: the file's name for origins.
        delimiter: a tab for TSV; None finds a comma, semicolon or tab in the first line.

    Returns:
        rows, rejected rows, and the container in words.

    Raises:
        FinetuneError: there is no usable header, no row under it, or a quote that is never closed.
    """
    separator = delimiter or _delimiter(text)
    name = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV"}[separator]
    records = list(_records(text, separator, csv.QUOTE_MINIMAL))
    if separator == "\t" and any(isinstance(fields, csv.Error) for _, fields in records):
        literal = list(_records(text, separator, csv.QUOTE_NONE))
        if len({len(fields) for _, fields in literal if isinstance(fields, list)}) == 1:
            records, name = literal, "TSV with literal quotes"
    columns = _header(records, file)
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for line, fields in records[1:]:
        origin = Origin(file, line)
        if isinstance(fields, csv.Error):
            if "unexpected end" in str(fields):
                raise FinetuneError(
                    "a quoted field in this row is never closed and takes in the rest of the file",
                    where=str(origin),
                    fix='close the quote, or double it ("") where it is part of the text',
                )
            rejected.append(Rejected(origin, "broken CSV", str(fields), 'double a quote ("") that is part of a text'))
        elif len(fields) != len(columns):
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            detail = f"{count} where the header has {len(columns)}: {_excerpt(separator.join(fields))}"
            rejected.append(Rejected(origin, "wrong number of fields", detail))
        else:
            rows.append(Row(origin, dict(zip(columns, fields, strict=True))))
    if not rows and not rejected:
        raise FinetuneError("no rows: there is only a header", where=file)
    return rows, rejected, name


def _records(text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield (line the record starts on, its fields or what is wrong with it); blank lines are no records."""
    line_end = "\n" if "\n" in text else "\r"
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for piece in io.StringIO(text, newline=""):
            seen += piece.count(line_end)
            yield piece

    with _unlimited_fields():
        reader = csv.reader(counted(), delimiter=delimiter, quoting=quoting, strict=True)
        while True:
            line = seen + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, error
            else:
                if fields:
                    yield line, fields


@contextmanager
def _unlimited_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a field, which is global to the process, for a while."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """Return the comma, or what the first line has instead of commas outside its quotes."""
    first_line = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    counts = {separator: first_line.count(separator) for separator in ",;\t"}
    return "," if counts[","] or not any(counts.values()) else max(counts, key=lambda separator: counts[separator])


def _header(records: list[tuple[int, list[str] | csv.Error]], file: str) -> list[str]:
    line, fields = records[0]
    where = f"{file}:{line}"
    if isinstance(fields, csv.Error):
        raise FinetuneError(f"broken header: {fields}", where=where)
    columns = [field or f"column_{number}" for number, field in enumerate(fields, 1)]
    wordy = next((name for name in columns if len(name) > _LONGEST_COLUMN_NAME or "\n" in name), None)
    if wordy is not None:
        raise FinetuneError(
            f"the first line does not name columns: it holds {_excerpt(wordy)}",
            where=where,
            fix="put a line with the names of the columns first",
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        names = ", ".join(map(repr, twice))
        raise FinetuneError(f"columns with the same name: {names}", where=where, fix="give each column its own name")
    return columns


def _excerpt(text: str, length: int = 60) -> str:
    return repr(text[:length]) + ("..." if len(text) > length else "")


def rows_from_parquet(content: bytes, file: str) -> list[Row]:
    """Read the rows of a Parquet file; the line of a row is its number, counted from 1.

    Raises:
        FinetuneError: the bytes are no readable Parquet, hold no rows, or two columns have the same name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        records = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FinetuneError(f"not a readable Parquet file: {error}", where=file) from None
    if len(set(table.column_names)) < len(table.column_names):
        raise FinetuneError(f"columns with the same name among {table.column_names}", where=file)
    if not records:
        raise FinetuneError("no rows: the table is empty", where=file)
    return [Row(Origin(file, number), fields) for number, fields in enumerate(records, 1)]
