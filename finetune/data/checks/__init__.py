"""The checks of the data room: what in the rows would spoil a run or its verdict, found before it costs anything.

`check_corpus(material, recipe.data.checks)` looks at every row; each kind of finding has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from finetune.data.checks.answers import check_empty_answers, check_refusals, check_repeated_answers
from finetune.data.checks.duplicates import check_duplicates, check_near_duplicates
from finetune.data.checks.findings import KINDS, Finding, Sighting
from finetune.data.checks.labels import (
    check_conflicting_labels,
    check_label_imbalance,
    check_label_typos,
    check_rare_labels,
)
from finetune.data.checks.languages import check_languages
from finetune.data.checks.leaks import check_leaks
from finetune.data.checks.lengths import check_lengths
from finetune.data.checks.markers import check_chat_markers
from finetune.data.checks.masking import mask_example, mask_text
from finetune.data.checks.material import Material
from finetune.data.checks.private import check_personal_data
from finetune.data.checks.writing import check_encoding, check_homoglyphs
from finetune.recipe.schema import ChecksSection

__all__ = ["KINDS", "Finding", "Material", "Sighting", "check_corpus", "mask_example", "mask_text"]

Check = Callable[[Material], list[Finding]]

# Each check with the kinds of findings it may return
CHECKS: tuple[tuple[frozenset[str], Check], ...] = (
    (frozenset({"leaks", "contained_texts"}), check_leaks),
    (frozenset({"duplicates"}), check_duplicates),
    (frozenset({"near_duplicates"}), check_near_duplicates),
    (frozenset({"conflicting_labels"}), check_conflicting_labels),
    (frozenset({"label_typos"}), check_label_typos),
    (frozenset({"rare_labels"}), check_rare_labels),
    (frozenset({"label_imbalance"}), check_label_imbalance),
    (frozenset({"empty_answers"}), check_empty_answers),
    (frozenset({"refusals"}), check_refusals),
    (frozenset({"repeated_answers"}), check_repeated_answers),
    (frozenset({"languages"}), check_languages),
    (frozenset({"encoding"}), check_encoding),
    (frozenset({"homoglyphs"}), check_homoglyphs),
    (frozenset({"over_long"}), check_lengths),
    (frozenset({"chat_markers"}), check_chat_markers),
)


def check_corpus(
    material: Material, section: ChecksSection, *, masked: Mapping[str, int] | None = None
) -> list[Finding]:
    """Look at a corpus for what would spoil a run or its verdict.

    Args:
        material: the divided rows, after masking where that was asked for.
        section: the recipe's `data.checks`: kinds that are not looked for, and kinds that refuse the run.
        masked: personal data that was replaced by placeholders, by kind.

    Returns:
        The findings, worst first; none for a clean corpus.
    """
    ignored = set(section.ignore)
    found = [finding for kinds, check in CHECKS if not kinds <= ignored for finding in check(material)]
    found += check_personal_data(material, section.personal_data, masked or {})
    kept = [
        replace(finding, severity="error") if finding.kind in section.error and finding.count else finding
        for finding in found
        if finding.kind not in ignored
    ]
    order = ("error", "warning", "note")
    return sorted(kept, key=lambda finding: order.index(finding.severity))
