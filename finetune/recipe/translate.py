"""pydantic's errors in plain sentences: one `Fault` a mistake, with its path as the recipe writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from finetune.errors import Problem, nearest
from finetune.recipe.names import suggest
from finetune.recipe.schema import Recipe, Section
from finetune.recipe.tree import Path, Tree, dotted
from finetune.recipe.words import accepts, item_type, kinds, members, or_list, sections, show

# Where somebody may have put a key or a password, which is not to be shown
SECRETS = ("api_key_env", "url")
_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake: the path of the key, what is wrong, the fix, and the key that was probably meant."""

    path: Path
    what: str
    fix: str = ""
    meant: str = ""
    missing: bool = False

    def problem(self, tree: Tree) -> Problem:
        """Return it with the file and line of the key, or of the section a missing key belongs to."""
        return Problem(str(tree.source(self.path)), self.what, self.fix)

    def sections(self) -> set[str]:
        """Return the sections, by dotted name, that cannot be judged because of it."""
        whole = ".".join(map(str, self.path))
        return {whole, whole.rpartition(".")[0], self.meant, self.meant.rpartition(".")[0]}


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where an error's location leads in the schema: the path as the recipe writes it, and what is accepted there.

    `owner` is the section that holds the key, and `siblings` are all sections that could stand in its place.
    """

    path: Path
    annotation: Any
    field: FieldInfo | None
    owner: type[Section]
    siblings: tuple[type[Section], ...]


def faults(error: ValidationError, tree: Tree) -> list[Fault]:
    """Translate all errors of one validation.

    Errors of several union branches about one value become one fault, a list's fault gives way to those of its
    items, and a missing key is not told where a misspelt one was meant to be it.
    """
    found: dict[Path, Fault] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        for fault in _translate(detail, _locate(detail["loc"]), tree):
            found.setdefault(fault.path, fault)
    outer = {path[:depth] for path in found for depth in range(1, len(path))}
    meant = {fault.meant for fault in found.values()}

    def is_told(fault: Fault) -> bool:
        above = [dotted(fault.path[:depth]) for depth in range(1, len(fault.path) + 1)]
        return fault.path in outer or (fault.missing and any(path in meant for path in above))

    return [fault for fault in found.values() if not is_told(fault)]


def _locate(loc: Sequence[str | int]) -> _Spot:
    """Follow pydantic's location through the schema, leaving out its names of union branches."""
    spot = _Spot((), Recipe, None, Recipe, (Recipe,))
    chosen: type[Section] | None = None
    for step in loc:
        choices = sections(spot.annotation)
        branches = {getattr(one, "__name__", "") for one in members(spot.annotation)}
        if len(branches) > 1 and len(choices) < 2 and step in branches:
            continue
        if len(choices) > 1 and chosen is None:
            chosen = kinds(choices)[str(step)]
        elif choices:
            owner = chosen or choices[0]
            field = owner.model_fields.get(str(step))
            spot = _Spot((*spot.path, step), field.annotation if field else None, field, owner, choices)
            chosen = None
        elif isinstance(step, int) or any(get_origin(one) is dict for one in members(spot.annotation)):
            spot = _Spot((*spot.path, step), item_type(spot.annotation), None, spot.owner, spot.siblings)
    return spot


def _translate(detail: ErrorDetails, spot: _Spot, tree: Tree) -> Iterator[Fault]:
    kind = detail["type"]
    if kind == "extra_forbidden":
        yield _unknown_key(spot)
    elif kind == "missing":
        for path, field in _required(spot):
            yield Fault(path, f"missing key {dotted(path)}", str(field.description), missing=True)
    elif kind.startswith("union_tag"):
        yield _unknown_kind(spot, tree.value(spot.path).get("kind"))
    else:
        value = tree.value(spot.path)
        shown = "not of the right form" if spot.path[-1] in SECRETS else show(value)
        what = f"{dotted(spot.path)} is {shown}; it must be {accepts(spot.annotation, spot.field)}"
        yield Fault(spot.path, what, _remedy(value, spot))


def _unknown_key(spot: _Spot) -> Fault:
    *above, key = spot.path
    section = dotted(tuple(above))
    suggestion = suggest(str(key), section, spot.owner, spot.siblings)
    what = f"unknown key {show(key)}" + (f" in {section}" if section else "")
    return Fault(spot.path, what, suggestion.fix, suggestion.target)


def _required(spot: _Spot) -> list[tuple[Path, FieldInfo]]:
    """Return the keys that must be written at a missing place: itself, or the required ones of a whole section."""
    choices = sections(spot.annotation)
    if not choices:
        return [(spot.path, spot.field)] if spot.field else []
    fields = choices[0].model_fields.items()
    return [((*spot.path, name), field) for name, field in fields if field.is_required()]


def _unknown_kind(spot: _Spot, kind: Any) -> Fault:
    valid = kinds(sections(spot.annotation))
    path = (*spot.path, "kind")
    what = f"{dotted(path)} is {show(kind)}; it must be {or_list(valid)}"
    return Fault(path, what, _did_you_mean(kind, valid))


# ------------------------------------------------------------------------------------------------------- remedies


def _remedy(value: Any, spot: _Spot) -> str:
    """Say what to write instead of `value`, where that can be told; empty otherwise."""
    types = members(spot.annotation)
    if value is None:
        optional = spot.field is not None and not spot.field.is_required()
        return "give a value, or leave the key out to take the default" if optional else "give a value"
    if isinstance(value, str):
        return _instead_of_text(value, types)
    if value is True and sections(spot.annotation):
        return "write {} to take its defaults"
    if isinstance(value, dict):
        return "write a list: one '-' before each mapping" if sections(item_type(spot.annotation)) else ""
    if isinstance(value, float) and value.is_integer() and int in types:
        return f"write {int(value)}"
    if isinstance(value, (bool, int, float)) and str in types:
        return f"put it in quotes: '{str(value).lower()}'"
    return ""


def _instead_of_text(value: str, types: tuple[Any, ...]) -> str:
    items = tuple(one for kind in types if get_origin(kind) is tuple for one in members(item_type(kind)))
    if value in kinds(sections_of(types)):
        return f"write {{kind: {value}}}"
    if value in kinds(sections_of(items)):
        return f"write [{{kind: {value}}}]"
    choices = [str(one) for kind in types if get_origin(kind) is Literal for one in get_args(kind)]
    if choices and (guess := _did_you_mean(value, choices)):
        return guess
    if str in items:
        return f"write [{value}]"
    if bool in types:
        word = _BOOLEANS.get(value.lower(), value.lower())
        return f"write {word}" if word in ("true", "false") else ""
    if int in types or float in types:
        number = _number_in(value)
        return f"write {number}" if number else ""
    return ""


def sections_of(types: tuple[Any, ...]) -> list[type[Section]]:
    """Return those of the types that are sections."""
    return [section for one in types for section in sections(one)]


def _did_you_mean(value: Any, valid: Sequence[str] | dict[str, Any]) -> str:
    close = nearest(value, valid) if isinstance(value, str) else None
    return f"did you mean {close!r}?" if close else ""


def _number_in(text: str) -> str:
    """Return the number that a text such as `1_000`, `1,000` or `3` was meant to be, or nothing."""
    bare = text.strip().replace("_", "").replace(",", "")
    return bare if bare.replace(".", "", 1).isdecimal() and bare.isascii() else ""
