"""Preference pairs and single judgements: the prompt both sides share, the worse side kept, the odd pair rejected."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.data.rows import Message
from tests.data.small_rows import convert, recognised, refused, said


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": each} for number, each in enumerate(contents)]


def transcript(*contents: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[number % 2]}: {each}" for number, each in enumerate(contents))


def pair(chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected} | more


LONG = ("Hi\n\nthere", "Hello: what?", "Bye")


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        (pair("Ciao", "Go", prompt="Bye"), ["prompt", "chosen", "rejected"]),
        (pair(turns("Bye", "Ciao"), turns("Bye", "Go")), ["chosen", "rejected"]),
        (pair(turns("Bye", "Ciao"), turns("Bye", "Go"), prompt="Bye"), ["prompt", "chosen", "rejected"]),
        (pair(turns("Bye", "Ciao")[1:], turns("Bye", "Go")[1:], prompt=turns("Bye")), ["prompt", "chosen", "rejected"]),
        (pair(transcript("Bye", "Ciao"), transcript("Bye", "Go")), ["chosen", "rejected"]),
        ({"question": "Bye", "response_chosen": "Ciao", "response_rejected": "Go"}, ["prompt", "chosen", "rejected"]),
    ],
)
def test_pairs_are_recognised_with_explicit_and_implicit_prompts(fields: dict[str, Any], columns: list[str]) -> None:
    found = recognised(fields, fields)
    assert (found.format, sorted(found.columns)) == ("preference", sorted(columns))
    (example, _), rejected = convert(fields, fields)
    assert rejected == []
    assert example.messages == (Message("user", "Bye", learn=False), Message("assistant", "Ciao"))
    assert example.rejected == (Message("assistant", "Go"),)
    assert example.reference == "Ciao"


@pytest.mark.parametrize("write", [turns, transcript])
def test_the_prompt_is_what_both_conversations_have_in_common(write: Any) -> None:
    (example,), rejected = convert(pair(write(*LONG, "Ciao"), write(*LONG, "Go")), system="Be kind.")
    assert rejected == []
    assert [(turn.role, turn.content, turn.learn) for turn in example.messages] == [
        ("system", "Be kind.", True),
        ("user", "Hi\n\nthere", False),
        ("assistant", "Hello: what?", False),
        ("user", "Bye", False),
        ("assistant", "Ciao", True),
    ]
    assert example.rejected == (Message("assistant", "Go"),)


def test_pairs_that_cannot_be_learned_are_rejected_with_their_reason() -> None:
    good = pair(turns("a", "b", "c", "d"), turns("a", "b", "c", "e"))
    _, rejected = convert(
        good,
        good | {"rejected": turns("a", "x", "c", "e")},
        good | {"rejected": turns("a", "e")},
        good | {"rejected": turns("a", "b", "c", "d")},
        good | {"rejected": turns("a", "b", "c", "")},
        good | {"rejected": turns("a", "b", "c")},
        good | {"rejected": None},
        pair("d", "e"),
        pair(transcript("a", "b"), transcript("a", "")),
    )
    assert said(rejected) == [
        (2, "differing prompts", "turn 2 of 4 is not the same in chosen and rejected"),
        (3, "differing prompts", "chosen has 4 turns and rejected has 2"),
        (4, "chosen and rejected are equal", "both answers are 'd'"),
        (5, "empty answer", "turn 4 of column 'rejected' is ''"),
        (6, "differing prompts", "chosen has 4 turns and rejected has 3"),
        (7, "empty answer", "column 'rejected' is null"),
        (8, "empty prompt", "there is no prompt before the answers"),
        (9, "empty answer", "turn 2 of column 'rejected' is ''"),
    ]
    _, rejected = convert(*[pair(turns("a", "b"), turns("a", "c"), prompt=text) for text in ("a", "z")])
    assert said(rejected) == [
        (2, "differing prompts", "column 'prompt' is 'z', which is not in chosen and rejected"),
    ]


def test_texts_without_a_prompt_are_no_pairs() -> None:
    (problem,) = refused(*[pair("Ciao", "Go")] * 3)
    why = "columns 'chosen' and 'rejected' hold neither turns nor transcripts, and there is no prompt"
    assert f"preference: {why} (needs" in problem.what
    (problem,) = refused(*[{"prompt": "p", "chosen": "c"}] * 3)
    assert "preference: no columns that are usually named as a better and a worse answer" in problem.what


# ------------------------------------------------------------------------------------------------------------- kto


@pytest.mark.parametrize(
    ("good", "bad"), [(True, False), (1, 0), ("good", "bad"), ("+1", "-1"), ("Desirable", "undesirable"), (1, -1)]
)
def test_judged_answers_are_recognised(good: Any, bad: Any) -> None:
    fields = [{"prompt": f"p{n}", "completion": "c", "label": (good, bad)[n % 2]} for n in range(4)]
    found = recognised(*fields)
    assert (found.format, found.why) == ("kto", "columns 'prompt', 'completion' and 'label' over 4 rows")
    assert found.passed_over["prompt_completion"] == "'kto' fits better"
    examples, rejected = convert(*fields)
    assert ([example.desirable for example in examples], rejected) == ([True, False] * 2, [])
    assert all(example.label is None for example in examples)


@pytest.mark.parametrize("marks", [[True, True], ["yes", "maybe"], [1, 2], ["blue", "red"]])
def test_other_marks_leave_a_prompt_and_its_completion(marks: list[Any]) -> None:
    found = recognised(*[{"prompt": "p", "completion": "c", "label": marks[n % 2]} for n in range(4)])
    assert found.format == "prompt_completion"
    assert found.passed_over["kto"] == "values of 'label' are no marks of good and bad answers"


def test_judgements_that_say_nothing_are_rejected() -> None:
    fields = {"prompt": turns("a", "b", "c"), "completion": turns("x", "d")[1:]}
    examples, rejected = convert(*[fields | {"label": mark} for mark in (True, "maybe", None)], format="kto")
    (example,) = examples
    assert [(turn.content, turn.learn) for turn in example.messages if turn.role == "assistant"] == [
        ("b", False),
        ("d", True),
    ]
    assert said(rejected) == [
        (2, "no judgement", "column 'label' is 'maybe'"),
        (3, "no judgement", "column 'label' is null"),
    ]
    assert rejected[0].fix == "write true or false, 1 or 0, good or bad"
