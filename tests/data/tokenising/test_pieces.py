"""Long texts are cut where a reader would, and nothing is lost."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.rows import Piece
from finetune.data.tokenising.pieces import cut


def word_starts(text: str) -> np.ndarray:
    """One token a word, with the blanks before it, and one for the line ends between words."""
    return np.array([match.start() for match in re.finditer(r"\n+| *[^ \n]+| +", text)], dtype=np.int32)


def texts_of(text: str, size: int) -> list[str]:
    return [text[slice(*piece.characters)] for piece in cut("a.md", text, word_starts(text), size)]


PROSE = st.lists(
    st.sampled_from(["a", "bone", "cells.", "\n", "\n\n", "\n\n# Title\n\n", "- item\n", " ", "é", "??"]), max_size=120
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=PROSE, size=st.integers(2, 20))
def test_pieces_follow_each_other_and_hold_every_token(text: str, size: int) -> None:
    starts = word_starts(text)
    pieces = cut("a.md", text, starts, size)
    assert "".join(text[slice(*piece.characters)] for piece in pieces) == text
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert all(piece.tokens[1] - piece.tokens[0] <= size for piece in pieces)
    first, *later = pieces
    held = [*range(*first.tokens), *(token for piece in later for token in range(piece.tokens[0] + 1, piece.tokens[1]))]
    assert held == list(range(len(starts)))
    assert [piece.tokens[0] for piece in later] == [piece.tokens[1] - 1 for piece in pieces[:-1]]


def test_the_best_break_of_the_second_half_is_taken() -> None:
    assert texts_of("one two. three four\n\nfive\n# Six\nseven eight nine", 9) == [
        "one two. three four\n\nfive\n",
        "# Six\nseven eight nine",
    ]
    assert texts_of("one two three four\n\nfive six. seven eight nine", 7)[0] == "one two three four\n\n"
    assert texts_of("one two three four. five six seven eight nine", 7)[0] == "one two three four."
    assert texts_of("one two three four five six seven eight nine", 7)[0] == "one two three four five six seven"
    assert texts_of("one.\n\ntwo three four five six seven eight nine", 7)[0] == "one.\n\ntwo three four five six"


def test_a_piece_is_named_after_its_document() -> None:
    piece = Piece(document="bones/arm.md", number=3, tokens=(0, 2), characters=(0, 9))
    assert piece.id == "bones/arm.md#0003"
