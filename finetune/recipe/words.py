"""What a field accepts, in words: used by error messages and by the reference page alike."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from finetune.recipe.contestants import ADDRESS, CURRENCY, VARIABLE
from finetune.recipe.schema import Section
from finetune.recipe.scorer_names import OWN_SCORER

PATTERNS = {
    OWN_SCORER: "a function of your own as module:function",
    ADDRESS: "an address that begins with http:// or https://, without a user, a key or a query in it",
    VARIABLE: "the name of an environment variable: capitals, digits and '_'",
    CURRENCY: "three capitals, e.g. EUR",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "text of letters, digits, '.', '_' and '-' that begins with a letter or digit",
}
LONGEST_VALUE = 60
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", bool: "true or false"}


def show(value: Any) -> str:
    """Return a value as it would be written in YAML, cut to one short line."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]}...{text[-1]}"


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a type without None: `int | None` gives `(int,)`."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        # Text of a certain form is a kind of its own; other limits do not matter here
        return (annotation,) if _pattern(metadata) else members(inner)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(one for branch in get_args(annotation) for one in members(branch))
    return () if annotation is type(None) else (annotation,)


def sections(annotation: Any) -> tuple[type[Section], ...]:
    """Return the Section classes a value of this type may be; none for a plain value or a list."""
    return tuple(one for one in members(annotation) if isinstance(one, type) and issubclass(one, Section))


def item_type(annotation: Any) -> Any:
    """Return the type of the items of a list, or of the values of a mapping; None where there is no such thing."""
    for one in members(annotation):
        if get_origin(one) is tuple:
            return get_args(one)[0]
        if get_origin(one) is dict:
            return get_args(one)[1]
    return None


def kinds(classes: Iterable[type[Section]]) -> dict[str, type[Section]]:
    """Return the sections by the `kind` that chooses them."""
    found = {}
    for one in classes:
        if "kind" in one.model_fields:
            found.update(dict.fromkeys(get_args(one.model_fields["kind"].annotation), one))
    return found


def or_list(names: Iterable[str]) -> str:
    """Join names as `a, b or c`."""
    *first, last = list(names)
    return f"{', '.join(first)} or {last}" if first else last


def accepts(annotation: Any, field: FieldInfo | None = None) -> str:
    """Say what a value of this type has to be: `a whole number, 1 or more`."""
    metadata = field.metadata if field else []
    if pattern := _pattern(metadata):
        return _text_of(pattern)
    return " or ".join(dict.fromkeys(_accepts_one(one) for one in members(annotation))) + _range(metadata)


def _pattern(metadata: Iterable[Any]) -> str | None:
    """Return the pattern that text has to match, where one is asked for."""
    inner = [two for one in metadata for two in (getattr(one, "metadata", None) or (one,))]
    return next((one.pattern for one in inner if getattr(one, "pattern", None)), None)


def _text_of(pattern: str) -> str:
    return PATTERNS.get(pattern, f"text that matches {pattern}")


def _accepts_one(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        return _text_of(_pattern(get_args(kind)[1:]) or "")
    if origin is Literal:
        return or_list(str(choice) for choice in get_args(kind))
    if origin is tuple:
        return f"a list of {_plural(get_args(kind)[0])}"
    if origin is dict:
        return f"a mapping of {_plural(get_args(kind)[0])} to {_plural(get_args(kind)[1])}"
    if isinstance(kind, type) and issubclass(kind, Section):
        return "a mapping of keys"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]


def _plural(kind: Any) -> str:
    return " or ".join(dict.fromkeys(_plural_of_one(one) for one in members(kind)))


def _plural_of_one(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return or_list(str(choice) for choice in get_args(kind))
    return "mappings" if sections(kind) else _PLURALS[kind]


def _range(metadata: Iterable[Any]) -> str:
    bounds = list(metadata)
    low = next((f"{one.ge:g} or more" for one in bounds if isinstance(one, Ge)), "") or next(
        (f"greater than {one.gt:g}" for one in bounds if isinstance(one, Gt)), ""
    )
    high = next((f"at most {one.le:g}" for one in bounds if isinstance(one, Le)), "") or next(
        (f"less than {one.lt:g}" for one in bounds if isinstance(one, Lt)), ""
    )
    said = " and ".join(part for part in (low, high) if part)
    return f", {said}" if said else ""
