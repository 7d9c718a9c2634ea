"""Find training rows that say the same, or nearly the same, as another one."""

from __future__ import annotations

from finetune.data.checks.findings import Finding, Places, excerpt, rows
from finetune.data.checks.material import Material, digest, prompt_of
from finetune.data.near_duplicates import near_duplicates, without_common_ends
from finetune.data.rows import Example
from finetune.data.store import Store

_MOST = 100_000
"""The split has compared all texts already; beyond this many rows only equal ones are looked for again."""


def _said(example: Example) -> str:
    return f"{example.everything_said()}\n{example.label or ''}"


def check_duplicates(material: Material) -> list[Finding]:
    """Find training rows that are equal to an earlier one, case and punctuation aside, answer included."""
    first: dict[bytes, int] = {}
    seen = Places()
    for number, example in enumerate(material.train):
        earlier = first.setdefault(digest(_said(example)), number)
        if earlier != number and (other := material.train[earlier]).origin != example.origin:
            seen.add(f"{example.origin} = {other.origin}", excerpt(prompt_of(example)))
    if not seen.count:
        return []
    total = len(material.train)
    return [
        Finding(
            kind="duplicates",
            severity="warning" if seen.count >= 0.1 * total else "note",
            count=seen.count,
            what=f"{seen.count:,} of {rows(total, 'training')} ({seen.count / total:.1%}) say what an earlier one says",
            examples=seen.examples,
            fix="leave them out, unless they are to weigh more than others",
        )
    ]


def check_near_duplicates(material: Material) -> list[Finding]:
    """Find training rows that are nearly identical to another one, but not equal to it."""
    total = len(material.train)
    if total > _MOST:
        what = f"near duplicates are not looked for among {rows(total, 'training')}, more than {_MOST:,}"
        return [Finding(kind="near_duplicates", severity="note", count=0, what=what)]
    texts = without_common_ends(Store(map(_said, material.train)))
    first: dict[int, tuple[int, bytes]] = {}
    met: set[bytes] = set()
    seen = Places()
    for number, (cluster, text) in enumerate(zip(near_duplicates(texts), texts, strict=True)):
        own = digest(text)
        earlier, other = first.setdefault(cluster, (number, own))
        if own != other and own not in met:
            example = material.train[number]
            seen.add(f"{example.origin} ~ {material.train[earlier].origin}", excerpt(prompt_of(example)))
        met.add(own)
    if not seen.count:
        return []
    return [
        Finding(
            kind="near_duplicates",
            severity="note",
            count=seen.count,
            what=f"{seen.count:,} of {rows(total, 'training')} ({seen.count / total:.1%}) are nearly another one",
            examples=seen.examples,
            fix="they teach little that is new; the split keeps them on one side unless told otherwise",
        )
    ]
