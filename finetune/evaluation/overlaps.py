"""Find test rows that stand in training rows, whole or in part: `matches(tests, training)` reads these in order."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from finetune.data import Example
from finetune.data.near_duplicates import common_ends, middle, normalise
from finetune.data.store import View
from finetune.evaluation.word_runs import FORM, RUN, WordRuns, usual

Kind = Literal["exact", "normalised", "contained", "13-gram"]

_LEAST = 0.2
"""With less than this share of its words known, an item counts as clean (Touvron et al. 2023, appendix A.6)."""
_SHORT_RUN = 8
"""Words of a run in questions of less than 13 words; still shorter ones are only compared whole."""
_CORE = 3
"""Words that are left at least where an instruction is taken off before questions are compared."""
_PORTION = 500_000


@dataclass(frozen=True, slots=True)
class Match:
    """How a test row stands in a training row, by its position; `share` is of the words of the question or answer."""

    kind: Kind
    share: float
    train: int


def matches(tests: Sequence[Example], training: Sequence[Example]) -> dict[int, Match]:
    """Return the test rows that stand in training rows, by position, each with the row that it stands in most.

    Args:
        tests: the rows in question.
        training: gone through several times, in order; it may lie on disk.
    """
    if not tests or not training:
        return {}
    asked = [_asked(example) for example in tests]
    ends = common_ends(asked)
    sought = [_Row(question, example.reference, ends) for question, example in zip(asked, tests, strict=True)]
    equal = _Equal(sought)
    runs = _runs(sought, [example.label is not None for example in tests])
    for portion in _portions(training):
        for number, row in portion:
            equal.look(number, row)
        for kind in runs:
            kind.look([(number, row.said) for number, row in portion])
    found = equal.found()
    equal_ones = set(found)
    for kind in runs:
        for index, text, share, number in kind.found():
            if index not in equal_ones and (match := _in_part(text, share, number, training, kind.size)):
                found[index] = max(match, found.get(index, match), key=lambda one: (one.kind == "contained", one.share))
    return dict(sorted(found.items()))


def _in_part(text: str, share: float, number: int, training: Sequence[Example], size: int) -> Match | None:
    """Say how a text stands in the training row that has most of it; of a short text only the whole tells."""
    row = training[number]
    if f" {text} " in f" {_Row(_asked(row), row.reference, (0, 0)).said} ":
        return Match("contained", 1.0, number)
    return Match("13-gram", share, number) if size == RUN and share >= _LEAST else None


# ----------------------------------------------------------------------------------------------------------- texts


class _Row:
    """A row as it is compared. `ends` are so many characters at start and end that all questions share."""

    def __init__(self, asked: str, answer: str, ends: tuple[int, int]) -> None:
        self.asked = asked
        self.core = middle(*ends, asked)
        self.answer = answer
        self.plain_asked = normalise(asked, fold_digits=False)
        self.plain_core = normalise(self.core, fold_digits=False) if any(ends) else self.plain_asked
        self.plain_answer = normalise(answer, fold_digits=False)

    @property
    def said(self) -> str:
        """Question and answer, normalised."""
        return f"{self.plain_asked} {self.plain_answer}".strip()

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The normalised question, with the instruction and without it; none for raw text."""
        found = [self.plain_asked] if self.plain_asked else []
        if self.plain_core != self.plain_asked and self.plain_core.count(" ") >= _CORE - 1:
            found.append(self.plain_core)
        return tuple(found)


def _asked(example: Example) -> str:
    """Return what stands before the last answer, without system turns; nothing for raw text."""
    turns = example.context if example.text is None else ()
    return "\n".join(turn.said for turn in turns if turn.role != "system")


def _portions(training: Sequence[Example]) -> Iterator[list[tuple[int, _Row]]]:
    """Yield training rows with their positions, about half a million characters at a time."""
    ends = _ends(training)
    portion: list[tuple[int, _Row]] = []
    size = 0
    for number, example in enumerate(training):
        row = _Row(_asked(example), example.reference, ends[example.source])
        portion.append((number, row))
        size += len(row.asked) + len(row.answer)
        if size >= _PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _ends(training: Sequence[Example]) -> dict[str, tuple[int, int]]:
    """Return what all questions of a source have in common at their ends, such as an instruction."""
    places: dict[str, array[int]] = defaultdict(lambda: array("q"))
    for number, example in enumerate(training):
        places[example.source].append(number)
    if len(places) == 1:
        return {source: common_ends(View(training, None, _asked)) for source in places}
    return {
        source: common_ends(View(training, np.array(own, dtype=np.int64), _asked)) for source, own in places.items()
    }


def _runs(sought: Sequence[_Row], classified: Sequence[bool]) -> list[WordRuns]:
    """Return what is looked for in runs of words: questions of eight words or more, and longer answers but classes."""
    parts: dict[int, list[tuple[int, str]]] = {_SHORT_RUN: [], RUN: []}
    for index, (row, has_class) in enumerate(zip(sought, classified, strict=True)):
        words = row.plain_core.count(" ") + 1
        if words >= _SHORT_RUN:
            parts[RUN if words >= RUN else _SHORT_RUN].append((index, row.plain_core))
        if not has_class and row.plain_answer.count(" ") + 1 >= RUN:
            parts[RUN].append((index, row.plain_answer))
    return [WordRuns(texts, size, tests=len(sought)) for size, texts in parts.items() if texts]


# -------------------------------------------------------------------------------------------------------- equality


class _Equal:
    """Finds equal rows: those with the same question, unless it is a form, and those that are the same altogether."""

    def __init__(self, sought: Sequence[_Row]) -> None:
        self._sought = sought
        self._asked = _places((question, index) for index, row in enumerate(sought) for question in row.questions)
        self._said = _places((row.said, index) for index, row in enumerate(sought) if row.said)
        # The answers that training rows give to a question, until they are too many
        self._answers: dict[str, set[str]] = defaultdict(set)
        # For each test row and question the best training row: whether it differs to the letter, and its position
        self._alike: dict[int, dict[str, tuple[bool, int]]] = defaultdict(dict)
        self._same: dict[int, tuple[bool, int]] = {}

    def look(self, number: int, row: _Row) -> None:
        """Compare a training row with all rows in question."""
        for question in row.questions:
            for index in self._asked.get(question, ()):
                other = self._sought[index]
                found = (row.asked != other.asked and row.core != other.core, number)
                self._alike[index][question] = min(found, self._alike[index].get(question, found))
                if len(self._answers[question]) <= FORM:
                    self._answers[question].add(row.plain_answer)
        for index in self._said.get(row.said, ()):
            other = self._sought[index]
            found = ((row.asked, row.answer) != (other.asked, other.answer), number)
            self._same[index] = min(found, self._same.get(index, found))

    def found(self) -> dict[int, Match]:
        """Return the rows in question that are equal to training rows."""
        matches: dict[int, Match] = {}
        for index in self._alike.keys() | self._same.keys():
            met = [best for question, best in self._alike[index].items() if not self._is_form(question)]
            met += [self._same[index]] if index in self._same else []
            if met:
                differs, number = min(met)
                matches[index] = Match("normalised" if differs else "exact", 1.0, number)
        return matches

    def _is_form(self, question: str) -> bool:
        return len(self._answers[question]) > FORM or bool(
            usual(np.array(len(self._asked[question])), len(self._sought))
        )


def _places(texts: Iterable[tuple[str, int]]) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for text, index in texts:
        found[text].append(index)
    return dict(found)
