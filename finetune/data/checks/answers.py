"""Find answers that are not worth learning: empty ones in disguise, refusals, and one answer to very many questions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from finetune.data.checks.findings import Finding, Places, excerpt, rows
from finetune.data.checks.labels import class_of
from finetune.data.checks.material import Material, answers_of, digest
from finetune.data.rows import Example

_NOTHING = {"", "n/a", "n.a", "na", "nan", "none", "null", "nil", "tbd", "todo", "empty", "undefined", "no answer"}
_PUNCTUATION = " \t\r\n.,;:!?-_*#/'\"()[]{}<>"
_REFUSAL = re.compile(
    r"(?i)\bas an? (?:large )?(?:ai|artificial intelligence|language)(?: language)?(?: model| assistant)?\b"
    r"(?! engineer)"
    r"|^\W*(?:(?:i'?m|i am) (?:very |so |really )?sorry|sorry|i apologi[sz]e)\b.{0,40}?"
    r"\b(?:i|we) ?(?:can(?:no|')?t|(?:'m|am|are) (?:unable|not able)|won'?t)\b"
    r"|^\W*(?:i|we) ?(?:can(?:no|')?t|(?:'m|am|'re|are) (?:unable|not able) to|won'?t) "
    r"(?:help|assist|provide|answer|comply|fulfil|do that|create|give|support|engage|share|discuss)"
)
# Refusals come at once, or after a sentence of apology
_OPENING = 300
_REPEATED_ROWS, _REPEATED_SHARE = 10, 0.05


def is_refusal(answer: str) -> bool:
    """Tell whether an answer begins by refusing, or speaks of itself as a language model."""
    return bool(_REFUSAL.search(answer[:_OPENING].replace("\u2019", "'")))


def check_empty_answers(material: Material) -> list[Finding]:
    """Find answers that stand for none, such as `N/A`; class names are left alone."""
    seen = Places()
    for example in material.everything():
        for answer in answers_of(example)[-1:] if example.label is None else ():
            if answer.strip(_PUNCTUATION).casefold() in _NOTHING:
                seen.add(example.origin, repr(answer))
    if not seen.count:
        return []
    return [
        Finding(
            kind="empty_answers",
            severity="warning",
            count=seen.count,
            what=f"{rows(seen.count)} whose answer stands for none",
            examples=seen.examples,
            fix="give them an answer or leave them out; the model would learn to say this",
        )
    ]


def check_refusals(material: Material) -> list[Finding]:
    """Find answers that refuse, or speak of themselves as a language model."""
    seen = Places()
    total = 0
    for example in material.everything():
        total += 1
        refused = next((answer for answer in answers_of(example) if is_refusal(answer)), None)
        if refused is not None:
            seen.add(example.origin, excerpt(refused))
    if not seen.count:
        return []
    return [
        Finding(
            kind="refusals",
            severity="warning",
            count=seen.count,
            what=f"{seen.count:,} of {rows(total)} have an answer that refuses or speaks of itself as an AI",
            examples=seen.examples,
            fix="leave them out unless the model is to refuse there",
        )
    ]


def check_repeated_answers(material: Material) -> list[Finding]:
    """Find free answers that stand in very many training rows; classes are told by their balance instead."""
    if class_of(material.train) is not None:
        return []
    counts: Counter[bytes] = Counter()
    for _, key in _distinct_answers(material):
        counts[key] += 1
    least = max(_REPEATED_ROWS, _REPEATED_SHARE * len(material.train))
    often = {key: Places() for key, count in counts.most_common() if count >= least}
    words: dict[bytes, str] = {}
    for example, key in _distinct_answers(material) if often else ():
        if key in often:
            often[key].add(example.origin)
            words.setdefault(key, excerpt(example.reference))
    return [
        Finding(
            kind="repeated_answers",
            severity="note",
            count=seen.count,
            what=f"{seen.count:,} of {rows(len(material.train), 'training')} have the answer {words[key]!r}",
            examples=seen.examples,
            fix="look whether it answers them; the model would learn to say it whatever is asked",
        )
        for key, seen in often.items()
    ]


def _distinct_answers(material: Material) -> Iterator[tuple[Example, bytes]]:
    """Yield each training row once, with a digest of its last answer, case and punctuation aside."""
    last = None
    for example in material.train:
        if example.id != last:
            for answer in answers_of(example)[-1:]:
                yield example, digest(answer)
        last = example.id
