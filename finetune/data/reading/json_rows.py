"""Rows out of JSON Lines, read line by line, or out of a JSON document: `read_json(content)`; `sources` calls it."""

from __future__ import annotations

import codecs
import io
import itertools
import json
from collections.abc import Iterable, Iterator

from finetune.data.reading.json_documents import read_document, read_inside
from finetune.data.reading.json_values import LENIENT, Element, row_from, skip, syntax, value_at
from finetune.data.reading.packed import Content
from finetune.data.reading.records import Records
from finetune.data.reading.utf8 import decode, text_lines
from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError

LINES = (".jsonl", ".ndjson")
"""Extensions that promise JSON Lines, which decides between one row and rows keyed by id."""

_LOOKED_AT = 10
_BLOCK = 4096


def read_json(content: Content, *, inside: str | None = None) -> Records:
    """Read the rows of a JSON file, whichever of the accepted layouts it has.

    Args:
        content: the file; JSON Lines are read as a stream, a document is held whole.
        inside: JSON pointer to the list of rows in a document; None finds it.

    Raises:
        FinetuneError: the text as a whole is not JSON, holds no rows, or holds them in no accepted layout.
    """
    promised = content.extension in LINES
    name = content.name
    if _is_lines(content, promised=promised):
        if inside is not None:
            fix = f"name the file alone: {name!r}"
            raise FinetuneError(f"JSON Lines have no path inside, and {inside!r} is asked for", where=name, fix=fix)
        return Records(container="JSON Lines", items=rows_from_lines(text_lines(content), name))
    text = decode(content.read(), name)
    start = skip(text, 0)
    try:
        document, end = LENIENT.raw_decode(text, start)
    except RecursionError:
        raise FinetuneError("JSON nested too deeply to read", where=f"{name}:{_line(text, start)}") from None
    except json.JSONDecodeError as error:
        if inside is None and (promised or _an_object_in(text[start:].split("\n", _LOOKED_AT + 1)[1:])):
            return Records(container="JSON Lines", items=rows_from_lines(io.StringIO(text, newline="\n"), name))
        raise FinetuneError(f"broken JSON: {syntax(error)}", where=f"{name}:{error.lineno}") from None
    if skip(text, end) < len(text):
        raise FinetuneError(
            "JSON values written over several lines, one after another: neither JSON nor JSON Lines",
            where=f"{name}:{_line(text, start)}",
            fix="write each object on one line (`jq -c . FILE`), or put all of them in one list",
        )
    if inside is not None:
        return read_inside(text, start, document, inside, name)
    return read_document(text, start, document, name)


def holds_lines(content: Content) -> bool:
    """Tell whether a file is JSON Lines, whatever its name says: its first line is one whole object."""
    try:
        with content.open() as stream:
            if not stream.peek(_BLOCK)[:_BLOCK].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
                return False
        first = next((line for line in text_lines(content) if skip(line, 0) < len(line)), "")
        value, end = LENIENT.raw_decode(first, skip(first, 0))
    except (FinetuneError, json.JSONDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and skip(first, end) == len(first)


def rows_from_lines(lines: Iterable[str], file: str) -> Iterator[Row | Rejected]:
    """Yield a row or what is wrong with it for every line that is not blank.

    Args:
        lines: with their newlines; only the last one may lack it.
        file: its name for origins; lines are counted from 1.
    """
    for number, whole in enumerate(lines, 1):
        line = whole.removesuffix("\n")
        start = skip(line, 0)
        if start == len(line):
            continue
        origin = Origin(file, number)
        try:
            value, end, fault = value_at(line, start)
            if skip(line, end) < len(line):
                raise json.JSONDecodeError("text after the end of the row", line, skip(line, end))
        except RecursionError:
            yield Rejected(origin, "broken JSON", "nested too deeply to read")
        except json.JSONDecodeError as error:
            cut = whole == line and (error.msg.startswith("Unterminated") or error.pos >= len(line.rstrip()))
            fix = "the file ends inside this row: fetch or write it again" if cut else ""
            yield Rejected(origin, "broken JSON", syntax(error), fix)
        else:
            yield row_from(line, Element(None, start, end, value, fault), origin)


def _is_lines(content: Content, *, promised: bool) -> bool:
    """Tell JSON Lines from a document by the first lines alone; where these cannot tell, it is none."""
    lines = (line for line in text_lines(content) if skip(line, 0) < len(line))
    first = next(lines, "")
    start = skip(first, 0)
    try:
        value, end = LENIENT.raw_decode(first, start)
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        broken = error.pos < len(first.rstrip())  # What is only cut off may go on with the next line
        return broken and (promised or _an_object_in(itertools.islice(lines, _LOOKED_AT)))
    if skip(first, end) < len(first) or next(lines, None) is not None:
        return True
    return promised and isinstance(value, dict)


def _an_object_in(lines: Iterable[str]) -> bool:
    """Tell JSON Lines with a broken first line from a broken document, by later lines being objects themselves."""
    for line in lines:
        if line.lstrip().startswith("{"):
            try:
                value, end = LENIENT.raw_decode(line.strip())
            except (json.JSONDecodeError, RecursionError):
                continue
            if isinstance(value, dict) and end == len(line.strip()):
                return True
    return False


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
