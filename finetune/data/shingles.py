"""Texts as sets of hashed shingles, many at a time: `shingles(texts, words=True)`; `form(...)` is what most share.

A shingle is three words or five characters in a row, or as many as are asked for. Its hash is that of its characters as
a polynomial modulo 2^64 (Karp and Rabin 1987), mixed, so that all shingles of many texts are computed by a few array
operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORDS, CHARACTERS = 3, 5
_FORM_FROM = 50
"""Shingles in at most this many texts are never a form."""
_BLOCK = 500_000
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Shingles:
    """Hashes of the shingles of several texts, one text after another; `ends` says where each one's end."""

    hashes: Hashes
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, text: int) -> Hashes:
        """The set of one text's shingles, ascending."""
        return np.unique(self.hashes[self.ends[text - 1] if text else 0 : self.ends[text]])

    def rows(self) -> NDArray[np.int64]:
        """For each hash, the text that it belongs to."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))

    def without(self, form: Hashes) -> Shingles:
        """Leave out what belongs to a form, unless a text has nothing else."""
        if not len(form):
            return self
        rows = self.rows()
        telling = form[np.searchsorted(form, self.hashes).clip(max=len(form) - 1)] != self.hashes
        silent = np.bincount(rows[telling], minlength=len(self.ends)) == 0
        kept = telling | silent[rows]
        return Shingles(self.hashes[kept], np.cumsum(np.bincount(rows[kept], minlength=len(self.ends))))


def shingles(texts: Sequence[str], *, words: bool, size: int | None = None) -> Shingles:
    """Hash the shingles of texts: three words, or five characters, in a row; a shorter text is one shingle.

    Args:
        texts: with single spaces between words and no line breaks.
        words: take words instead of characters.
        size: so many of them in a row, where it is not three or five.
    """
    size = size or (WORDS if words else CHARACTERS)
    codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths + 1) - 1
    starts = ends - lengths
    if words:
        spaces = np.flatnonzero(codes == ord(" "))
        first, last = np.sort(np.concatenate([starts, spaces + 1])), np.sort(np.concatenate([ends, spaces]))
        begin = np.searchsorted(first, starts)
        units = np.diff(np.append(begin, len(first)))
    else:
        first, last = np.arange(len(codes)), np.arange(1, len(codes) + 1)
        begin, units = starts, lengths
    counts = np.maximum(1, units - size + 1)
    stops = np.cumsum(counts)
    place = np.arange(stops[-1] if len(stops) else 0) + np.repeat(begin - (stops - counts), counts)
    final = np.minimum(place + size - 1, np.repeat(begin + units - 1, counts))
    return Shingles(_hashed(codes, first[place], np.where(final >= place, last[final], first[place])), stops)


def form(texts: Iterable[str], *, words: bool, share: float) -> Hashes:
    """Return the shingles that more than `share` of the texts have, and more than 50 of them, ascending."""
    hashes, rows, before = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for block in blocks(texts):
        found = shingles(block, words=words)
        hashes.append(found.hashes)
        rows.append(found.rows() + before)
        before += len(block)
    return _in_more_than(max(_FORM_FROM, share * before), np.concatenate(hashes), np.concatenate(rows))


def _in_more_than(most: float, hashes: Hashes, rows: NDArray[np.int64]) -> Hashes:
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    again = np.zeros(len(hashes), dtype=np.bool_)
    again[1:] = (hashes[1:] == hashes[:-1]) & (rows[1:] == rows[:-1])
    values, counts = np.unique(hashes[~again], return_counts=True)
    return values[counts > most]


def blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield some texts at a time, about half a million characters."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _hashed(codes: Hashes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Hashes:
    """Hash codes[start:end] for each pair."""
    size = len(codes) + 1
    powers = np.full(size, _BASE, dtype=np.uint64)
    inverses = np.full(size, _INVERSE, dtype=np.uint64)
    powers[0] = inverses[0] = 1
    np.multiply.accumulate(powers, out=powers)
    np.multiply.accumulate(inverses, out=inverses)
    sums = np.zeros(size, dtype=np.uint64)
    np.cumsum((codes + np.uint64(1)) * powers[:-1], out=sums[1:])
    found: Hashes = (sums[ends] - sums[starts]) * inverses[starts]
    for shift, factor in _MIX:
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found ^ (found >> np.uint64(31))
