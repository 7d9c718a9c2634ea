"""Rows for checks to look at, made from words drawn at random so that no two are alike by chance."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from finetune.data.checks import Finding, Material, check_corpus
from finetune.data.rows import Example, Message, Origin
from finetune.recipe.schema import ChecksSection

# fmt: off
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "zi")
# fmt: on


def word(chance: random.Random) -> str:
    return "".join(chance.choice(SYLLABLES) for _ in range(3))


def prose(chance: random.Random, words: int) -> str:
    """A text with the frequencies of language: a third of its words are among twelve common ones."""
    common = ("the", "of", "and", "a", "to", "in", "is", "that", "it", "was", "for", "on")
    return " ".join(chance.choice(common) if chance.random() < 0.33 else word(chance) for _ in range(words))


def asked(
    prompt: str, answer: str = "yes", *, line: int = 1, file: str = "rows.jsonl", label: str | None = None
) -> Example:
    """A question with its answer."""
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example(id=f"{file}:{line}", origin=Origin(file, line), messages=turns, label=label)


def raw(text: str, *, line: int = 1, file: str = "rows.jsonl") -> Example:
    """A raw text."""
    return Example(id=f"{file}:{line}", origin=Origin(file, line), text=text)


def numbered(
    texts: Iterable[str | tuple[str, str]], file: str = "rows.jsonl", *, labels: bool = False
) -> list[Example]:
    """Prompts, or pairs of prompt and answer, a line each; with `labels` the answer is a class."""
    rows = []
    for line, text in enumerate(texts, 1):
        prompt, answer = (text, f"answer number {line}") if isinstance(text, str) else text
        rows.append(asked(prompt, answer, line=line, file=file, label=answer if labels else None))
    return rows


def found(
    train: Sequence[Example],
    *,
    validation: Sequence[Example] = (),
    test: Sequence[Example] = (),
    template: str = "",
    **settings: object,
) -> list[Finding]:
    """All findings."""
    section = ChecksSection.model_validate(settings)
    return check_corpus(Material(train=train, validation=validation, test=test, template=template), section)


def of_kind(findings: Sequence[Finding], kind: str) -> list[Finding]:
    return [finding for finding in findings if finding.kind == kind]
