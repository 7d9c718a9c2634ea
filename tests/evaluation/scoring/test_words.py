"""Text as words in several scripts, and answers that run in circles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.scoring.words import collapse, repetitive, words, words_touch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, sat!", ["the", "cat", "sat"]),
        ("don't well-known", ["dont", "wellknown"]),
        ("$1,234.50.", ["1234.50"]),
        ("3.5 is not 35", ["3.5", "is", "not", "35"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("東京は", ["東", "京", "は"]),
        ("हिन्दी", ["हिन्दी"]),
        ("ﬁve", ["five"]),
        ("... --- !!!", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_collapse_composes_and_squeezes() -> None:
    assert collapse("  cafe\u0301\n\t au   lait ") == "caf\u00e9 au lait"


@given(st.text())
def test_words_do_not_depend_on_case_or_spacing(text: str) -> None:
    assert words(f"  {text}\n") == words(text)
    assert all(word and not word.isspace() for word in words(text))


@pytest.mark.parametrize(("left", "right", "touch"), [("a", "b", True), ("1", "2", True), ("a", " ", False)])
def test_words_touch(left: str, right: str, touch: bool) -> None:
    assert words_touch(left, right) is touch
    assert words_touch(left, "") is False
    assert words_touch("東", "京") is False


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        ("I do not know. " * 10, True),
        ("aaaaaaaaaaaa" * 6, True),
        ("{}" * 40, True),
        ("no no no", False),
        ("The quick brown fox jumps over the lazy dog and then goes home to its den to sleep all day.", False),
        ('{"name": "Ada", "city": "London", "age": 36, "language": "English", "year": 1843}', False),
        ("", False),
    ],
)
def test_repetitive(text: str, circles: bool) -> None:
    assert repetitive(text) is circles
