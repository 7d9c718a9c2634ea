"""Multiple choice: which columns hold question, choices and answer, and how the answer names its choice.

The answer is a letter, a number counted from 0 or from 1, or the choice's own text. Which of these is decided over all
rows by `decide_answers` and never guessed: where two readings fit and disagree, the recipe has to say `answer_is`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, get_args

from finetune.data.formats.contents import Convert, exchange, system_of, text_of, texts_of, value_of
from finetune.data.formats.conversations import RowRefused, as_text, shortened
from finetune.data.formats.survey import Fit, Survey, as_list, columns_words, folded, listed, named
from finetune.data.rows import Content, Row
from finetune.errors import FinetuneError
from finetune.recipe.schema import AnswerIs, DataSection

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICE_ROLES = tuple(f"choice_{letter}" for letter in "abcdefghij")
INSTRUCTION = "Answer with the letter of the right choice only."

_QUESTIONS = ("question", "query", "stem", "problem", "prompt", "sentence", "goal", "premise", "ctx", "input")
_CHOICES = ("choices", "options", "answer_choices", "candidates", "endings", "alternatives")
_ANSWERS = (
    *("answer_idx", "answer_index", "answer_key", "answerkey", "correct_option", "correct_choice", "correct_answer"),
    *("correct", "cop", "gold", "answer", "target", "label", "solution", "ans"),
)
_CONTEXTS = ("context", "passage", "article", "background", "paragraph")
_CHOICE_NAME = re.compile(
    r"(?P<stem>(?:op|opt|option|choice|ending|sol|answer)_?)(?P<mark>[a-j]|[0-9])|(?P<only>[a-j])"
)
_LETTER = re.compile(r"\(?([A-Za-z])\s*[.):]?")
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0+)?")
_KINDS = tuple(kind for kind in get_args(AnswerIs) if kind != "auto")
_SHOWN = 100
ANSWERS_ARE = {
    "letter": "answers are letters",
    "index_0": "answers count the choices from 0",
    "index_1": "answers count the choices from 1",
    "text": "answers are the text of their choice",
}


# ------------------------------------------------------------------------------------------------------------- fit


def fit_choices(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find question, choices and answer; see `fitting`."""
    questions = [given["question"]] if "question" in given else named(survey, _QUESTIONS)
    answers = [given["answer"]] if "answer" in given else named(survey, _ANSWERS)
    choices = _choice_columns(survey, given)
    if isinstance(choices, str):
        return choices
    taken = {*choices.values()}
    questions = [name for name in questions if name not in taken]
    answers = [name for name in answers if name not in taken and name not in questions[:1]]
    if not questions or not answers:
        return f"no column that is usually named as {'a question' if not questions else 'an answer'}"
    contexts = [] if "context" in given else named(survey, _CONTEXTS)
    context = {"context": contexts[0]} if contexts and contexts[0] not in taken | {questions[0]} else {}
    columns = context | dict(given) | {"question": questions[0], "answer": answers[0]} | choices
    return Fit(columns, columns_words([questions[0], *choices.values(), answers[0]]))


def _choice_columns(survey: Survey, given: Mapping[str, str]) -> dict[str, str] | str:
    said = {role: column for role, column in given.items() if role == "choices" or role in CHOICE_ROLES}
    if said:
        return said if "choices" in said or len(said) > 1 else "one choice alone is none"
    found = choice_sets(survey)
    if not found:
        return "no columns that are usually named as choices"
    if len(found) > 1:
        return "several may be the choices: " + "; ".join(listed(one.values()) for one in found)
    return found[0]


def choice_sets(survey: Survey) -> list[dict[str, str]]:
    """Return what may be the choices: a column of lists or mappings, or a run of columns; role -> column of each."""
    lists = [name for name in named(survey, _CHOICES) if survey[name].mostly(survey[name].lists)]
    lists += [name for name in named(survey, _CHOICES) if survey[name].mostly(survey[name].mappings)]
    groups = [dict(zip(CHOICE_ROLES, group, strict=False)) for group in _choice_groups(survey)]
    return [*({"choices": name} for name in lists), *groups]


def _choice_groups(survey: Survey) -> list[list[str]]:
    """Return runs of columns such as A to D, opa to opd, or option_1 to option_4."""
    stems: dict[str, dict[str, str]] = {}
    for column in survey:
        match = _CHOICE_NAME.fullmatch(folded(column))
        if match:
            stems.setdefault(match["stem"] or "", {})[match["mark"] or match["only"]] = column
    groups = []
    for marks in stems.values():
        for run in ("abcdefghij", "0123456789", "123456789"):
            if run[0] in marks and run[1] in marks:
                length = next((at for at, mark in enumerate(run) if mark not in marks), len(run))
                groups.append([marks[mark] for mark in run[:length]])
                break
    return groups


# ---------------------------------------------------------------------------------------------------------- answers


def decide_answers(
    rows: Sequence[Row], columns: Mapping[str, str], wanted: AnswerIs, where: str, *, under: str = "data"
) -> tuple[str, str]:
    """Decide over all rows how answers name their choice.

    Args:
        rows: all rows, of which those without choices or answer are passed over.
        columns: role -> column.
        wanted: what the recipe says; anything but `auto` is taken.
        where: the recipe's position, put before problems.
        under: the section that says `answer_is`.

    Returns:
        The kind (`letter`, `index_0`, `index_1`, `text`), and what is to be said about it.

    Raises:
        FinetuneError: two kinds fit equally well and disagree, numbers run from 0 up to the number of choices, or
            none fits half of the rows.
    """
    if wanted != "auto":
        return wanted, f"{ANSWERS_ARE[wanted]}, as the recipe says"
    votes = _count_votes(rows, columns)
    best = max(votes.fitting.values(), default=0)
    values = ", ".join(sorted(votes.shown)[:6]) + (" ..." if len(votes.shown) > 6 else "")
    said = f"column {columns['answer']!r} ({values})"
    fix = f"write `answer_is: {_KINDS[0]}` ({', '.join(_KINDS[1:-1])} or {_KINDS[-1]}) under {under}"
    if best * 2 < votes.rows or not best:
        what = f"the answers in {said} name none of the choices in {votes.rows - best:,} of {votes.rows:,} rows"
        raise FinetuneError(what, where=where, fix=fix)
    chosen, *others = [kind for kind in _KINDS if votes.fitting[kind] == best]
    rival = next((kind for kind in others if votes.differ[chosen, kind]), "")
    base = {"index_0": "index_1", "index_1": "index_0"}.get(chosen, "")
    if not rival and votes.alone[base, chosen]:
        rival = base
    if rival:
        what = (
            f"{ANSWERS_ARE[chosen]}, or {ANSWERS_ARE[rival]}: the values in {said} do not tell over {votes.rows:,} rows"
        )
        raise FinetuneError(what, where=where, fix=fix)
    return chosen, f"{ANSWERS_ARE[chosen]} ({values} over {votes.rows:,} rows)"


@dataclass(slots=True)
class _Votes:
    """Rows that each kind can read, pairs of kinds that read a row differently, and rows only the first can read."""

    rows: int = 0
    fitting: Counter[str] = field(default_factory=Counter)
    differ: Counter[tuple[str, str]] = field(default_factory=Counter)
    alone: Counter[tuple[str, str]] = field(default_factory=Counter)
    shown: set[str] = field(default_factory=set)


def _count_votes(rows: Sequence[Row], columns: Mapping[str, str]) -> _Votes:
    votes = _Votes()
    for row in rows:
        try:
            choices, marks = choices_of(row.fields, columns)
            answer = _answer_text(row.fields, columns["answer"])
        except RowRefused:
            continue
        votes.rows += 1
        if len(votes.shown) < _SHOWN:
            votes.shown.add(answer[:20])
        found = {kind: place_of(answer, kind, choices, marks) for kind in _KINDS}
        votes.fitting.update(kind for kind, place in found.items() if place is not None)
        for one, other in permutations(_KINDS, 2):
            if found[one] is not None and found[other] is None:
                votes.alone[one, other] += 1
            elif found[one] != found[other]:
                votes.differ[one, other] += 1
    return votes


def place_of(answer: str, kind: str, choices: Sequence[str], marks: Sequence[str]) -> int | None:
    """Return the position of the choice that an answer names if it is read as `kind`, or None."""
    if kind == "text":
        fitting = [number for number, choice in enumerate(choices) if choice.strip() == answer]
        return fitting[0] if len(fitting) == 1 else None
    if kind == "letter":
        if answer in marks:
            return marks.index(answer)
        letter = _LETTER.fullmatch(answer)
        place = LETTERS.index(letter[1].upper()) if letter else len(choices)
    else:
        place = int(float(answer)) - (kind == "index_1") if _WHOLE.fullmatch(answer) else len(choices)
    return place if 0 <= place < len(choices) else None


def _answer_text(fields: Mapping[str, Any], column: str) -> str:
    return text_of(fields, column, empty="empty answer").strip()


def choices_of(fields: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the texts of the choices, and the marks that the row itself gives them, if any.

    Raises:
        RowRefused: no choices, too many, or one that is empty.
    """
    marks: list[str] = []
    if "choices" not in columns:
        names = [columns[role] for role in CHOICE_ROLES if role in columns]
        values = [fields.get(name) for name in names]
        while values and values[-1] in (None, ""):
            values.pop()
    else:
        given = value_of(fields, columns["choices"])
        if isinstance(given, dict) and {"text", "label"} <= given.keys():
            values, marks = list(given["text"]), [str(mark) for mark in given["label"]]
        elif isinstance(given, dict):
            values, marks = list(given.values()), [str(mark) for mark in given]
        else:
            values = as_list(given) or []
        names = [f"{number} of column {columns['choices']!r}" for number in range(1, len(values) + 1)]
    if not 2 <= len(values) <= len(LETTERS):
        raise RowRefused("no choices", f"{len(values)} choices, from 2 to {len(LETTERS)} can be asked")
    named_values = zip(values, names[: len(values)], strict=True)
    return [as_text(value, f"choice {name}", empty="empty choice") for value, name in named_values], marks


# ------------------------------------------------------------------------------------------------------- conversion


def choices_converter(columns: Mapping[str, str], section: DataSection, answer_is: str) -> Convert:
    """Ask for the letter of the right choice.

    Args:
        columns: role -> column.
        section: the recipe's part; its `instruction` replaces `INSTRUCTION`.
        answer_is: the kind that `decide_answers` found.
    """
    instruction = INSTRUCTION if section.instruction is None else section.instruction

    def convert(fields: Mapping[str, Any]) -> Content:
        question = text_of(fields, columns["question"], empty="empty prompt")
        choices, marks = choices_of(fields, columns)
        answer = _answer_text(fields, columns["answer"])
        place = place_of(answer, answer_is, choices, marks)
        if place is None:
            detail = f"column {columns['answer']!r} is {shortened(answer)}, which is none of {len(choices)} choices"
            raise RowRefused("choice out of range", f"{detail} ({ANSWERS_ARE[answer_is]})")
        context = fields.get(columns["context"]) if "context" in columns else None
        asked = "\n".join([question, *(f"{letter}. {one}" for letter, one in zip(LETTERS, choices, strict=False))])
        if context not in (None, "", []):
            asked = "\n\n".join([*texts_of(fields, columns["context"], empty="empty prompt"), asked])
        system = system_of(fields, columns)
        return Content(messages=exchange(f"{instruction}\n\n{asked}", LETTERS[place], system, section))

    return convert
