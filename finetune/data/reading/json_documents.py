"""Where the rows are in a JSON document, found or named by a path, and each with its line; `json_rows` calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune.data.reading.json_values import LENIENT, Element, kind_of, row_from, skip, value_at
from finetune.data.reading.records import Records
from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError, Problem, nearest

_TURN_KEYS = frozenset({"role", "from"})
_DEEPEST = 5
_LISTED = 8


def read_document(text: str, start: int, document: Any, file: str) -> Records:
    """Find the rows of a document: a list, an object keyed by id, or the one list of objects inside an object.

    Raises:
        FinetuneError: there are none, or several lists that could be meant.
    """
    where = f"{file}:{_line(text, start)}"
    if isinstance(document, list):
        return Records(container="JSON list", items=_members(text, start, file))
    if not isinstance(document, dict) or not document:
        raise FinetuneError(f"found {kind_of(document)} where rows are expected", where=where)
    keyed = _is_keyed(document)
    lists = [] if keyed else _lists_of_rows(document, "", _DEEPEST)
    if len(lists) > 1:
        names = ", ".join(repr(path[1:] if path.count("/") == 1 else path) for path in lists)
        fix = f"say which one is meant, e.g. {f'{file}::{lists[0]}'!r}, or keep one list a file"
        raise FinetuneError(f"several lists of rows in one object: {names}", where=where, fix=fix)
    if lists:
        return _list_inside(text, start, document, lists[0], file)
    if keyed or _mostly_objects(document):
        return Records(container="JSON object keyed by id", items=_members(text, start, file))
    return Records(container="one JSON object", items=_members(f"[{text}]", 0, file))


def read_inside(text: str, start: int, document: Any, inside: str, file: str) -> Records:
    """Read the rows that a JSON pointer (RFC 6901) names: a list, or an object keyed by id.

    Raises:
        FinetuneError: the pointer leads nowhere, or to something that holds no rows.
    """
    value, begin = _located(text, start, document, inside, file)
    if not isinstance(value, (list, dict)) or not value:
        found = kind_of(value) if value != [] else "an empty list"
        raise FinetuneError(
            f"found {found} at {inside!r}, where a list of rows is expected",
            where=f"{file}:{_line(text, begin)}",
        )
    words = f"JSON list at {inside!r}" if isinstance(value, list) else f"JSON object keyed by id at {inside!r}"
    return Records(container=words, items=_members(text, begin, file))


def _list_inside(text: str, start: int, document: dict[str, Any], path: str, file: str) -> Records:
    _, begin = _located(text, start, document, path, file)
    if path.count("/") == 1:
        name = path[1:].replace("~1", "/").replace("~0", "~")
        others = [other for other in document if other != name]
        rest = f" (other keys not read: {', '.join(others)})" if others else ""
        words = f"JSON list under {name!r}{rest}"
    else:
        others = []
        words = f"JSON list at {path!r} (nothing else is read)"
    notes: tuple[Problem, ...] = ()
    if others or path.count("/") > 1:
        what = f"read as {words}: it is the only list of objects in the file"
        notes = (Problem(file, what, f"another place is named as {f'{file}::/PATH'!r}", "note"),)
    return Records(container=words, items=_members(text, begin, file), notes=notes)


def _is_keyed(document: Mapping[str, Any]) -> bool:
    """Rows keyed by id: nearly all members are objects, and they share a field that is no container of rows."""
    if len(document) < 2 or not _mostly_objects(document):
        return False
    members = [value for value in document.values() if isinstance(value, dict)]
    shared = set(members[0]).intersection(*members[1:])
    return any(not isinstance(members[0][name], dict) and not _is_list_of_rows(members[0][name]) for name in shared)


def _mostly_objects(document: Mapping[str, Any]) -> bool:
    return sum(isinstance(value, dict) for value in document.values()) * 10 >= len(document) * 9


def _lists_of_rows(document: Mapping[str, Any], path: str, depth: int) -> list[str]:
    found: list[str] = []
    for name, value in document.items():
        place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if _is_list_of_rows(value):
            found.append(place)
        elif isinstance(value, dict) and depth > 1:
            found += _lists_of_rows(value, place, depth - 1)
    return found


def _is_list_of_rows(value: Any) -> bool:
    """A non-empty list of objects that are no turns of one conversation."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return False
    return not all(_TURN_KEYS & item.keys() for item in value)


def _located(text: str, start: int, document: Any, pointer: str, file: str) -> tuple[Any, int]:
    """Follow a pointer in the document and in its text; return the value and where it begins."""
    if pointer and not pointer.startswith("/"):
        fix = f"begin it with a slash: {f'{file}::/{pointer}'!r}"
        raise FinetuneError(f"not a path inside a JSON document: {pointer!r}", where=file, fix=fix)
    value, begin, gone = document, start, ""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        members = _named(value)
        if name not in members:
            near = nearest(name, members)
            known = ", ".join(map(repr, list(members)[:_LISTED])) + (" ..." if len(members) > _LISTED else "")
            found = kind_of(value) + (f" with {known}" if known else "")
            raise FinetuneError(
                f"there is no {name!r} at {gone or '/'!r}: found {found}",
                where=f"{file}:{_line(text, begin)}",
                fix=f"did you mean {f'{gone}/{near}'!r}?" if near else "",
            )
        begin = max(
            member.start
            for number, member in enumerate(_walk(text, begin))
            if name == (str(number) if member.key is None else member.key)
        )
        value, gone = members[name], f"{gone}/{step}"
    return value, begin


def _named(value: Any) -> dict[str, Any]:
    """The members of a list or an object by name; of a key that occurs twice, the last."""
    if isinstance(value, list):
        return {str(number): item for number, item in enumerate(value)}
    return dict(value) if isinstance(value, dict) else {}


def _members(text: str, start: int, file: str) -> Iterator[Row | Rejected]:
    keys: set[str] = set()
    counted, line, empty = 0, 1, True
    for member in _walk(text, start):
        empty = False
        line += text.count("\n", counted, member.start)
        counted = member.start
        origin = Origin(file, line)
        if member.key is not None and member.key in keys:
            yield Rejected(origin, "duplicate key", f"key {member.key!r} names an earlier row too")
            continue
        if member.key is not None:
            keys.add(member.key)
        yield row_from(text, member, origin)
    if empty:
        raise FinetuneError("no rows: the list is empty", where=file)


def _walk(text: str, start: int) -> Iterator[Element]:
    """Yield the members of the well-formed list or object that starts at `start`."""
    position = skip(text, start + 1)
    while text[position] not in "]}":
        key = None
        if text[start] == "{":
            key, position = LENIENT.raw_decode(text, position)
            position = skip(text, skip(text, position) + 1)
        value, end, fault = value_at(text, position)
        yield Element(key, position, end, value, fault)
        position = skip(text, end)
        if text[position] == ",":
            position = skip(text, position + 1)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
