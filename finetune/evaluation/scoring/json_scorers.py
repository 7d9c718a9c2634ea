"""Scorers of answers that are JSON: `json_fields` compares fields with the reference, `json_schema` checks a schema."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.evaluation.scoring.json_schemas import read_schema
from finetune.evaluation.scoring.reading import parse_object, parse_value, without_fence
from finetune.evaluation.scoring.scorer import Score, Scorer, right_or_wrong
from finetune.evaluation.scoring.words import collapse


def json_fields_scorer(fields: Sequence[str] = ()) -> Scorer:
    """Share of the reference's JSON fields that the answer gives with the same value.

    The answer must be one JSON object and nothing else; a single code fence around the whole of it is taken off and
    noted, since chat models put it there by habit. Values are equal in type and content; text is compared as by
    `exact`, lists in order. Fields the reference does not have cost nothing and are listed under `extra`.

    Args:
        fields: Compare these only; empty means all of each reference's.
    """

    def judge(answer: str, reference: str) -> Score:
        wanted = parse_object(reference)
        if wanted is None:
            raise ValueError(f"the reference is no JSON object: {reference!r}")
        names = tuple(fields) or tuple(wanted)
        inner, fenced = without_fence(answer)
        given = parse_object(inner)
        right = {
            name: given is not None and _same(given.get(name, _ABSENT), wanted.get(name, _ABSENT)) for name in names
        }
        extra = sorted(set(given or ()) - set(wanted))
        detail = {"valid_json": given is not None, "fenced": fenced, "fields": right, "extra": extra}
        return Score(sum(right.values()) / len(right) if right else float(given == wanted), detail)

    what = f"share of the fields {', '.join(fields)} right" if fields else "share of the reference's JSON fields right"
    unit = "share of fields right"
    return Scorer("json_fields", False, True, unit, judge, what, guess=_commonest_object, best_of=True)


_ABSENT = object()


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return collapse(given) == collapse(wanted)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(_same, given, wanted))
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(_same(given[key], wanted[key]) for key in wanted)
    # True == 1 in Python, but not in JSON; 1 and 1.0 are the same JSON number.
    return isinstance(given, bool) == isinstance(wanted, bool) and bool(given == wanted)


def _commonest_object(references: Sequence[str]) -> str:
    values: dict[str, Counter[str]] = {}
    for reference in references:
        for name, value in (parse_object(reference) or {}).items():
            values.setdefault(name, Counter())[json.dumps(value, sort_keys=True)] += 1
    return json.dumps({name: json.loads(counts.most_common(1)[0][0]) for name, counts in values.items()})


def json_schema_scorer(path: str | Path) -> Scorer:
    """The answer is JSON and nothing else, up to one code fence, and valid against a JSON Schema.

    The reference is not looked at: this measures whether answers can be read by a program, not whether they are true.

    Args:
        path: the schema's file.

    Raises:
        FinetuneError: there is no such file, it is no JSON Schema, or it refers to what it does not hold.
    """
    schema = read_schema(path)

    def judge(answer: str, reference: str) -> Score:
        inner, fenced = without_fence(answer)
        try:
            value = parse_value(inner)
        except ValueError:
            return Score(0.0, {"valid_json": False, "fenced": fenced, "faults": []})
        faults = schema.faults(value)
        return Score(float(not faults), {"valid_json": True, "fenced": fenced, "faults": faults})

    unchecked = f"; its formats {', '.join(schema.unchecked)} are not checked" if schema.unchecked else ""
    what = f"the answer is valid JSON for {Path(path).name} (SHA-256 {schema.sha256[:12]}){unchecked}"
    return right_or_wrong("json_schema", judge, what, guess=lambda references: Counter(references).most_common(1)[0][0])
