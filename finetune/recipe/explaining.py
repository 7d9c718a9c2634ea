"""What a recipe amounts to: every setting with its origin, the resolved YAML, the JSON Schema, the reference page."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from finetune.recipe.rules import findings, is_set
from finetune.recipe.schema import Recipe, Section
from finetune.recipe.tree import DECIMAL, WHOLE
from finetune.recipe.words import accepts, item_type, kinds, or_list, sections

DEFAULT = "default"
PYTHON = "<python>"
EXTENDS = (
    "Another recipe file, relative to this one, whose settings hold where this file says nothing. Mappings are "
    "merged, lists and sections of another `kind` are replaced. The other file cannot extend a third."
)
KIND = "Which of these it is; the other keys follow from it."
NUMBER = re.compile(f"(?:{WHOLE.pattern}|{DECIMAL.pattern})$")


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as the run will use it: dotted path, value, where it was written, and what it means."""

    path: str
    value: Any
    origin: str
    description: str


def explain(recipe: Recipe) -> list[Effective]:
    """Return every setting of a recipe, written or default, in the order of the schema."""
    origins = recipe._origins
    return [
        Effective(path, value, origins.get(path) or _origin(recipe, path), field.description or KIND)
        for path, value, field in _settings(recipe, "")
    ]


def _origin(recipe: Recipe, path: str) -> str:
    """Tell a default from a setting of a recipe that was built in Python without the reader."""
    return PYTHON if not recipe._origins and is_set(recipe, path) else DEFAULT


def _settings(section: Section, prefix: str) -> Iterator[tuple[str, Any, FieldInfo]]:
    for name in _names(type(section)):
        path, value, field = f"{prefix}{name}", getattr(section, name), type(section).model_fields[name]
        if isinstance(value, Section):
            yield from _settings(value, f"{path}.")
        elif isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
            for number, item in enumerate(value):
                if isinstance(item, Section):
                    yield from _settings(item, f"{path}.{number}.")
                else:
                    yield f"{path}.{number}", item, field
        else:
            yield path, value, field


def _names(section: type[Section]) -> list[str]:
    """Return the keys of a section, `kind` first: it says how to read the rest."""
    return sorted(section.model_fields, key=lambda name: name != "kind")


# ------------------------------------------------------------------------------------------------- resolved recipe


class _Dumper(yaml.SafeDumper):
    """Quotes what the reader would take for a number (`1e-4`), and escapes line ends that YAML would change."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(end in text for end in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _write_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


def to_yaml(recipe: Recipe, *, only_set: bool = False) -> str:
    """Write a recipe as YAML that loads again to an equal recipe.

    Args:
        recipe: the recipe.
        only_set: leave out what nobody wrote. Otherwise every setting is written, but for defaults that have no
            effect beside the others (`train.epochs` where `train.steps` counts), which reading would refuse.
    """
    values = _values(recipe, only_set)
    if not only_set:
        as_if_written = Recipe.model_validate_json(json.dumps(values), strict=True)
        for finding in findings(as_if_written):
            if not is_set(recipe, finding.key):
                _drop(values, finding.key)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _values(section: Section, only_set: bool) -> dict[str, Any]:
    """Return a section as plain values; `kind` is always among them."""
    values: dict[str, Any] = {}
    for name in _names(type(section)):
        value = getattr(section, name)
        if only_set and name != "kind" and name not in section.model_fields_set:
            continue
        if isinstance(value, Section):
            value = _values(value, only_set)
        elif isinstance(value, tuple):
            value = [_values(one, only_set) if isinstance(one, Section) else one for one in value]
        values[name] = value
    return values


def _drop(values: dict[str, Any], key: str) -> None:
    *above, name = key.split(".")
    place: Any = values
    for step in above:
        place = place[int(step)] if isinstance(place, list) else place[step]
    del place[name]


# -------------------------------------------------------------------------------------------------------- reference


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file, from which editors complete and check."""
    schema = Recipe.model_json_schema()
    extends = {"type": "string", "description": EXTENDS, "title": "Extends"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "finetune recipe",
        "properties": {"extends": extends, **schema["properties"]},
        "required": [],
        "anyOf": [{"required": schema["required"]}, {"required": ["extends"]}],
    }


def reference_markdown() -> str:
    """Return the documentation of every setting, one table a section, made from the schema."""
    lines = ["# Recipe reference", "", f"`extends` (at the top of the file): {EXTENDS}"]
    for name, field in Recipe.model_fields.items():
        lines += _reference_of(name, field)
    return "\n".join(lines) + "\n"


def _reference_of(path: str, field: FieldInfo) -> Iterator[str]:
    """Yield the heading and the table of one section, then those of the sections inside it."""
    classes = sections(field.annotation) or sections(item_type(field.annotation))
    yield from ("", f"## `{path}`", "", field.description or "")
    if not sections(field.annotation):
        default = "" if field.is_required() else _as_flow(field.get_default(call_default_factory=True))
        yield f"A list; default `{default}`. The keys of each item:" if default else "Keys of a mapping in its list:"
    if len(classes) > 1:
        yield from ("", *(f"- `kind: {kind}`: {inspect.getdoc(one)}" for kind, one in kinds(classes).items()))
    yield from ("", "| key | type | default | meaning |", "|---|---|---|---|")
    inside: dict[str, FieldInfo] = {}
    for name, owners in _keys_of(classes).items():
        inner = owners[0].model_fields[name]
        item = sections(item_type(inner.annotation))
        told = [item_type(other.annotation) for other in inside.values()]
        if sections(inner.annotation) or (item and item_type(inner.annotation) not in told):
            inside[name] = inner
        only = f" ({', '.join(kinds(owners))})" if len(owners) < len(classes) else ""
        meaning = (inner.description or KIND).replace("|", "\\|")
        yield f"| `{name}`{only} | {_type_of(name, inner, classes)} | {_default_of(name, inner, field)} | {meaning} |"
    for name, inner in inside.items():
        yield from _reference_of(f"{path}.{name}", inner)


def _keys_of(classes: tuple[type[Section], ...]) -> dict[str, list[type[Section]]]:
    """Return each key of a section once, with the classes that have it."""
    keys: dict[str, list[type[Section]]] = {}
    for one in classes:
        for name in _names(one):
            keys.setdefault(name, []).append(one)
    return keys


def _type_of(name: str, field: FieldInfo, classes: tuple[type[Section], ...]) -> str:
    return or_list(kinds(classes)) if name == "kind" else accepts(field.annotation, field)


def _default_of(name: str, field: FieldInfo, parent: FieldInfo) -> str:
    if name == "kind" and parent.discriminator:
        return f"`{parent.get_default(call_default_factory=True).kind}`"
    if field.is_required() or (name == "kind" and len(kinds(sections(item_type(parent.annotation)))) > 1):
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    return "see below" if isinstance(value, Section) else f"`{_as_flow(value)}`"


def _as_flow(value: Any) -> str:
    """Return a value on one line of YAML."""
    if isinstance(value, tuple):
        value = [_values(one, False) if isinstance(one, Section) else one for one in value]
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
