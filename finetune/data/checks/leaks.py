"""Find test rows that stand in the training rows, word for word or slightly reworded: `check_leaks(material)`."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from finetune.data.checks.containment import Contained, contained
from finetune.data.checks.findings import Finding, Sighting, excerpt, some
from finetune.data.checks.material import Material, digest, has_classes, prompt_of
from finetune.data.near_duplicates import normalise
from finetune.data.rows import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

_PROBES = 8
"""Rows are looked up by their eight rarest words that stand in another row too."""
_BLOCK = 2_000
_WEIGHTED, _PLAIN, _BITS = 0.4, 0.6, 24.0
"""Shared weight of the words, or share of the words, of which at least 24 bits are told apart from chance. With two
content words of a row exchanged, found: 112 of 120 among 500 medical questions of 13 words (those missed have seven at
most), 60 of 60 among 1,319 word problems of 46. Accused on these clean splits: 0, and 13 with other numbers."""
_FORM = 3
"""What is like more than three different training rows is a form, not a copy."""
_PROMPT_WORDS = 6
_CONTROL = 500


@dataclass(frozen=True, slots=True)
class Likeness:
    """A test row and the training row that is most like it, by their positions."""

    test: int
    train: int
    score: float


def check_leaks(material: Material) -> list[Finding]:
    """Find test rows that are training rows too, and those that are training rows in slightly other words.

    Equal means equal texts, case and punctuation aside: prompts where rows have classes, else all that is said. Nearly
    equal means that the prompts share words too rare to meet by chance. Where training rows are as like each other as
    test rows are like them, that is how the corpus is, and it is only noted. Of all others it is looked whether their
    question or answer stands inside a training row.
    """
    if not material.test or not material.train:
        return []
    classes = has_classes(material.train)
    equal = _equal(material, prompt_of if classes else Example.everything_said)
    alike = reworded(material.train, material.test, skip=set(equal))
    held = contained(material.train, material.test, skip={*equal, *(one.test for one in alike)})
    return [
        *_told_equal(material, equal),
        *_told_alike(material, alike, len(material.test) - len(equal)),
        *_told_contained(material, held),
    ]


def _equal(material: Material, text_of: Callable[[Example], str]) -> dict[int, int]:
    """Return for each test row that is a training row too the position of the first such row."""
    wanted: dict[bytes, list[int]] = defaultdict(list)
    for index, example in enumerate(material.test):
        wanted[digest(text_of(example))].append(index)
    found: dict[int, int] = {}
    for number, example in enumerate(material.train):
        for index in wanted.pop(digest(text_of(example)), ()):
            found[index] = number
    return dict(sorted(found.items()))


def _told_equal(material: Material, equal: dict[int, int]) -> list[Finding]:
    if not equal:
        return []
    pairs = (
        Sighting(f"{material.test[test].origin} = {material.train[train].origin}", _shown(material.test[test]))
        for test, train in equal.items()
    )
    return [
        Finding(
            kind="leaks",
            severity="warning",
            count=len(equal),
            what=f"{len(equal):,} of {len(material.test):,} test rows are in the training rows too, case and "
            "punctuation aside",
            examples=some(pairs),
            fix="the verdict counts them; remove them from one side for a clean comparison",
        )
    ]


def _told_alike(material: Material, alike: Sequence[Likeness], asked: int) -> list[Finding]:
    if not alike:
        return []
    usual = _usual(material.train)
    ordinary = usual >= 0.5 * len(alike) / asked
    what = f"{len(alike):,} of {len(material.test):,} test rows are training rows in slightly other words"
    if ordinary:
        what += f", as {usual:.0%} of the training rows are of others"
    pairs = (
        Sighting(f"{example.origin} ~ {material.train[one.train].origin}", _shown(example))
        for one in sorted(alike, key=lambda found: -found.score)
        for example in (material.test[one.test],)
    )
    return [
        Finding(
            kind="leaks",
            severity="note" if ordinary else "warning",
            count=len(alike),
            what=what,
            examples=some(pairs),
            fix="look at the pairs; where they are copies, remove them from one side",
        )
    ]


def _told_contained(material: Material, held: dict[int, Contained]) -> list[Finding]:
    if not held:
        return []
    seen = (
        Sighting(f"{material.test[index].origin} in {material.train[one.train].origin}", excerpt(one.text))
        for index, one in held.items()
    )
    return [
        Finding(
            kind="contained_texts",
            severity="warning",
            count=len(held),
            what=f"{len(held):,} of {len(material.test):,} test rows have a question or an answer that stands word "
            "for word inside a training row",
            examples=some(seen),
            fix="the verdict counts them; remove them from one side for a clean comparison",
        )
    ]


def _shown(example: Example) -> str:
    return excerpt(prompt_of(example) or example.everything_said())


def _usual(train: Sequence[Example]) -> float:
    """Return the share of training rows, in a fixed draw of 500, that are others in slightly other words."""
    drawn = sorted(random.Random(0).sample(range(len(train)), min(_CONTROL, len(train))))  # noqa: S311
    return len(reworded(train, [train[index] for index in drawn], own=drawn)) / len(drawn)


# ------------------------------------------------------------------------------------------------------- likeness


def reworded(
    train: Sequence[Example], test: Sequence[Example], *, skip: set[int] | None = None, own: Sequence[int] | None = None
) -> list[Likeness]:
    """Return the test rows that are training rows in slightly other words.

    Words are weighed by how rare they are in all rows (inverse document frequency in bits, Sparck Jones 1972), and
    rows compared by the Jaccard similarity of their words, weighed or plain. Every row is compared only with those
    that share at least two of its rarest words, so the time grows with the number of rows, not with its square.

    Args:
        train: training rows; they are gone through twice.
        test: the rows in question.
        skip: positions of test rows that are not looked at.
        own: positions of the test rows among the training rows, where they were taken from there.
    """
    import numpy as np

    vocabulary: dict[str, int] = {}
    asked = [
        _numbers([] if skip and index in skip else _words(example), vocabulary) for index, example in enumerate(test)
    ]
    frequency = np.zeros(len(vocabulary) + 1, dtype=np.int64)
    for row in asked:
        frequency[row] += own is None
    for example in train:
        frequency[[vocabulary[word] for word in set(_words(example)) if word in vocabulary]] += 1
    total = len(train) + (0 if own is not None else len(test))
    bits = np.log2(total / np.maximum(1, frequency))
    # A word that no test row has stands in one row as far as is known, and weighs most
    bits[-1] = np.log2(max(2, total))
    searched = _Searched(asked, bits, frequency)
    best: dict[int, Likeness] = {}
    alike: dict[int, set[int]] = defaultdict(set)
    start = 0
    for block in _blocks(train):
        texts = [_words(example) for example in block]
        for test_index, at, score in searched.like(_matrix(texts, vocabulary), texts):
            number = start + at
            if own is not None and (number == own[test_index] or set(texts[at]) == set(_words(test[test_index]))):
                continue
            alike[test_index].add(hash(tuple(texts[at])))
            if test_index not in best or score > best[test_index].score:
                best[test_index] = Likeness(test_index, number, score)
        start += len(block)
    return [best[index] for index in sorted(best) if len(alike[index]) <= _FORM]


def _words(example: Example) -> list[str]:
    """Return the words of the prompt, or where it is very short, of all that is said."""
    words = normalise(prompt_of(example), fold_digits=False).split()
    if len(words) < _PROMPT_WORDS and example.label is None:
        words = normalise(example.everything_said(), fold_digits=False).split()
    return words


def _numbers(words: Sequence[str], vocabulary: dict[str, int]) -> NDArray[Any]:
    """Return the numbers of the words, each once; a new word gets the next number."""
    import numpy as np

    return np.array(sorted({vocabulary.setdefault(word, len(vocabulary)) for word in words}), dtype=np.int32)


def _blocks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    rest = iter(examples)
    while block := list(islice(rest, _BLOCK)):
        yield block


def _matrix(texts: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> csr_array:
    """Return which words each text has, one row a text."""
    import numpy as np
    from scipy.sparse import csr_array

    known = [sorted({vocabulary[word] for word in text if word in vocabulary}) for text in texts]
    columns = np.array([column for row in known for column in row], dtype=np.int32)
    ends = np.cumsum([0, *(len(row) for row in known)])
    shape = (len(texts), len(vocabulary) + 1)
    return csr_array((np.ones(len(columns), dtype=np.float32), columns, ends), shape=shape)


class _Searched:
    """The rows in question, laid out so that a block of others can be compared with all of them at once."""

    def __init__(self, asked: Sequence[NDArray[Any]], bits: Any, frequency: Any) -> None:
        import numpy as np

        self._bits = bits
        self._words = self._as_matrix(asked, len(bits))
        probes = [
            heapq.nsmallest(
                _PROBES, (word for word in row.tolist() if frequency[word] > 1), key=lambda word: frequency[word]
            )
            for row in asked
        ]
        self._probes = self._as_matrix(probes, len(bits))
        self._weights = self._words @ bits
        self._counts = np.array([len(row) for row in asked])

    @staticmethod
    def _as_matrix(found: Sequence[Any], width: int) -> csr_array:
        import numpy as np
        from scipy.sparse import csr_array

        columns = np.concatenate([np.zeros(0, dtype=np.int32), *(np.sort(np.asarray(row, np.int32)) for row in found)])
        ends = np.cumsum([0, *(len(row) for row in found)])
        return csr_array((np.ones(len(columns), dtype=np.float32), columns, ends), shape=(len(found), width))

    def like(self, block: csr_array, texts: Sequence[Sequence[str]]) -> Iterator[tuple[int, int, float]]:
        """Yield (row in question, row of the block, score) for every pair that is alike."""
        import numpy as np

        hits = (self._probes @ block.T).tocoo()
        near = hits.data >= 2
        asked, others = hits.coords[0][near], hits.coords[1][near]
        counts = np.array([len(set(text)) for text in texts])
        weights = block @ self._bits + self._bits[-1] * (counts - np.diff(block.indptr))
        for first in range(0, len(asked), 100_000):
            one, other = asked[first : first + 100_000], others[first : first + 100_000]
            common = self._words[one].multiply(block[other])
            shared, number = common @ self._bits, np.diff(common.tocsr().indptr)
            weighted = shared / np.maximum(1e-9, self._weights[one] + weights[other] - shared)
            plain = number / np.maximum(1, self._counts[one] + counts[other] - number)
            scores = np.maximum(weighted / _WEIGHTED, plain / _PLAIN)
            for index in np.flatnonzero((scores >= 1) & (shared >= _BITS)):
                yield int(one[index]), int(other[index]), float(scores[index])
