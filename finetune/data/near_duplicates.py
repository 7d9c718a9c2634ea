"""Find texts that are nearly the same: `near_duplicates(texts)` gives each text the number of its cluster.

Memory does not grow with the texts, only by some 150 bytes for each: what is compared lies in temporary files.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import IO

import numpy as np
from numpy.typing import NDArray

from finetune.data.shingles import Hashes, blocks, form, shingles
from finetune.data.store import Store, View

THRESHOLD = 0.85
_PERMUTATIONS, _BANDS = 120, 20
"""Bands of six rows: a pair at the threshold becomes a candidate with probability 0.9999."""
_SEED = 1
_ESTIMATE = 0.75
"""Three standard deviations of an estimate from 120 permutations below the threshold; what passes is verified."""
_WORDS_FROM, _CHARACTERS_UP_TO = 16, 20
"""Words for texts of 16 words or more, characters up to 20: near-identical texts always have a kind in common."""
_COMPARED = 100_000
_FORM_WORDS, _FORM_CHARACTERS = 0.1, 0.8
"""Shingles in more than this share of the texts belong to a form that rows fill in; what rows say lies in the rest.
Five characters of plain language are common to many texts, three words are not."""
_DRAWN, _DRAWN_CHARACTERS = 4096, 8_000_000
"""The form is found in this many texts at most, those with the least hashes."""
_REMEMBERED = 100_000


_PLAIN = {code: " " for code in range(128) if not chr(code).isalnum()}
_PLAIN_0 = _PLAIN | dict.fromkeys(map(ord, "123456789"), "0")


def normalise(text: str, *, fold_digits: bool = True) -> str:
    """Fold case, write every digit as 0, and make one space of every run of white space and punctuation."""
    folded = text.casefold()
    if folded.isascii():
        # Six times as fast, and the same
        return " ".join(folded.translate(_PLAIN_0 if fold_digits else _PLAIN).split())
    return re.sub(r"[\W_]+", " ", re.sub(r"\d", "0", folded) if fold_digits else folded).strip()


def without_common_ends(texts: Sequence[str]) -> Sequence[str]:
    """Cut off, at word ends, what all texts begin and end with, such as a shared instruction."""
    start, end = common_ends(texts)
    return View(texts, None, partial(middle, start, end)) if start or end else texts


def common_ends(texts: Iterable[str]) -> tuple[int, int]:
    """Return how many characters all texts begin and end with, up to a word's end; none where all are the same.

    Args:
        texts: gone through twice.
    """
    least, greatest = _extremes(texts)
    if least == greatest:
        return 0, 0
    start = _shared_words(least, greatest)
    return start, _shared_words(*_extremes(text[start:][::-1] for text in texts))


def middle(start: int, end: int, text: str) -> str:
    """Return a text without so many characters at its start and its end."""
    return text[start : len(text) - end]


def _extremes(texts: Iterable[str]) -> tuple[str, str]:
    """The least and the greatest text."""
    least = greatest = None
    for text in texts:
        if least is None or greatest is None:
            least = greatest = text
        elif text < least:
            least = text
        elif text > greatest:
            greatest = text
    return least or "", greatest or ""


def _shared_words(least: str, greatest: str) -> int:
    """Return how many characters all texts between these two begin with, counted up to white space."""
    pairs = zip(least, greatest, strict=False)
    shared = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(least), len(greatest)))
    return len(re.sub(r"\S+\Z", "", least[:shared]))


def near_duplicates(texts: Iterable[str]) -> list[int]:
    """Number the clusters of nearly identical texts, in order of first appearance.

    Two texts are linked when they are equal after `normalise`, or when the Jaccard similarity of their shingle sets
    (3 words; 5 characters for short texts) is at least 0.85. Candidates come from MinHash and banded locality-
    sensitive hashing (Broder 1997; Indyk and Motwani 1998); each is verified exactly. Shingles that very many texts
    share are left out, and of a text longer than 100,000 characters the beginning is compared. The clusters do not
    depend on the order of the texts.

    Args:
        texts: as they are; `normalise` is applied here. They are gone through once.
    """
    unique, digests, numbers = _distinct(texts)
    clusters = Clusters(len(unique))
    spaces = np.fromiter((text.count(" ") for text in unique), dtype=np.int64, count=len(unique))
    long = np.flatnonzero(spaces + 1 >= _WORDS_FROM)
    short = np.flatnonzero(spaces + 1 <= _CHARACTERS_UP_TO)
    _link(_Compared(unique, digests, long, words=True), clusters)
    _link(_Compared(unique, digests, short, words=False), clusters)
    seen: dict[int, int] = {}
    return [seen.setdefault(clusters.find(number), len(seen)) for number in numbers.tolist()]


class Clusters:
    """Union-find over the numbers 0 to size - 1."""

    def __init__(self, size: int) -> None:
        self._parent = array("q", range(size))

    def find(self, item: int) -> int:
        """Return the representative of the item's cluster, the least of its members."""
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, first: int, second: int) -> None:
        """Make one cluster of the clusters of both."""
        first, second = self.find(first), self.find(second)
        self._parent[max(first, second)] = min(first, second)


def _distinct(texts: Iterable[str]) -> tuple[View[str], Hashes, NDArray[np.int64]]:
    """The different normalised texts as far as they are compared, their hashes, and of each text which one it is."""
    kept: Store[str] = Store()
    digests = array("Q")
    for text in texts:
        normal = normalise(text)
        digest = hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        digests.frombytes(digest)
        kept.append(normal[:_COMPARED])
    halves = np.array(digests, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    # The sort is stable: the first of equal ones is the first that was given
    first = order[fresh]
    appearance = np.argsort(first, kind="stable")
    rank = np.empty(len(first), dtype=np.int64)
    rank[appearance] = np.arange(len(first))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = rank[np.cumsum(fresh) - 1]
    places = first[appearance]
    return kept.select(places), halves[places, 0], numbers


class _Compared:
    """Some of the texts, as sets of shingles of one kind without those of their form."""

    def __init__(self, texts: Sequence[str], digests: Hashes, places: NDArray[np.int64], *, words: bool) -> None:
        self.places = places
        self.words = words
        self._texts: Sequence[str] = View(texts, places, str)
        self._form = form(self._drawn(digests), words=words, share=_FORM_WORDS if words else _FORM_CHARACTERS)

    def __len__(self) -> int:
        return len(self.places)

    def _drawn(self, digests: Hashes) -> Iterator[str]:
        characters = 0
        for place in np.argsort(digests[self.places], kind="stable")[:_DRAWN].tolist():
            text = self._texts[place]
            yield text
            characters += len(text)
            if characters > _DRAWN_CHARACTERS:
                return

    def of(self, place: int) -> Hashes:
        """The shingles of one text."""
        return shingles([self._texts[place]], words=self.words).without(self._form).of(0)

    def sketches(self) -> Iterator[NDArray[np.uint32]]:
        """MinHash signatures, one row a text, some texts at a time."""
        from rensa import RMinHash

        for texts in blocks(self._texts):
            found = shingles(texts, words=self.words).without(self._form)
            offsets = np.concatenate([[0], found.ends]).astype(np.uint64)
            matrix = RMinHash.digest_matrix_from_flat_token_hashes(found.hashes, offsets, _PERMUTATIONS, _SEED)
            yield np.asarray(matrix.to_rows(), dtype=np.uint32)


def _link(compared: _Compared, clusters: Clusters) -> None:
    """Join the texts whose shingle sets are similar enough."""
    if len(compared) < 2:
        return
    with ExitStack() as stack:
        bands = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(_BANDS)]
        written = stack.enter_context(tempfile.TemporaryFile())
        for sketches in compared.sketches():
            written.write(sketches.tobytes())
            rows = sketches.reshape(len(sketches), _BANDS, -1)
            for band, file in enumerate(bands):
                file.write(_key(rows[:, band]).tobytes())
        written.flush()
        signatures = np.memmap(written, dtype=np.uint32, mode="r", shape=(len(compared), _PERMUTATIONS))
        similar = _Similar(compared, signatures)
        for file in bands:
            _join_alike(_read(file), compared.places, similar, clusters)
        del similar, signatures


def _key(rows: NDArray[np.uint32]) -> Hashes:
    """One number for the values of a band."""
    found = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        found = (found ^ column) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def _read(file: IO[bytes]) -> Hashes:
    file.seek(0)
    return np.frombuffer(file.read(), dtype=np.uint64)


def _join_alike(
    keys: Hashes, places: NDArray[np.int64], similar: Callable[[int, int], bool], clusters: Clusters
) -> None:
    """Compare the texts that agree in a band, unless they are joined already, as in a large cluster nearly all are."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(order)], strict=True):
        if end - begin < 2:
            continue
        group = order[begin:end].tolist()
        for index, first in enumerate(group):
            own = clusters.find(int(places[first]))
            for second in group[index + 1 :]:
                if clusters.find(int(places[second])) != own and similar(first, second):
                    clusters.join(int(places[first]), int(places[second]))
                    own = clusters.find(int(places[first]))


class _Similar:
    """Tells whether the exact Jaccard similarity of two texts reaches the threshold; the estimate is asked first."""

    def __init__(self, compared: _Compared, signatures: NDArray[np.uint32]) -> None:
        self._compared = compared
        self._signatures = signatures
        self._unlike: set[tuple[int, int]] = set()
        self._last: tuple[int, Hashes] = (-1, np.zeros(0, dtype=np.uint64))

    def __call__(self, first: int, second: int) -> bool:
        if (first, second) in self._unlike:
            return False
        if (self._signatures[first] == self._signatures[second]).mean() >= _ESTIMATE:
            if self._last[0] != first:
                self._last = first, self._compared.of(first)
            one, other = self._last[1], self._compared.of(second)
            shared = len(np.intersect1d(one, other, assume_unique=True))
            if shared >= THRESHOLD * (len(one) + len(other) - shared):
                return True
        if len(self._unlike) < _REMEMBERED:
            self._unlike.add((first, second))
        return False
