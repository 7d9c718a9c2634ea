"""Find test questions and answers that stand word for word inside training texts: `contained(train, test)`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.data.checks.material import answers_of, texts_of
from finetune.data.near_duplicates import normalise
from finetune.data.rows import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 13
"""Words of a run: thirteen in a row are no coincidence (Brown et al. 2020, arXiv:2005.14165, appendix C)."""
_SHARE, _TELLING = 0.6, 0.5
_SKETCH = 64
"""Of a long text the 64 runs with the least numbers are looked for: a draw by content (Broder 1997), the same in every
text that holds them. Their share is that of all runs within 0.12, at 95 %."""
_FORM = 3
"""Runs in more rows than this belong to a form."""
_MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Contained:
    """A part of a test row, and the position of the training row that it stands in."""

    text: str
    train: int


def contained(train: Sequence[Example], test: Sequence[Example], *, skip: Container[int] = ()) -> dict[int, Contained]:
    """Return the test rows with a question or an answer of which most runs of 13 words stand in one training row.

    Runs that stand in many rows are left out, so that a form is no copy. A text of less than 13 words has no runs.

    Args:
        train: training rows.
        test: the rows in question.
        skip: positions of test rows that are not looked at.
    """
    import numpy as np

    hashing = _Hashing()
    asked = [(index, part) for index, example in enumerate(test) if index not in skip for part in _parts(example)]
    runs = [np.unique(hashing.runs(part))[:_SKETCH] for _, part in asked]
    found: dict[int, Contained] = {}
    for position, number in _held(train, runs, hashing).items():
        index, part = asked[position]
        found.setdefault(index, Contained(part, number))
    return dict(sorted(found.items()))


def _parts(example: Example) -> list[str]:
    """Return the last question and the answer of a row, or its raw text; a class is no text."""
    if example.text is not None:
        return [example.text]
    questions = [turn.content for turn in example.context if turn.role == "user"][-1:]
    return questions + (answers_of(example)[-1:] if example.label is None else [])


def _held(train: Sequence[Example], runs: Sequence[NDArray[Any]], hashing: _Hashing) -> dict[int, int]:
    """Return for each part most of whose runs stand in one training row the position of that row."""
    import numpy as np

    empty = np.zeros(0, dtype=np.uint64)
    known, run_of = np.unique(np.concatenate([empty, *runs]), return_inverse=True)
    part_of = np.repeat(np.arange(len(runs)), [len(own) for own in runs])
    places = _places(train, known, hashing)
    # A run that stands nowhere tells as well; one that stands in many rows does not
    telling = (np.bincount(run_of, minlength=len(known)) <= _FORM) & (places[:, -1] < 0)
    sizes = np.bincount(part_of[telling[run_of]], minlength=len(runs))
    together: Counter[tuple[int, int]] = Counter()
    met = telling[run_of] & (places[run_of, 0] >= 0)
    for part, run in zip(part_of[met].tolist(), run_of[met].tolist(), strict=True):
        together.update((part, number) for number in places[run].tolist() if number >= 0)
    best: dict[int, int] = {}
    for (part, number), count in together.most_common():
        if sizes[part] >= _TELLING * len(runs[part]) and count >= _SHARE * sizes[part]:
            best.setdefault(part, number)
    return dict(sorted(best.items()))


def _places(train: Sequence[Example], known: NDArray[Any], hashing: _Hashing) -> NDArray[Any]:
    """Return in which training rows each known run stands, -1 for none: up to one more than make a form."""
    import numpy as np

    places = np.full((len(known), _FORM + 1), -1, dtype=np.int64)
    counts = np.zeros(len(known), dtype=np.int64)
    for number, example in enumerate(train if len(known) else ()):
        there = np.concatenate([hashing.runs(text) for text in texts_of(example)])
        place = np.minimum(np.searchsorted(known, there), len(known) - 1)
        hit = np.unique(place[known[place] == there])
        hit = hit[counts[hit] <= _FORM]
        places[hit, counts[hit]] = number
        counts[hit] += 1
    return places


class _Hashing:
    """Runs of words as numbers of 64 bits: equal runs have equal numbers, and others meet once in 10^19."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def _number(self, word: str) -> int:
        if word not in self._numbers:
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            self._numbers[word] = int.from_bytes(digest, "little")
        return self._numbers[word]

    def runs(self, text: str) -> NDArray[Any]:
        """Return the numbers of a text's runs of 13 words; none for a shorter text."""
        import numpy as np

        words = normalise(text, fold_digits=False).split()
        numbers = np.array([self._number(word) for word in words], dtype=np.uint64)
        count = max(0, len(words) - RUN + 1)
        total = np.zeros(count, dtype=np.uint64)
        with np.errstate(over="ignore"):
            for offset in range(RUN if count else 0):
                total = total * np.uint64(_MULTIPLIER) + numbers[offset : offset + count]
        return total
