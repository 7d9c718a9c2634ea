"""Numbers and JSON objects taken out of answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.scoring.reading import last_number, parse_object, without_fence


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("The answer is 42.", 42),
        ("3 + 4 = 7", 7),
        ("half of 10 is 5, so\n#### 5", 5),
        ("#### 1,234 apples, that is 12 boxes", 1234),
        ("#### 3\nOr rather #### 4", 4),
        ("1,234,567.89", 1234567.89),
        ("10 000", 10000),
        ("12'500", 12500),
        ("1_000", 1000),
        ("12\u202f500", 12500),
        ("1,2,3", 3),
        ("(1, 2)", 2),
        ("in 2019 300 people came", 300),
        ("-5", -5),
        ("\u22125", -5),
        ("= -3.5", -3.5),
        ("10-3", 3),
        ("10 - 3", 3),
        ("2019-2020", 2020),
        ("$-5", -5),
        ("-$5.50", -5.5),
        ("costs $1,234.50 in all", 1234.5),
        ("\u20ac 12", 12),
        ("USD500", 500),
        ("12 %", 12),
        ("12.5%", 12.5),
        (".5", 0.5),
        ("is...42", 42),
        ("2e-3", 0.002),
        ("42 kg of CO2", 42),
        ("v1.2.3", None),
        ("no number", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@given(st.integers(-(10**12), 10**12))
def test_every_written_integer_is_read(value: int) -> None:
    for written in (str(value), f"{value:,}", f"{value:_}", f"so it is {value:,}.", f"#### {value}"):
        assert last_number(written) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_written_float_is_read(value: float) -> None:
    assert last_number(f"x = {value!r}") == value


@given(st.text())
def test_any_text_is_read_without_error(text: str) -> None:
    assert last_number(text) is None or isinstance(last_number(text), float)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "1",
        "null",
        '{"a": NaN}',
        '{"a": -Infinity}',
        "{'a': 1}",
        '{"a": 1} and more',
        '{"a": 1}{"a": 1}',
        '{"a": ' * 100_000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_not_a_json_object(text: str) -> None:
    assert parse_object(text) is None


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_json_objects_are_read(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("answer", "inner", "fenced"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}', True),
        ('\n```\n{"a": 1}```\n', '{"a": 1}', True),
        ('```JSON {"a": 1} ```', '{"a": 1}', True),
        ('{"a": 1}', '{"a": 1}', False),
        ('Here: ```json\n{"a": 1}\n```', 'Here: ```json\n{"a": 1}\n```', False),
        ('```json\n{"a": 1}\n``` Done.', '```json\n{"a": 1}\n``` Done.', False),
    ],
)
def test_fences(answer: str, inner: str, fenced: bool) -> None:
    assert without_fence(answer) == (inner, fenced)
