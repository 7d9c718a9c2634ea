"""What an item can be answered with, where the likeliest of several choices is the answer.

`offering(choices)` takes the choices out of a row as it is read; `decide(examples, ...)` finds out over all rows how
answers name them, and `settle(examples, kind)` puts the right one's text in the answer's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune.data.formats.choices import ANSWERS_ARE, choices_of, decide_answers, place_of
from finetune.data.formats.conversations import RowRefused, as_text, shortened
from finetune.data.formats.examples import Change
from finetune.data.formats.row_templates import Templates, compile_texts
from finetune.data.rows import Content, Example, Message, Rejected, Row
from finetune.data.store import Store, View
from finetune.recipe.schema import AnswerIs

CHOICES, GOLD = "choices", "gold"
"""Where an item's metadata holds the texts of its choices, and the place of the right one counted from 0."""

_MARKS = "choice_marks"


def same_for_all(choices: str | Sequence[str], *, where: str) -> bool:
    """Tell whether every item has the same choices, which are classes then; see `offering`."""
    return not isinstance(choices, str) and not any(_texts(choices, where).columns.values())


def offering(choices: str | Sequence[str], *, where: str) -> Change:
    """Return the change that takes a row's choices into its metadata.

    Args:
        choices: the column that holds them, or their texts, plain or Jinja over the row's columns.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: Jinja with syntax errors. Of the change: RowRefused where a row has no
            choices, an empty one, or one twice.
    """
    read = _from_column(choices) if isinstance(choices, str) else _from_texts(choices, where)

    def change(fields: Mapping[str, Any], content: Content) -> Content:
        found, marks = read(fields)
        for number, text in enumerate(found):
            if text in found[:number]:
                detail = f"choices {found.index(text) + 1} and {number + 1} are both {shortened(text)}"
                raise RowRefused("a choice twice", detail)
        return replace(content, metadata={**content.metadata, CHOICES: found, _MARKS: marks})

    return change


def _from_column(column: str) -> Callable[[Mapping[str, Any]], tuple[list[str], list[str]]]:
    def read(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        return choices_of(fields, {"choices": column})

    return read


def _from_texts(choices: Sequence[str], where: str) -> Callable[[Mapping[str, Any]], tuple[list[str], list[str]]]:
    templates = _texts(choices, where)

    def read(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        return [as_text(templates.fill(name, fields), name, empty="empty choice") for name in templates.parts], []

    return read


def _texts(choices: Sequence[str], where: str) -> Templates:
    return compile_texts({f"choice {number}": text for number, text in enumerate(choices, 1)}, where=where)


def decide(examples: Sequence[Example], answer_is: AnswerIs, *, where: str, under: str) -> tuple[str, str]:
    """Decide over all rows how answers name their choice: see `decide_answers`.

    Args:
        examples: rows that `offering` changed.
        answer_is: what the recipe says; anything but `auto` is taken.
        where: the recipe's position, put before problems.
        under: the section that says `answer_is`.

    Raises:
        FinetuneError: answers can be read in several ways, or name none of the choices in most rows.
    """
    columns = {"choices": CHOICES, "answer": "answer"}
    return decide_answers(View(examples, None, _as_row), columns, answer_is, where, under=under)


def settle(examples: Sequence[Example], kind: str) -> tuple[Sequence[Example], list[Rejected]]:
    """Let every row's answer be the text of the choice that it names.

    Args:
        examples: rows that `offering` changed.
        kind: how answers name their choice, as `decide` found it.

    Returns:
        the rows, with their choices and the place of the right one in their metadata, and those whose answer names no
        choice.
    """
    settled: Store[Example] = Store()
    rejected: list[Rejected] = []
    for example in examples:
        choices, marks = example.metadata[CHOICES], example.metadata[_MARKS]
        gold = place_of(example.reference.strip(), kind, choices, marks)
        if gold is None:
            detail = f"the answer is {shortened(example.reference)}, which is none of {len(choices)} choices"
            rejected.append(Rejected(example.origin, "choice out of range", f"{detail} ({ANSWERS_ARE[kind]})"))
        else:
            settled.append(_answered(example, choices, gold))
    return settled, rejected


def _as_row(example: Example) -> Row:
    """The row as `decide_answers` looks at it."""
    choices, marks = example.metadata[CHOICES], example.metadata[_MARKS]
    offered = {"text": choices, "label": marks} if marks else choices
    return Row(example.origin, {CHOICES: offered, "answer": example.reference})


def _answered(example: Example, choices: Sequence[str], gold: int) -> Example:
    kept = {name: value for name, value in example.metadata.items() if name != _MARKS}
    answer = Message("assistant", choices[gold])
    return replace(
        example,
        messages=(*example.context, answer),
        metadata={**kept, CHOICES: list(choices), GOLD: gold},
        alternatives=(),
    )
