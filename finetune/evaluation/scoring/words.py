"""Text seen as words, in any script: what scorers compare and what the health of an answer is read from."""

from __future__ import annotations

import re
import unicodedata

# Thai, Lao, Myanmar, Khmer, kana, Han, compatibility and supplementary ideographs: written without spaces.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECE = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}]+")
_AMOUNT = re.compile(r"\d[\d,]*(?:\.\d+)?")


def collapse(text: str) -> str:
    """Composed (Unicode NFC), with runs of white space as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """Words in order: folded (NFKC, casefold), without punctuation and symbols.

    Numbers keep their decimal point and lose their thousands commas. In scripts without spaces each character is one
    word.
    """
    found: list[str] = []
    for piece in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split():
        amount = _AMOUNT.search(piece)
        if amount and not any(character.isalnum() for character in piece.replace(amount.group(), "", 1)):
            found.append(amount.group().replace(",", ""))
            continue
        kept = "".join(character for character in piece if unicodedata.category(character)[0] in "LMN")
        found.extend(_PIECE.findall(kept))
    return found


def words_touch(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word; empty strings stand for the ends of a text."""
    return all(
        unicodedata.category(character)[0] in "LMN" and not re.match(f"[{_UNSPACED}]", character)
        for character in (left or " ", right or " ")
    )


def repetitive(text: str) -> bool:
    """Whether a text runs in circles: fewer than half of its runs of four words are different.

    Texts under 16 words are looked at by character from 48 characters on, with a bound of three in ten.
    """
    found = words(text)
    if len(found) >= 16:
        return _distinct_share(found) < 0.5
    packed = collapse(text)
    return len(packed) >= 48 and _distinct_share(packed) < 0.3


def _distinct_share(sequence: str | list[str]) -> float:
    runs = [tuple(sequence[start : start + 4]) for start in range(len(sequence) - 3)]
    return len(set(runs)) / len(runs)
