"""Find texts that are nearly the same: `near_duplicates(texts)` gives each text the number of its cluster."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

THRESHOLD = 0.85
_PERMUTATIONS, _BANDS = 120, 20
"""Bands of six rows: a pair at the threshold becomes a candidate with probability 0.9999."""
_SEED = 1
_ESTIMATE = 0.75
"""Three standard deviations of an estimate from 120 permutations below the threshold; what passes is verified."""
_WORDS_FROM, _CHARACTERS_UP_TO = 16, 20
"""Words for texts of 16 words or more, characters up to 20: near-identical texts always have a kind in common."""
_COMPARED = 100_000
_FORM_FROM, _FORM_WORDS, _FORM_CHARACTERS = 50, 0.1, 0.8
"""Shingles in more than 50 texts and more than this share of them belong to a form that rows fill in; what rows say
lies in the rest. Five characters of plain language are common to many texts, three words are not."""


def normalise(text: str, *, fold_digits: bool = True) -> str:
    """Fold case, write every digit as 0, and make one space of every run of white space and punctuation."""
    folded = text.casefold()
    return re.sub(r"[\W_]+", " ", re.sub(r"\d", "0", folded) if fold_digits else folded).strip()


def without_common_ends(texts: Sequence[str]) -> list[str]:
    """Cut off, at word ends, what all texts begin and end with, such as a shared instruction."""
    if len(set(texts)) < 2:
        return list(texts)
    start = _shared_words(texts)
    end = _shared_words([text[start:][::-1] for text in texts])
    return [text[start : len(text) - end] for text in texts]


def _shared_words(texts: Sequence[str]) -> int:
    """Return how many characters all texts begin with, counted up to white space."""
    least, greatest = min(texts), max(texts)
    pairs = zip(least, greatest, strict=False)
    shared = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(least), len(greatest)))
    return len(re.sub(r"\S+\Z", "", least[:shared]))


def near_duplicates(texts: Sequence[str]) -> list[int]:
    """Number the clusters of nearly identical texts, in order of first appearance.

    Two texts are linked when they are equal after `normalise`, or when the Jaccard similarity of their shingle sets
    (3 words; 5 characters for short texts) is at least 0.85. Candidates come from MinHash and banded locality-
    sensitive hashing (Broder 1997; Indyk and Motwani 1998); each is verified exactly. Shingles that very many texts
    share are left out, and of a text longer than 100,000 characters the beginning is compared. The clusters do not
    depend on the order of the texts.

    Args:
        texts: as they are; `normalise` is applied here.
    """
    normal = [normalise(text) for text in texts]
    unique = list(dict.fromkeys(normal))
    clusters = Clusters(len(unique))
    compared = [text[:_COMPARED] for text in unique]
    long = [index for index, text in enumerate(compared) if text.count(" ") + 1 >= _WORDS_FROM]
    short = [index for index, text in enumerate(compared) if text.count(" ") + 1 <= _CHARACTERS_UP_TO]
    _link(long, _telling([_word_shingles(compared[index]) for index in long], _FORM_WORDS), clusters)
    _link(short, _telling([_character_shingles(compared[index]) for index in short], _FORM_CHARACTERS), clusters)
    position = {text: index for index, text in enumerate(unique)}
    numbers: dict[int, int] = {}
    return [numbers.setdefault(clusters.find(position[text]), len(numbers)) for text in normal]


class Clusters:
    """Union-find over the numbers 0 to size - 1."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

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


def _word_shingles(text: str) -> frozenset[str]:
    words = text.split(" ")
    return frozenset(" ".join(words[start : start + 3]) for start in range(max(1, len(words) - 2)))


def _character_shingles(text: str) -> frozenset[str]:
    return frozenset(text[start : start + 5] for start in range(max(1, len(text) - 4)))


def _telling(shingles: list[frozenset[str]], share: float) -> list[frozenset[str]]:
    """Leave out what belongs to a form, unless a text has nothing else."""
    most = max(_FORM_FROM, share * len(shingles))
    counts = Counter(token for tokens in shingles for token in tokens)
    form = {token for token, count in counts.items() if count > most}
    return [tokens - form or tokens for tokens in shingles]


def _link(members: Sequence[int], shingles: Sequence[frozenset[str]], clusters: Clusters) -> None:
    """Join the members whose shingle sets are similar enough."""
    if len(shingles) < 2:
        return
    import numpy as np
    from rensa import RMinHash, RMinHashLSH

    sketches = RMinHash.from_token_sets([sorted(tokens) for tokens in shingles], _PERMUTATIONS, _SEED)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=_PERMUTATIONS, num_bands=_BANDS)
    index.insert_many(sketches)
    digests = np.array([sketch.digest() for sketch in sketches], dtype=np.uint32)
    for first, sketch in enumerate(sketches):
        # Asked before anything is computed: in a large cluster nearly all pairs are joined already.
        own = clusters.find(members[first])
        found = [second for second in index.query(sketch) if second > first and clusters.find(members[second]) != own]
        if not found:
            continue
        estimates = (digests[found] == digests[first]).mean(axis=1)
        for second, estimate in zip(found, estimates.tolist(), strict=True):
            if estimate >= _ESTIMATE and _similar(shingles[first], shingles[second]):
                clusters.join(members[first], members[second])


def _similar(first: frozenset[str], second: frozenset[str]) -> bool:
    """Tell whether the exact Jaccard similarity reaches the threshold."""
    shared = len(first & second)
    return shared >= THRESHOLD * (len(first) + len(second) - shared)
