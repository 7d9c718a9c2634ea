"""Answers that are JSON: their fields, and whether a schema holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.evaluation.scoring.json_scorers import json_fields_scorer, json_schema_scorer


def test_json_fields() -> None:
    reference = '{"name": "Ada", "age": 36, "tags": ["a", "b"], "home": {"city": "London"}, "alive": false}'
    answer = (
        '{"age": 36.0, "name": " Ada ", "tags": ["b", "a"], "home": {"city": "London"}, "alive": 0, "mood": "good"}'
    )
    score = json_fields_scorer().judge(answer, reference)
    assert score.value == pytest.approx(3 / 5)
    assert score.detail == {
        "valid_json": True,
        "fenced": False,
        "fields": {"name": True, "age": True, "tags": False, "home": True, "alive": False},
        "extra": ["mood"],
    }


@pytest.mark.parametrize(
    ("answer", "expected", "valid", "fenced"),
    [
        ('{"a": 1, "b": null}', 1.0, True, False),
        ('```json\n{"a": 1, "b": null}\n```', 1.0, True, True),
        ('{"a": 1}', 0.5, True, False),
        ('{"a": "1", "b": null}', 0.5, True, False),
        ('{"a": true, "b": null}', 0.5, True, False),
        ('{"a": 1, "b": null} That is all.', 0.0, False, False),
        ('Sure: {"a": 1, "b": null}', 0.0, False, False),
        ('[{"a": 1, "b": null}]', 0.0, False, False),
        ("", 0.0, False, False),
    ],
)
def test_json_answers(answer: str, expected: float, valid: bool, fenced: bool) -> None:
    score = json_fields_scorer().judge(answer, '{"a": 1, "b": null}')
    assert score.value == expected
    assert (score.detail["valid_json"], score.detail["fenced"]) == (valid, fenced)
    assert list(score.detail["fields"]) == ["a", "b"]


def test_json_fields_looks_at_the_chosen_fields_only() -> None:
    scorer = json_fields_scorer(("a", "c"))
    assert scorer.judge('{"a": 1, "b": 9}', '{"a": 1, "b": 2}').value == 1
    assert scorer.judge('{"a": 1, "c": 9}', '{"a": 1, "b": 2}').value == 0.5


def test_a_reference_that_is_no_json_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"^the reference is no JSON object: 'x'$"):
        json_fields_scorer().judge("{}", "x")


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "born": {"format": "date"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "right", "valid", "faults"),
    [
        ('{"name": "Ada", "age": 36}', 1, True, []),
        ('```json\n{"name": "Ada"}\n```', 1, True, []),
        ('{"name": "Ada", "age": 36.5}', 0, True, ["$.age: 36.5 is not of type 'integer'"]),
        ('{"age": 36}', 0, True, ["$: 'name' is a required property"]),
        ('{"name": "Ada", "born": "soon"}', 0, True, ["$.born: 'soon' is not a 'date'"]),
        ('"Ada"', 0, True, ["$: 'Ada' is not of type 'object'"]),
        ('{"name": NaN}', 0, False, []),
        ("Ada is 36.", 0, False, []),
        ("[" * 100_000, 0, False, []),
    ],
)
def test_an_answer_is_valid_for_a_schema_or_says_why_not(
    tmp_path: Path, answer: str, right: float, valid: bool, faults: list[str]
) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(PERSON), encoding="utf-8")
    scorer = json_schema_scorer(path)
    score = scorer.judge(answer, "")
    assert score.value == right
    assert (score.detail["valid_json"], score.detail["faults"]) == (valid, faults)
    assert scorer.description.startswith("the answer is valid JSON for person.json (SHA-256 ")
    assert "not checked" not in scorer.description


def test_formats_that_nothing_checks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"properties": {"code": {"type": "string", "format": "icd10"}}}', encoding="utf-8")
    assert json_schema_scorer(path).description.endswith("; its formats icd10 are not checked")
