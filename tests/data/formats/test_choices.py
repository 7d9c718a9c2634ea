"""Multiple choice: columns and answers in all their forms; how answers count is decided over all rows, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.formats.choices import LETTERS
from tests.data.small_rows import asked, convert, recognised, refused, said

COLOURS = ["red", "green", "blue", "white"]


def item(answer: Any, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"question": f"Which colour {number}?", "choices": COLOURS, "answer": answer} | more


def spread(answer: Any, **names: str) -> dict[str, Any]:
    """A row with a column for each choice."""
    return {"question": "Which?", **dict(zip(names.values(), COLOURS, strict=False)), "answer": answer}


# ----------------------------------------------------------------------------------------------------- recognition


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        (item("B"), ["choices"]),
        ({"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "B"}, ["options"]),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}, ["choices"]),
        ({"question": "q", "choices": '["x", "y"]', "answer": "B"}, ["choices"]),
        (spread("B", a="A", b="B", c="C", d="D"), ["A", "B", "C", "D"]),
        (spread("B", a="opa", b="opb", c="opc", d="opd"), ["opa", "opb", "opc", "opd"]),
        (spread("B", a="option_a", b="option_b"), ["option_a", "option_b"]),
        (spread("B", a="option_1", b="option_2", c="option_3"), ["option_1", "option_2", "option_3"]),
        (spread("B", a="ending0", b="ending1"), ["ending0", "ending1"]),
        (spread("B", a="Choice A", b="Choice B"), ["Choice A", "Choice B"]),
    ],
)
def test_choices_are_found(fields: dict[str, Any], columns: list[str]) -> None:
    found = recognised(fields, fields)
    assert found.format == "multiple_choice"
    assert [column for role, column in found.columns.items() if role.startswith("choice")] == columns
    assert found.decided == {"answer_is": "letter"}
    (example, _), rejected = convert(fields, fields)
    assert (example.reference, rejected) == ("B", [])


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({"question": "q", "answer": "B"}, "prompt_completion"),
        ({"question": "q", "choices": "red or green", "answer": "B"}, "prompt_completion"),
        ({"question": "q", "A": "x", "C": "y", "answer": "B"}, "prompt_completion"),
        ({"question": "q", "option_2": "x", "option_3": "y", "answer": "B"}, "prompt_completion"),
    ],
)
def test_what_are_no_choices(fields: dict[str, Any], other: str) -> None:
    found = recognised(fields, fields)
    assert found.format == other
    assert found.passed_over["multiple_choice"] == "no columns that are usually named as choices"


def test_two_sets_of_choices_are_refused_with_both_named() -> None:
    (problem,) = refused(*[spread("B", a="A", b="B") | {"options": COLOURS}] * 3)
    assert "several may be the choices: 'options'; 'A', 'B'" in problem.what
    examples, _ = convert(*[spread("B", a="A", b="B") | {"options": COLOURS}] * 3, columns={"choices": "options"})
    assert asked(examples[0]).endswith("D. white")


def test_columns_of_the_recipe_win() -> None:
    fields = {"frage": "Welche?", "eins": "rot", "zwei": "blau", "richtig": "b", "satz": "Der Himmel."}
    roles = {"question": "frage", "choice_a": "eins", "choice_b": "zwei", "answer": "richtig", "context": "satz"}
    (example,), _ = convert(fields, columns=roles, system="Antworte.")
    assert [(turn.role, turn.content) for turn in example.messages] == [
        ("system", "Antworte."),
        ("user", "Answer with the letter of the right choice only.\n\nDer Himmel.\n\nWelche?\nA. rot\nB. blau"),
        ("assistant", "B"),
    ]
    (example,), _ = convert(fields, columns=roles, instruction="Nur der Buchstabe.")
    assert asked(example).startswith("Nur der Buchstabe.\n\nDer Himmel.")


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("answers", "kind", "letters", "words"),
    [
        (["A", "c", "(D)", "B."], "letter", "ACDB", "answers are letters ((D), A, B., c over 4 rows)"),
        ([0, 3, 2], "index_0", "ADC", "answers count the choices from 0 (0, 2, 3 over 3 rows)"),
        (["1", "4", "2"], "index_1", "ADB", "answers count the choices from 1 (1, 2, 4 over 3 rows)"),
        ([1.0, 4.0], "index_1", "AD", "answers count the choices from 1 (1.0, 4.0 over 2 rows)"),
        (["green", " blue"], "text", "BC", "answers are the text of their choice (blue, green over 2 rows)"),
    ],
)
def test_how_answers_name_their_choice_is_decided_and_said(
    answers: list[Any], kind: str, letters: str, words: str
) -> None:
    fields = [item(answer, number) for number, answer in enumerate(answers)]
    found = recognised(*fields)
    assert found.decided == {"answer_is": kind}
    assert [(note.severity, note.what) for note in found.notes] == [("note", words)]
    examples, rejected = convert(*fields)
    assert ("".join(example.reference for example in examples), rejected) == (letters, [])


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        (
            [1, 2, 3],
            "answers count the choices from 0, or answers count the choices from 1: the values in column 'answer' "
            "(1, 2, 3) do not tell over 3 rows",
        ),
        (
            [0, 4, 4],
            "answers count the choices from 1, or answers count the choices from 0: the values in column 'answer' "
            "(0, 4) do not tell over 3 rows",
        ),
        (["x", "y", "A"], "the answers in column 'answer' (A, x, y) name none of the choices in 2 of 3 rows"),
    ],
)
def test_undecidable_answers_are_refused_naming_the_setting(answers: list[Any], what: str) -> None:
    fields = [item(answer, number) for number, answer in enumerate(answers)]
    (problem,) = refused(*fields)
    assert (problem.where, problem.what) == ("recipe.yaml:4", what)
    assert problem.fix == "write `answer_is: letter` (index_0, index_1 or text) under data"
    examples, rejected = convert(*[item(1), item(2), item(3)], answer_is="index_1")
    assert ([example.reference for example in examples], rejected) == (["A", "B", "C"], [])


def test_numbers_that_are_choices_themselves_are_read_as_texts_or_refused() -> None:
    def sum_of(answer: int, choices: list[str]) -> dict[str, Any]:
        return {"question": "How many?", "choices": choices, "answer": answer}

    found = recognised(sum_of(7, ["5", "7"]), sum_of(9, ["8", "9"]))
    assert found.decided == {"answer_is": "text"}
    (problem,) = refused(sum_of(2, ["2", "1"]), sum_of(1, ["2", "1"]))
    assert "answers count the choices from 1, or answers are the text of their choice" in problem.what


def test_rows_that_name_no_choice_are_rejected_with_their_reason() -> None:
    examples, rejected = convert(
        item(1),
        item(4),
        item(2),
        item(7),
        item(-1),
        item(None),
        item(1, choices=["only"]),
        item(1, choices=["a", None, "c"]),
        item(1, choices=[f"{n}" for n in range(27)]),
        item(1, question=" "),
    )
    assert [example.reference for example in examples] == ["A", "D", "B"]
    out = "which is none of 4 choices (answers count the choices from 1)"
    assert said(rejected) == [
        (4, "choice out of range", f"column 'answer' is '7', {out}"),
        (5, "choice out of range", f"column 'answer' is '-1', {out}"),
        (6, "empty answer", "column 'answer' is null"),
        (7, "no choices", "1 choices, from 2 to 26 can be asked"),
        (8, "empty choice", "choice 2 of column 'choices' is null"),
        (9, "no choices", "27 choices, from 2 to 26 can be asked"),
        (10, "empty prompt", "column 'question' is ' '"),
    ]


def test_trailing_empty_choices_are_none() -> None:
    fields = [spread("A", a="A", b="B", c="C"), spread("A", a="A", b="B") | {"C": None}, spread("C", a="A", b="B")]
    examples, rejected = convert(*fields)
    assert [asked(example).splitlines()[-1] for example in examples] == ["C. blue", "B. green"]
    assert [reason for _, reason, _ in said(rejected)] == ["choice out of range"]


@given(st.lists(st.tuples(st.integers(2, 8), st.floats(0, 1, exclude_max=True)), min_size=1, max_size=12))
def test_every_form_of_an_answer_asks_for_the_same_letter(drawn: list[tuple[int, float]]) -> None:
    items = [
        ([f"choice {number} {place}" for place in range(count)], int(count * share))
        for number, (count, share) in enumerate(drawn)
    ]
    for kind in ("letter", "index_0", "index_1", "text"):
        fields = [
            {"question": "?", "choices": choices, "answer": written(choices, right, kind)} for choices, right in items
        ]
        examples, rejected = convert(*fields, answer_is=kind)
        assert rejected == []
        assert [example.reference for example in examples] == [LETTERS[right] for _, right in items]


def written(choices: list[str], right: int, kind: str) -> Any:
    return {"letter": LETTERS[right], "index_0": right, "index_1": right + 1, "text": choices[right]}[kind]
