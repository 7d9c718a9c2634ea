"""Schemas from files: sound ones of several drafts, and what is refused before the first answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.json_schemas import read_schema


def written(tmp_path: Path, schema: Any) -> Path:
    path = tmp_path / "schema.json"
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("schema", "value", "faults"),
    [
        (True, {"a": 1}, []),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}, "x", ["$: 'x' is not of type 'integer'"]),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}, 3, None),
        (
            {"$id": "urn:x", "items": {"$ref": "item"}, "$defs": {"i": {"$id": "item", "const": 1}}},
            [1, 2],
            ["$[1]: 1 was expected"],
        ),
        ({"required": list("abcdef")}, {}, [f"$: {name!r} is a required property" for name in "abc"]),
        ({"items": {"$ref": "#"}, "type": "array"}, [[["x"]]], ["$[0][0][0]: 'x' is not of type 'array'"]),
    ],
)
def test_what_a_schema_says_of_a_value(tmp_path: Path, schema: Any, value: Any, faults: list[str] | None) -> None:
    found = read_schema(written(tmp_path, schema)).faults(value)
    assert len(found) == 1 if faults is None else found == faults


def test_an_answer_that_is_nested_too_deep_is_a_fault_of_the_answer(tmp_path: Path) -> None:
    schema = read_schema(written(tmp_path, {"items": {"$ref": "#"}, "type": "array"}))
    value: list[Any] = []
    for _ in range(900):
        value = [value]
    assert schema.faults(value) == ["$: nested too deep to be checked"]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "broken JSON: Expecting property name enclosed in double quotes"),
        ({"type": "integr"}, "it is no JSON Schema: $.type: 'integr' is not valid under any of the given schemas"),
        ([1], "it is no JSON Schema: $: [1] is not of type 'object', 'boolean'"),
        ({"pattern": "("}, "it is no JSON Schema: $.pattern: '(' is not a 'regex'"),
        ({"$schema": "https://example.org/mine"}, "$schema 'https://example.org/mine' is no dialect of JSON Schema"),
        ({"$ref": "#/$defs/b"}, "$ref '#/$defs/b' leads to nothing in the file, and nothing is fetched from elsewhere"),
        ({"items": {"$ref": "https://example.org/a"}}, "$ref 'https://example.org/a' leads to nothing in the file"),
        ({"$ref": "#"}, "a reference in it leads back to itself without end"),
    ],
)
def test_refused_schemas(tmp_path: Path, schema: Any, message: str, connections: list[str]) -> None:
    path = written(tmp_path, schema)
    with pytest.raises(FinetuneError) as caught:
        read_schema(path)
    assert str(caught.value).startswith(f"evaluate.schema_file: {str(path)!r}: {message}")
    assert connections == []
    assert socket.socket is not None


def test_a_schema_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="cannot be read: No such file or directory"):
        read_schema(tmp_path / "gone.json")
