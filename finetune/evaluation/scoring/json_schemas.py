"""A JSON Schema from a file, with nothing fetched from elsewhere: `read_schema(path).faults(value)`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError

_MOST_FAULTS = 3
_LONGEST_FAULT = 200
_KEY = "evaluate.schema_file"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A schema that has been found sound. `unchecked` names the formats in it that nothing here can check."""

    sha256: str
    unchecked: tuple[str, ...]
    validator: Any

    def faults(self, value: Any) -> list[str]:
        """Return the first few places at which a value is not what the schema asks for, none where it is valid."""
        try:
            found = sorted(self.validator.iter_errors(value), key=lambda error: [str(step) for step in error.path])
        except RecursionError:
            return ["$: nested too deep to be checked"]
        return [_clipped(f"{error.json_path}: {error.message}") for error in found[:_MOST_FAULTS]]


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_FAULT else text[: _LONGEST_FAULT - 3] + "..."


def read_schema(path: str | Path) -> JsonSchema:
    """Read a JSON Schema of any draft that `$schema` names, of 2020-12 without one (json-schema.org).

    Raises:
        FinetuneError: there is no such file, it is no JSON Schema, or it refers to what it does not hold.
    """
    from jsonschema import exceptions, validators
    from referencing import Registry

    raw, schema = _read(str(path))
    dialect = schema.get("$schema") if isinstance(schema, dict) else None
    otherwise: Any = None if dialect else validators.Draft202012Validator
    make: Any = validators.validator_for(schema, default=otherwise)
    if make is None:
        raise _fault(path, f"$schema {dialect!r} is no dialect of JSON Schema that is known here", "leave $schema out")
    try:
        make.check_schema(schema)
    except exceptions.SchemaError as error:
        what = _clipped(f"it is no JSON Schema: {error.json_path}: {error.message}")
        raise _fault(path, what, "mend the schema") from None
    # A registry of our own: the one jsonschema takes otherwise fetches references from the network
    registry: Any = Registry()
    _check_references(path, make, schema, registry)
    validator = make(schema, registry=registry, format_checker=make.FORMAT_CHECKER)
    try:
        for sample in ("null", "{}", "[]", '""', "0"):
            list(validator.iter_errors(json.loads(sample)))
    except RecursionError:
        raise _fault(path, "a reference in it leads back to itself without end", "mend the schema") from None
    unchecked = sorted(_formats(schema) - set(make.FORMAT_CHECKER.checkers))
    return JsonSchema(hashlib.sha256(raw).hexdigest(), tuple(unchecked), validator)


def _fault(path: str | Path, what: str, fix: str) -> FinetuneError:
    return FinetuneError(f"{str(path)!r}: {what}", where=_KEY, fix=fix)


def _read(path: str) -> tuple[bytes, Any]:
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _fault(path, f"cannot be read: {reason}", "give the path of a JSON Schema file") from None
    try:
        return raw, json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"broken JSON: {error}", "mend the file") from None


def _check_references(path: str | Path, make: Any, schema: Any, registry: Any) -> None:
    """Refuse a `$ref` that nothing in the file answers, before the first answer meets it."""
    from referencing.exceptions import Unresolvable, Unretrievable
    from referencing.jsonschema import specification_with

    dialect = specification_with(make.META_SCHEMA["$schema"])
    root = dialect.create_resource(schema)
    left = [(root, registry.resolver_with_root(root))]
    while left:
        resource, resolver = left.pop()
        for key in ("$ref", "$dynamicRef"):
            reference = resource.contents.get(key) if isinstance(resource.contents, dict) else None
            try:
                if isinstance(reference, str):
                    resolver.lookup(reference)
            except (Unresolvable, Unretrievable):
                what = f"{key} {reference!r} leads to nothing in the file, and nothing is fetched from elsewhere"
                raise _fault(path, what, "write what it means under $defs in the file") from None
        left += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _formats(schema: Any) -> set[str]:
    """Return the values of every `format` in a schema."""
    if isinstance(schema, list):
        return {name for one in schema for name in _formats(one)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["format"]} if isinstance(schema.get("format"), str) else set()
    return own | {name for one in schema.values() for name in _formats(one)}
