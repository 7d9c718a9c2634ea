"""Count personal data over a corpus, by kind and by row; what is shown of it is masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from finetune.data.checks.findings import Finding, Places, counted, rows
from finetune.data.checks.material import Material, texts_of
from finetune.data.checks.personal import NAMES, personal_data, veiled


def check_personal_data(
    material: Material, choice: Literal["count", "mask", "error", "ignore"], masked: Mapping[str, int]
) -> list[Finding]:
    """Find rows with personal data, or say how much of it was masked.

    Args:
        material: the rows, after masking where that was asked for.
        choice: the recipe's `data.checks.personal_data`.
        masked: places that were replaced by placeholders, by kind.
    """
    if choice == "ignore":
        return []
    told = _told_masked(masked) if choice == "mask" else []
    kinds: Counter[str] = Counter()
    seen = Places()
    for example in material.everything():
        found = [(place, text) for text in texts_of(example) for place in personal_data(text)]
        if found:
            kinds.update(place.kind for place, _ in found)
            place, text = found[0]
            seen.add(example.origin, f"{NAMES[place.kind]} {veiled(text[place.start : place.end])}")
    if not seen.count:
        return told
    by_kind = counted([(NAMES[kind], count) for kind, count in kinds.most_common()])
    where = " that stay, being class names," if choice == "mask" else ""
    return [
        *told,
        Finding(
            kind="personal_data",
            severity="error" if choice == "error" else "warning",
            count=seen.count,
            what=f"{rows(seen.count)} with what looks like personal data{where} ({by_kind})",
            examples=seen.examples,
            fix="set data.checks.personal_data to mask, which puts placeholders in its place, or ignore where it is "
            "public; names of people are never found this way"
            if choice != "mask"
            else "name the classes otherwise",
        ),
    ]


def _told_masked(masked: Mapping[str, int]) -> list[Finding]:
    count = sum(masked.values())
    if not count:
        return []
    ranked = sorted(((NAMES[kind], number) for kind, number in masked.items()), key=lambda item: (-item[1], item[0]))
    what = f"{count:,} pieces of personal data were replaced by placeholders such as [EMAIL_1] ({counted(ranked)})"
    return [Finding(kind="personal_data", severity="note", count=count, what=what)]
