"""Judged answers: pairs of a better and a worse one (preference), and single ones marked good or bad (kto)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune.data.formats.contents import Convert, answer_of, exchange, system_of, value_of
from finetune.data.formats.conversations import (
    RowRefused,
    as_text,
    conversation,
    is_transcript,
    is_turns,
    shortened,
    transcript_turns,
    turns_of,
)
from finetune.data.formats.survey import Fit, Survey, columns_words, named, own_system
from finetune.data.rows import Content, Message
from finetune.recipe.schema import DataSection

_PAIRS = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("better", "worse"),
    ("winner", "loser"),
)
_PROMPTS = ("prompt", "question", "instruction", "query", "input")
_ANSWERS = ("completion", "response", "answer", "output")
_MARKS = ("label", "desirable", "is_good", "good", "thumbs_up", "kto_label", "rating", "feedback", "judgement")
_GOOD = {"true", "1", "+1", "good", "desirable", "yes", "up", "thumbs_up", "positive"}
_BAD = {"false", "0", "-1", "bad", "undesirable", "no", "down", "thumbs_down", "negative"}


# ----------------------------------------------------------------------------------------------------- preference


def fit_preference(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find a better and a worse answer, and their prompt; see `fitting`."""
    pairs = [
        (better, worse)
        for first, second in _PAIRS
        for better in ([given["chosen"]] if "chosen" in given else named(survey, [first]))
        for worse in ([given["rejected"]] if "rejected" in given else named(survey, [second]))
        if better != worse
    ]
    if not pairs:
        return "no columns that are usually named as a better and a worse answer"
    better, worse = pairs[0]
    prompts = [name for name in named(survey, _PROMPTS) if name not in (better, worse)]
    columns = own_system(survey) | dict(given) | {"chosen": better, "rejected": worse}
    column = survey[better]
    whole = bool(column.turns) or column.mostly(column.transcripts)
    if "prompt" not in columns and prompts:
        columns["prompt"] = prompts[0]
    if not asked and "prompt" not in columns and not whole:
        return f"columns {better!r} and {worse!r} hold neither turns nor transcripts, and there is no prompt"
    shown = [columns[role] for role in ("prompt", "chosen", "rejected") if role in columns]
    return Fit(columns, columns_words(shown))


def preference_converter(columns: Mapping[str, str], section: DataSection) -> Convert:
    """Read a pair: the better answer is learned, the worse one is kept beside it.

    The prompt is a column of its own, or all turns but the last, which must be the same on both sides.
    """

    def convert(fields: Mapping[str, Any]) -> Content:
        system = system_of(fields, columns)
        better, worse = (_side(fields, columns[role]) for role in ("chosen", "rejected"))
        context = _context(fields, columns.get("prompt"), better, worse)
        turns = [replace(turn, learn=False) for turn in context]
        system = section.system if system is None else system
        messages = conversation([*turns, better[-1]], system)
        conversation([*turns, worse[-1]], system)
        if better[-1].content == worse[-1].content:
            raise RowRefused("chosen and rejected are equal", f"both answers are {shortened(better[-1].content)}")
        return Content(messages=messages, rejected=(worse[-1],))

    return convert


def _side(fields: Mapping[str, Any], column: str) -> list[Message]:
    """Return the turns of one side; an answer alone is one assistant turn."""
    value = value_of(fields, column)
    what = f"column {column!r}"
    if is_turns(value):
        return turns_of(value, what)
    if is_transcript(value):
        return transcript_turns(value, what)
    return [Message("assistant", answer_of(fields, column))]


def _context(
    fields: Mapping[str, Any], prompt: str | None, better: Sequence[Message], worse: Sequence[Message]
) -> Sequence[Message]:
    """Return the turns before the answers, which both sides must have in common.

    Raises:
        RowRefused: the sides answer different prompts, or there is no prompt.
    """
    reason = "differing prompts"
    if len(better) != len(worse):
        raise RowRefused(reason, f"chosen has {len(better)} turns and rejected has {len(worse)}")
    differ = next((number for number, (a, b) in enumerate(zip(better[:-1], worse, strict=False), 1) if a != b), 0)
    if differ:
        raise RowRefused(reason, f"turn {differ} of {len(better)} is not the same in chosen and rejected")
    before = better[:-1]
    if prompt is None:
        if not before:
            raise RowRefused("empty prompt", "there is no prompt before the answers")
        return before
    given = value_of(fields, prompt)
    if is_turns(given):
        asked = turns_of(given, f"column {prompt!r}")
    elif is_transcript(given):
        asked = transcript_turns(given, f"column {prompt!r}")
    else:
        asked = [Message("user", as_text(given, f"column {prompt!r}", empty="empty prompt"))]
    if not before:
        return asked
    if not {turn.content for turn in asked} <= {turn.content for turn in before}:
        raise RowRefused(reason, f"column {prompt!r} is {shortened(given)}, which is not in chosen and rejected")
    return before


# ------------------------------------------------------------------------------------------------------------ kto


def fit_kto(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find a prompt, its answer and a mark of good or bad; see `fitting`."""
    columns = own_system(survey) | dict(given)
    for role, usual in (("prompt", _PROMPTS), ("completion", _ANSWERS), ("label", _MARKS)):
        free = [name for name in named(survey, usual) if name not in columns.values()]
        if role not in columns and not free:
            words = {"prompt": "a prompt", "completion": "an answer", "label": "a mark of good or bad"}
            return f"no column that is usually named as {words[role]}"
        if role not in columns:
            columns[role] = free[0]
    values = {value.strip().lower() for value in survey[columns["label"]].values}
    if not asked and not (values <= _GOOD | _BAD and values & _GOOD and values & _BAD):
        return f"values of {columns['label']!r} are no marks of good and bad answers"
    return Fit(columns, columns_words([columns[role] for role in ("prompt", "completion", "label")]))


def kto_converter(columns: Mapping[str, str], section: DataSection) -> Convert:
    """Read an answer and whether it is a good one."""

    def convert(fields: Mapping[str, Any]) -> Content:
        mark = as_text(value_of(fields, columns["label"]), f"column {columns['label']!r}", empty="no judgement")
        folded = mark.strip().lower()
        if folded not in _GOOD | _BAD:
            fix = "write true or false, 1 or 0, good or bad"
            raise RowRefused("no judgement", f"column {columns['label']!r} is {shortened(mark)}", fix)
        system = system_of(fields, columns)
        given = value_of(fields, columns["prompt"])
        answer = answer_of(fields, columns["completion"])
        if is_turns(given):
            turns = [replace(turn, learn=False) for turn in turns_of(given, f"column {columns['prompt']!r}")]
            whole = [*turns, Message("assistant", answer)]
            messages = conversation(whole, section.system if system is None else system)
        else:
            prompt = as_text(given, f"column {columns['prompt']!r}", empty="empty prompt")
            messages = exchange(prompt, answer, system, section)
        return Content(messages=messages, desirable=folded in _GOOD)

    return convert
