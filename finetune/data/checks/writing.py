"""Find what went wrong when texts were stored or copied: broken encodings, invisible signs, letters that deceive."""

from __future__ import annotations

import re

from ftfy.badness import is_bad

from finetune.data.checks.findings import Finding, Places, excerpt, rows
from finetune.data.checks.material import Material, texts_of

_REPLACEMENT = re.compile("\ufffd")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufff9-\ufffb]|[\ufdd0-\ufdef\ufffe\uffff]")
# Joiners belong to emoji and to Indic, Arabic and Persian words; they are odd between Latin letters only
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060\u2061-\u2064\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]|(?<=[A-Za-z])[\u200c\u200d]"
)
_ODD = {
    "replacement characters": _REPLACEMENT,
    "control characters": _CONTROL,
    "invisible characters": _INVISIBLE,
}
_LATIN = "A-Za-z\u00c0-\u024f"
# Greek letters beside Latin ones are ordinary in science (TNF\u03b1); those that look exactly like Latin ones are not
_DECEIVING = "\u0400-\u04ff\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf"
_HOMOGLYPH = re.compile(rf"[{_LATIN}][{_DECEIVING}]|[{_DECEIVING}][{_LATIN}]")
_WORD = re.compile(r"\w+")


def odd_signs(text: str) -> tuple[str, int] | None:
    """Return the kind of the first broken sign of a text and its place, or None.

    UTF-8 that was read as another encoding is found by ftfy's table of sequences that no language writes.
    """
    if text.isascii() and not _CONTROL.search(text):
        return None
    for kind, pattern in _ODD.items():
        if found := pattern.search(text):
            return kind, found.start()
    return ("text in a wrong encoding", _first_bad(text)) if is_bad(text) else None


def _first_bad(text: str) -> int:
    parts = re.finditer(r"\S+", text)
    return next((part.start() for part in parts if not part.group().isascii() and is_bad(part.group())), 0)


def check_encoding(material: Material) -> list[Finding]:
    """Find rows with broken signs, one finding for each kind of them."""
    found: dict[str, Places] = {}
    for example in material.everything():
        for text in texts_of(example):
            if odd := odd_signs(text):
                kind, place = odd
                shown = excerpt(text, max(0, place - 20), place + 40)
                found.setdefault(kind, Places()).add(example.origin, ascii(shown)[1:-1])
                break
    fixes = {
        "text in a wrong encoding": "read the source as UTF-8 again, or mend it with ftfy.fix_text",
        "replacement characters": "the original signs are lost here: read the source again with its own encoding",
        "control characters": "remove them; the model would learn to write them",
        "invisible characters": "remove them; the same words get other tokens with them",
    }
    return [
        Finding(
            kind="encoding",
            severity="warning",
            count=seen.count,
            what=f"{rows(seen.count)} with {kind}",
            examples=seen.examples,
            fix=fixes[kind],
        )
        for kind, seen in found.items()
    ]


def check_homoglyphs(material: Material) -> list[Finding]:
    """Find words that mix Latin letters with Cyrillic or Greek ones that look like them."""
    seen = Places()
    for example in material.everything():
        for text in texts_of(example):
            if not text.isascii() and (found := _HOMOGLYPH.search(text)):
                word = next(word.group() for word in _WORD.finditer(text) if word.end() > found.start())
                seen.add(example.origin, ascii(word)[1:-1])
                break
    if not seen.count:
        return []
    return [
        Finding(
            kind="homoglyphs",
            severity="warning",
            count=seen.count,
            what=f"{rows(seen.count)} with words of Latin and look-alike letters mixed",
            examples=seen.examples,
            fix="write such words in one alphabet: the tokenizer takes them for other words",
        )
    ]
