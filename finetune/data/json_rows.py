"""Rows out of JSON text (list, object keyed by id, JSON Lines), each with the line it starts on; `sources` calls it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError

_SPACE = re.compile(r"[ \t\r\n]*")
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_TURN_KEYS = frozenset({"role", "from"})


class _Unusable(ValueError):
    """Well-formed JSON that no row may hold; raised inside the decoder, where the fault is seen."""

    def __init__(self, reason: str, detail: str, fix: str = "") -> None:
        self.reason, self.detail, self.fix = reason, detail, fix
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class _Element:
    """One member of a JSON list or object: text[start:end] reads as `value`, or has a `fault`."""

    key: str | None
    start: int
    end: int
    value: Any
    fault: _Unusable | None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unusable("duplicate key", f"key {twice!r} occurs {names.count(twice)} times in one object")
    return fields


def _no_constant(name: str) -> float:
    raise _Unusable("not a finite number", f"{name} is not JSON", "write null or a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Unusable("not a finite number", f"{digits} is too large for a float", "write null or a number")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
# Finds where a value ends and how it is nested, whatever _STRICT has against it.
_LENIENT = json.JSONDecoder(parse_int=len, parse_float=len)


def rows_from_json(text: str, file: str, *, lines: bool) -> tuple[list[Row], list[Rejected], str]:
    """Read the rows of a JSON text, whichever of the accepted layouts it has.

    Args:
        text: the whole file, decoded.
        file: the file's name for origins.
        lines: the file's name promises JSON Lines, which decides between one row and rows keyed by id.

    Returns:
        rows, rejected rows, and the layout in words.

    Raises:
        FinetuneError: the text as a whole is not JSON, holds no rows, or holds them in no accepted layout.
    """
    start = _skip(text, 0)
    try:
        document, end = _LENIENT.raw_decode(text, start)
    except RecursionError:
        raise FinetuneError("JSON nested too deeply to read", where=f"{file}:{_line(text, start)}") from None
    except json.JSONDecodeError as error:
        if lines or _later_line_is_object(text, start):
            return *_read_lines(text, file), "JSON Lines"
        raise FinetuneError(f"broken JSON: {_syntax(error)}", where=f"{file}:{error.lineno}") from None
    if _skip(text, end) == len(text):
        if isinstance(document, dict) and lines and "\n" not in text[start:end]:
            return *_read_lines(text, file), "JSON Lines"
        return _read_document(text, start, document, file)
    if "\n" in text[start:end]:
        raise FinetuneError(
            "JSON values written over several lines, one after another: neither JSON nor JSON Lines",
            where=f"{file}:{_line(text, start)}",
            fix="write each object on one line (`jq -c . FILE`), or put all of them in one list",
        )
    return *_read_lines(text, file), "JSON Lines"


def _read_document(text: str, start: int, document: Any, file: str) -> tuple[list[Row], list[Rejected], str]:
    where = f"{file}:{_line(text, start)}"
    if isinstance(document, list):
        return *_read_members(text, start, file), "JSON list"
    if not isinstance(document, dict) or not document:
        raise FinetuneError(f"found {_kind(document)} where rows are expected", where=where)
    objects = sum(isinstance(value, dict) for value in document.values())
    if objects * 10 >= len(document) * 9:
        return *_read_members(text, start, file), "JSON object keyed by id"
    lists = [name for name, value in document.items() if _is_list_of_rows(value)]
    if len(lists) > 1:
        raise FinetuneError(
            f"several lists of rows in one object: {', '.join(map(repr, lists))}",
            where=where,
            fix="keep one list a file",
        )
    if not lists:
        return *_read_members(f"[{text}]", 0, file), "one JSON object"
    begin = next(member.start for member in _walk(text, start) if member.key == lists[0])
    others = [name for name in document if name != lists[0]]
    rest = f" (other keys not read: {', '.join(others)})" if others else ""
    return *_read_members(text, begin, file), f"JSON list under {lists[0]!r}{rest}"


def _is_list_of_rows(value: Any) -> bool:
    """A non-empty list of objects that are no turns of one conversation."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return False
    return not all(_TURN_KEYS & item.keys() for item in value)


def _read_members(text: str, start: int, file: str) -> tuple[list[Row], list[Rejected]]:
    rows: list[Row] = []
    rejected: list[Rejected] = []
    keys: set[str] = set()
    counted, line = 0, 1
    for member in _walk(text, start):
        line += text.count("\n", counted, member.start)
        counted = member.start
        origin = Origin(file, line)
        if member.key is not None and member.key in keys:
            rejected.append(Rejected(origin, "duplicate key", f"key {member.key!r} names an earlier row too"))
            continue
        if member.key is not None:
            keys.add(member.key)
        _sort_in(_row(text, member, origin), rows, rejected)
    if not rows and not rejected:
        raise FinetuneError("no rows: the list is empty", where=file)
    return rows, rejected


def _walk(text: str, start: int) -> Iterator[_Element]:
    """Yield the members of the well-formed list or object that starts at `start`."""
    position = _skip(text, start + 1)
    while text[position] not in "]}":
        key = None
        if text[start] == "{":
            key, position = _LENIENT.raw_decode(text, position)
            position = _skip(text, _skip(text, position) + 1)
        value, end, fault = _value(text, position)
        yield _Element(key, position, end, value, fault)
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _value(text: str, start: int) -> tuple[Any, int, _Unusable | None]:
    try:
        value, end = _STRICT.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        _, end = _LENIENT.raw_decode(text, start)
        return None, end, error if isinstance(error, _Unusable) else _Unusable("broken JSON", str(error))
    return value, end, None


def _read_lines(text: str, file: str) -> tuple[list[Row], list[Rejected]]:
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(text.split("\n"), 1):
        start = _skip(line, 0)
        if start == len(line):
            continue
        origin = Origin(file, number)
        try:
            value, end, fault = _value(line, start)
            if _skip(line, end) < len(line):
                raise json.JSONDecodeError("text after the end of the row", line, _skip(line, end))
        except RecursionError:
            rejected.append(Rejected(origin, "broken JSON", "nested too deeply to read"))
        except json.JSONDecodeError as error:
            rejected.append(Rejected(origin, "broken JSON", _syntax(error)))
        else:
            _sort_in(_row(line, _Element(None, start, end, value, fault), origin), rows, rejected)
    return rows, rejected


def _sort_in(item: Row | Rejected, rows: list[Row], rejected: list[Rejected]) -> None:
    if isinstance(item, Row):
        rows.append(item)
    else:
        rejected.append(item)


def _row(text: str, member: _Element, origin: Origin) -> Row | Rejected:
    if member.fault is not None:
        return Rejected(origin, member.fault.reason, member.fault.detail, member.fault.fix)
    if not isinstance(member.value, dict):
        return Rejected(origin, "not an object", f"found {_kind(member.value)}: {_excerpt(text, member.start)}")
    if _SUSPECT.search(text, member.start, member.end):
        fault = next(filter(None, map(_bad_character, _strings(member.value))), None)
        if fault is not None:
            return Rejected(origin, *fault)
    return Row(origin, member.value, member.key)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _bad_character(value: str) -> tuple[str, str, str] | None:
    found = re.search("[\x00\ud800-\udfff]", value)
    if found is None:
        return None
    if found[0] == "\x00":
        return "NUL character", f"\\u0000 at character {found.start() + 1} of a value", "remove it"
    code = f"\\u{ord(found[0]):04x}"
    return (
        "lone surrogate",
        f"{code} at character {found.start() + 1} of a value",
        "half of a character pair is missing",
    )


def _later_line_is_object(text: str, start: int) -> bool:
    """Tell JSON Lines with a broken first line from a broken document, by the next lines being objects themselves."""
    for line in text[start:].split("\n", 11)[1:11]:
        if line.lstrip().startswith("{"):
            try:
                value, end = _LENIENT.raw_decode(line.strip())
            except (json.JSONDecodeError, RecursionError):
                continue
            if isinstance(value, dict) and end == len(line.strip()):
                return True
    return False


def _skip(text: str, position: int) -> int:
    """Return the position of the first character at or after `position` that is not JSON white space."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    if isinstance(value, dict) and not value:
        return "an empty object"
    return names.get(type(value), "a number")


def _syntax(error: json.JSONDecodeError) -> str:
    message = error.msg[:1].lower() + error.msg[1:]
    return f"{message} at column {error.colno}: {_excerpt(error.doc, max(0, error.pos - 20))}"


def _excerpt(text: str, start: int, length: int = 40) -> str:
    return repr(text[start : start + length]) + ("..." if start + length < len(text) else "")
