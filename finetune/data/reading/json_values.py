"""One JSON value out of a text, read strictly, and the row it makes; `json_rows` and `json_documents` use it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune.data.rows import Origin, Rejected, Row

_SPACE = re.compile(r"[ \t\r\n]*")
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


class Unusable(ValueError):
    """Well-formed JSON that no row may hold; raised inside the decoder, where the fault is seen."""

    def __init__(self, reason: str, detail: str, fix: str = "") -> None:
        self.reason, self.detail, self.fix = reason, detail, fix
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Element:
    """One member of a JSON list or object: text[start:end] reads as `value`, or has a `fault`."""

    key: str | None
    start: int
    end: int
    value: Any
    fault: Unusable | None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unusable("duplicate key", f"key {twice!r} occurs {names.count(twice)} times in one object")
    return fields


def _no_constant(name: str) -> float:
    raise Unusable("not a finite number", f"{name} is not JSON", "write null or a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise Unusable("not a finite number", f"{digits} is too large for a float", "write null or a number")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
LENIENT = json.JSONDecoder(parse_int=len, parse_float=len)
"""Finds where a value ends and how it is nested, whatever is to be said against it."""


def value_at(text: str, start: int) -> tuple[Any, int, Unusable | None]:
    """Return the value that begins at `start`, where it ends, and what no row may hold in it.

    Raises:
        json.JSONDecodeError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        value, end = _STRICT.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        _, end = LENIENT.raw_decode(text, start)
        return None, end, error if isinstance(error, Unusable) else Unusable("broken JSON", str(error))
    return value, end, None


def row_from(text: str, member: Element, origin: Origin) -> Row | Rejected:
    """Make a row of an object; anything else, and text that cannot be written as UTF-8, is rejected."""
    if member.fault is not None:
        return Rejected(origin, member.fault.reason, member.fault.detail, member.fault.fix)
    if not isinstance(member.value, dict):
        return Rejected(origin, "not an object", f"found {kind_of(member.value)}: {excerpt(text, member.start)}")
    if _SUSPECT.search(text, member.start, member.end):
        return checked_row(origin, member.value, member.key)
    return Row(origin, member.value, member.key)


def checked_row(origin: Origin, fields: dict[str, Any], key: str | None = None) -> Row | Rejected:
    """Make a row of fields that no JSON text has been looked through for: NUL and half characters are rejected."""
    fault = next(filter(None, map(_bad_character, _strings(fields))), None)
    return Row(origin, fields, key) if fault is None else Rejected(origin, *fault)


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


def skip(text: str, position: int) -> int:
    """Return the position of the first character at or after `position` that is not JSON white space."""
    found = _SPACE.match(text, position)
    return found.end() if found else position


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value"}
    if isinstance(value, dict) and not value:
        return "an empty object"
    return names.get(type(value), "a number")


def syntax(error: json.JSONDecodeError) -> str:
    """Return what is wrong with the JSON, at which column, and the text there."""
    message = error.msg[:1].lower() + error.msg[1:]
    return f"{message} at column {error.colno}: {excerpt(error.doc, max(0, error.pos - 20))}"


def excerpt(text: str, start: int, length: int = 40) -> str:
    """Return a short piece of a text, quoted."""
    return repr(text[start : start + length]) + ("..." if start + length < len(text) else "")
