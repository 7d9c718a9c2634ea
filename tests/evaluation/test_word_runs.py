"""Shares of texts that stand in rows are those that counting word by word gives; forms say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation import word_runs
from finetune.evaluation.word_runs import WordRuns, usual

SIZE = 4
WORDS = st.lists(st.sampled_from("abc"), max_size=30).map(" ".join)
LONG = st.lists(st.sampled_from("abc"), min_size=SIZE, max_size=30).map(" ".join)


def share(text: str, row: str) -> float:
    """The share of the words of a text that stand in a row in runs of four."""
    own, other = text.split(), row.split()
    runs = {tuple(other[start : start + SIZE]) for start in range(len(other) - SIZE + 1)}
    known = set()
    for start in range(len(own) - SIZE + 1):
        if tuple(own[start : start + SIZE]) in runs:
            known |= set(range(start, start + SIZE))
    return len(known) / len(own)


@settings(deadline=None)
@given(st.lists(LONG, min_size=1, max_size=3), st.lists(WORDS, max_size=8), st.integers(1, 3))
def test_shares_are_those_of_the_words(texts: list[str], rows: list[str], portion: int) -> None:
    runs = WordRuns(list(enumerate(texts)), SIZE, tests=3)
    numbered = list(enumerate(rows))
    for start in range(0, len(rows), portion):
        runs.look(numbered[start : start + portion])
    found = {owner: (part, number) for owner, text, part, number in runs.found() if text == texts[owner]}
    for owner, text in enumerate(texts):
        shares = [share(text, row) for row in rows]
        best = max(shares, default=0.0)
        if best == 0.0:
            assert owner not in found
        else:
            assert found[owner][0] == pytest.approx(best)
            assert found[owner][1] == shares.index(best)


@pytest.mark.parametrize("window", [50, 500, 10_000])
def test_a_very_long_row_is_looked_at_in_windows(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(word_runs, "_WINDOW", window)
    words = [f"w{number}" if number % 50 else 200 * "long" for number in range(400)]
    for start in range(0, 380, 7):
        runs = WordRuns([(0, " ".join(words[start : start + 13]))], 13, tests=1)
        runs.look([(9, " ".join(words))])
        assert [(one, number) for _, _, one, number in runs.found()] == [(1.0, 9)]


def test_what_eleven_rows_share_is_a_form() -> None:
    words = [f"w{number}" for number in range(40)]
    form, own = " ".join(words[:20]), " ".join(words[20:])
    runs = WordRuns([(0, f"{form} {own}")], 13, tests=1)
    runs.look([(number, f"{form} other{number}") for number in range(10)])
    assert [(one, number) for _, _, one, number in runs.found()] == [(0.5, 0)]
    runs.look([(10, f"{form} other10"), (11, f"something else {own}")])
    assert [(one, number) for _, _, one, number in runs.found()] == [(1.0, 11)]


def test_a_text_with_little_outside_of_forms_says_nothing() -> None:
    words = [f"w{number}" for number in range(30)]
    text = " ".join(words)
    runs = WordRuns([(0, text)], 13, tests=1)
    runs.look([(number, f"{' '.join(words[:20])} other{number}") for number in range(11)])
    runs.look([(11, text)])
    assert list(runs.found()) == []


@pytest.mark.parametrize(
    ("count", "tests", "share", "form"),
    [
        (3, 3, 0.0, False),
        (2, 4, 0.0, False),
        (3, 4, 0.0, True),
        (10, 500, 0.0, False),
        (11, 500, 0.0, True),
        (50, 500, 0.1, False),
        (51, 500, 0.1, True),
        (11, 11, 0.1, True),
    ],
)
def test_how_many_rows_in_question_make_a_form(count: int, tests: int, share: float, form: bool) -> None:
    assert usual(np.array([count]), tests, share=share).tolist() == [form]
