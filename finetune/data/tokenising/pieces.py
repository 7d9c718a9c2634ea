"""Cut a long text between its sections, paragraphs or sentences: `cut(text, starts, size)` says where.

Neighbouring pieces share one token: a piece's first token has nothing before it and is never learned, so that every
token but the text's first is learned exactly once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.data.rows import Piece

# Where a text may be cut, best first: before a Markdown heading, after a blank line, a line, a sentence
_BREAKS = tuple(map(re.compile, (r"\n(?=#{1,6} \S)", r"\n[ \t]*\n+", r"\n", r"[.!?][\"')\]\u201d\u2019]*(?=\s)")))


def cut(document: str, text: str, starts: NDArray[np.int32], size: int) -> list[Piece]:
    """Say which tokens and characters of a text make up each piece.

    A piece ends at the last of the best breaks in its second half: a heading, else a paragraph, a line, a sentence;
    where there is none it is cut between tokens.

    Args:
        document: the text's id.
        text: the whole text.
        starts: first character of each token, ascending.
        size: most tokens of a piece, at least 2.

    Returns:
        pieces in the order of the text. Their characters follow each other without gap or overlap; their tokens
        overlap by one.
    """
    breaks = [_tokens_after(pattern, text, starts) for pattern in _BREAKS]
    ends = []
    first, total = 0, len(starts)
    while total - first > size:
        ends.append(_end(breaks, first, size))
        first = ends[-1] - 1
    begins = [0, *ends]
    places = [0, *(int(starts[end]) for end in ends), len(text)]
    return [
        Piece(
            document=document,
            number=number,
            tokens=(max(0, begin - 1), end),
            characters=(places[number - 1], places[number]),
        )
        for number, (begin, end) in enumerate(zip(begins, [*ends, total], strict=True), 1)
    ]


def _tokens_after(pattern: re.Pattern[str], text: str, starts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the first token after each match, ascending."""
    places = [match.end() for match in pattern.finditer(text)]
    return np.unique(np.searchsorted(starts, places, side="left"))


def _end(breaks: Sequence[NDArray[np.int64]], first: int, size: int) -> int:
    """Return the token before which the piece that begins at `first` ends."""
    last = first + size
    for found in breaks:
        place = int(np.searchsorted(found, last, side="right")) - 1
        if place >= 0 and found[place] > first + size // 2:
            return int(found[place])
    return last
