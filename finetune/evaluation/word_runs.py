"""Runs of words that texts share with training rows: `WordRuns(texts, size, tests=n)` is shown the rows, and then told.

Runs are hashed, so that training rows of any number are looked through by a few array operations and not kept.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.shingles import Hashes, blocks, shingles

RUN = 13
"""Words of a run: thirteen in a row are no coincidence (Brown et al. 2020, arXiv:2005.14165, appendix C)."""
FORM = 10
"""What more different rows have in common is a form, such as an instruction or a licence (the same)."""
_USUAL_FROM = 4
_PHRASE, _PHRASE_SHARE = 3, 0.1
"""Three words in a row belong to a form where more than a tenth of the rows in question have them."""
_WINDOW = 200_000

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def usual(counts: Integers, tests: int, *, share: float = 0.0) -> Flags:
    """Tell of what so many of the rows in question have in common whether it is a form.

    It is one if more than ten rows have it, and more than `share` of all; or more than half, unless they are very few.
    """
    most = max(FORM, share * tests)
    return counts > (min(most, tests / 2) if tests >= _USUAL_FROM else most)


class WordRuns:
    """Texts in question as runs of words, and the training rows that have them.

    Args:
        texts: normalised texts with the position of the row that each belongs to.
        size: words of a run; no text is shorter.
        tests: how many rows are in question.
    """

    def __init__(self, texts: Sequence[tuple[int, str]], size: int, *, tests: int) -> None:
        self.size = size
        self._texts = list(texts)
        self._known, self._runs, self._ends, counts = self._made(size)
        self._usual = usual(counts, tests)
        _, phrases, self._phrase_ends, counts = self._made(_PHRASE)
        self._phrases = usual(counts, tests, share=_PHRASE_SHARE)[phrases]
        self._counts = np.zeros(len(self._known), dtype=np.int64)
        self._met: list[tuple[Integers, Integers]] = []
        self._read: set[bytes] = set()

    def _made(self, size: int) -> tuple[Hashes, Integers, Integers, Integers]:
        """Return all runs, ascending; those of the texts one after another, by number; their ends; how many rows."""
        made = shingles([text for _, text in self._texts], words=True, size=size)
        known, runs = np.unique(made.hashes, return_inverse=True)
        owners = np.array([owner for owner, _ in self._texts])[made.rows()]
        pairs = np.unique(np.stack([runs, owners]), axis=1)
        return known, runs, made.ends, np.bincount(pairs[0], minlength=len(known))

    def look(self, rows: Sequence[tuple[int, str]]) -> None:
        """Note which of the runs stand in training rows; those of forms are soon given up.

        Args:
            rows: positions and normalised texts, each row whole.
        """
        runs, numbers = self._meetings(rows)
        alive = (self._counts[runs] <= FORM) & ~self._usual[runs]
        runs, numbers = runs[alive], numbers[alive]
        texts = dict(rows)
        # A row that is taken several times, or written several times, is one
        fresh = [number for number in np.unique(numbers).tolist() if self._is_new(texts[number])]
        kept = np.isin(numbers, fresh)
        np.add.at(self._counts, runs[kept], 1)
        if kept.any():
            self._met.append((runs[kept], numbers[kept]))

    def _meetings(self, rows: Sequence[tuple[int, str]]) -> tuple[Integers, Integers]:
        """Return every pair of a run and a training row that has it, once."""
        windows = ((number, window) for number, text in rows for window in _windows(text, self.size))
        owners: list[int] = []
        pairs = [np.zeros((2, 0), dtype=np.int64)]

        def texts() -> Iterator[str]:
            for number, window in windows:
                owners.append(number)
                yield window

        before = 0
        for block in blocks(texts()):
            places, at = self._hits(block)
            pairs.append(np.stack([places, np.array(owners[before:])[at]]))
            before = len(owners)
        runs, numbers = np.unique(np.concatenate(pairs, axis=1), axis=1)
        return runs, numbers

    def _hits(self, texts: Sequence[str]) -> tuple[Integers, Integers]:
        found = shingles(texts, words=True, size=self.size)
        places = np.searchsorted(self._known, found.hashes).clip(max=len(self._known) - 1)
        hit = self._known[places] == found.hashes
        return places[hit], found.rows()[hit]

    def _is_new(self, text: str) -> bool:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        before = len(self._read)
        self._read.add(digest)
        return len(self._read) > before

    def found(self) -> Iterator[tuple[int, str, float, int]]:
        """Yield each text that shares runs with a training row: its owner, itself, the share, and the row's position.

        The share is that of the words that are in no form; of several rows the first one with the largest is told.
        Nothing is said of texts that have less words than a run outside of forms.
        """
        empty = np.zeros(0, dtype=np.int64)
        runs = np.concatenate([empty, *(runs for runs, _ in self._met)])
        numbers = np.concatenate([empty, *(numbers for _, numbers in self._met)])
        order = np.argsort(runs, kind="stable")
        runs, numbers = runs[order], numbers[order]
        for place, (owner, text) in enumerate(self._texts):
            own = _part(self._runs, self._ends, place)
            form = self._form(own, place)
            alive = np.flatnonzero((self._counts[own] > 0) & ~self._is_form(own))
            if not len(alive) or (~form).sum() < self.size:
                continue
            first, last = (np.searchsorted(runs, own[alive], side=side) for side in ("left", "right"))
            share, number = self._fullest(alive, [numbers[a:b] for a, b in zip(first, last, strict=True)], ~form)
            yield owner, text, share, number

    def _is_form(self, runs: Integers) -> Flags:
        return self._usual[runs] | (self._counts[runs] > FORM)

    def _form(self, own: Integers, place: int) -> Flags:
        """Tell of each word of a text whether it belongs to a form."""
        by_runs = _covered(np.flatnonzero(self._is_form(own)), self.size, len(own) + self.size - 1)
        phrases = _part(self._phrases, self._phrase_ends, place)
        return by_runs | _covered(np.flatnonzero(phrases), _PHRASE, len(by_runs))

    def _fullest(self, places: Integers, holders: Sequence[Integers], telling: Flags) -> tuple[float, int]:
        """Return the largest share of a text that a training row has, and that row."""
        rows = np.concatenate(holders)
        at = np.repeat(places, [len(own) for own in holders])
        found = {
            number: int((_covered(at[rows == number], self.size, len(telling)) & telling).sum())
            for number in np.unique(rows).tolist()
        }
        number = max(found, key=lambda one: (found[one], -one))
        return found[number] / int(telling.sum()), number


def _part(values: NDArray[Any], ends: Integers, place: int) -> NDArray[Any]:
    return values[ends[place - 1] if place else 0 : ends[place]]


def _covered(places: Integers, size: int, words: int) -> Flags:
    """Tell of so many words which ones the runs at these places cover."""
    edges = np.zeros(words + size + 1, dtype=np.int64)
    np.add.at(edges, places, 1)
    np.add.at(edges, places + size, -1)
    return np.cumsum(edges)[:words] > 0


def _windows(text: str, size: int) -> Iterator[str]:
    """Cut a very long text at spaces into windows that overlap by all but one word of a run, so that none is lost."""
    first = 0
    # Where the last words begin, as many as a run has
    begun = deque([0], maxlen=size)
    for space in re.finditer(" ", text) if len(text) > _WINDOW else ():
        if space.start() - first >= _WINDOW and len(begun) == size:
            yield text[first : space.start()]
            first = begun[1]
        begun.append(space.end())
    yield text[first:]
