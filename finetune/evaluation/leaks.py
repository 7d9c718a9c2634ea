"""Which test items stand in the training rows, and what the verdict is without them: `find_leaks(items, training)`.

Training rows are read one after another, so they may lie on disk. What is looked for stays in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.data import Example, TestItem
from finetune.evaluation.compare import BASE, TaskResult, as_json, compare
from finetune.evaluation.overlaps import Kind, Match, matches
from finetune.evaluation.scoring.scorers import Scorer
from finetune.evaluation.wording import decimals, with_interval

_WORDS: Mapping[Kind, str] = {
    "exact": "to the letter",
    "normalised": "but for case and punctuation",
    "contained": "inside a longer row",
    "13-gram": "in part",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A test item and the training row that it stands in.

    Attributes:
        item_id: the test item.
        kind: `exact`, the same question, or the same question and answer, to the letter; `normalised`, the same but
            for case and punctuation; `contained`, its whole question or answer stands inside the training row;
            `13-gram`, a part of one does, in runs of 13 words.
        share: of the words of the question or the answer outside of forms, those that stand in the training row.
        train_id: the training row; of several the first.
        train_where: the file and the line where it was read.
    """

    item_id: str
    kind: Kind
    share: float
    train_id: str
    train_where: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as results keep it."""
        found = asdict(self)
        return {"id": found.pop("item_id"), **found}


@dataclass(frozen=True, slots=True)
class Leaks:
    """The items of a task that stand in the training rows, in the order of the items, and how many items there are."""

    overlaps: tuple[Overlap, ...]
    n: int

    @property
    def n_clean(self) -> int:
        """Items that stand in no training row."""
        return self.n - len(self.overlaps)


def find_leaks(items: Sequence[TestItem], training: Sequence[Example]) -> Leaks:
    """Find the test items that stand in the training rows.

    What more than ten different rows have in common is a form and no leak, as in Brown et al. 2020 (arXiv:2005.14165,
    appendix C), where runs have 13 words too, or 8 in short texts. Shared runs that cover less than a fifth of the
    words outside of forms are not told (Touvron et al. 2023, arXiv:2307.09288, appendix A.6, call such items clean).
    Digits count. Rewordings are not looked for here but by the checks of the data (`data.checks.leaks`).

    Args:
        items: the items of a task; examples that stand before their questions are left out.
        training: the rows that were learned; gone through several times, so they may lie on disk.
    """
    found = matches([item.example for item in items], training)
    return Leaks(tuple(_overlap(items[index], match, training) for index, match in found.items()), len(items))


def _overlap(item: TestItem, match: Match, training: Sequence[Example]) -> Overlap:
    row = training[match.train]
    return Overlap(
        item_id=item.example.id,
        kind=match.kind,
        share=match.share,
        train_id=row.id,
        train_where=str(row.origin),
    )


def judge_leaks(result: TaskResult, leaks: Leaks, scorer: Scorer, *, confidence: float, seed: int) -> dict[str, Any]:
    """Return a task's `leak` for `results.json`: the overlaps, and the subject against base on the other items.

    Args:
        result: the task on all items.
        leaks: what was found for its items.
        scorer: what the answers were judged with.
        confidence: level of interval and verdict.
        seed: seed of the bootstrap.

    Returns:
        `overlap`, `n_clean`, `clean` (a comparison; None where all items are clean, or none is) and `sentence`.
    """
    clean = _without(result, {one.item_id for one in leaks.overlaps}, scorer, confidence, seed)
    return {
        "overlap": [one.as_dict() for one in leaks.overlaps],
        "n_clean": leaks.n_clean,
        "clean": None if clean is None else as_json(clean)["comparisons"][result.subject],
        "sentence": _sentence(result, leaks, clean),
    }


def _without(result: TaskResult, left_out: set[str], scorer: Scorer, confidence: float, seed: int) -> TaskResult | None:
    """Compare the subject with base again, without some items; None where that changes nothing or leaves nothing."""
    kept = [place for place, item in enumerate(result.items) if item.id not in left_out]
    if not kept or len(kept) == len(result.items):
        return None
    answers = {name: [result.contestants[name][place] for place in kept] for name in (BASE, result.subject)}
    items = [result.items[place] for place in kept]
    return compare(result.task, scorer, items, answers, baseline=None, confidence=confidence, seed=seed)


def _sentence(result: TaskResult, leaks: Leaks, clean: TaskResult | None) -> str:
    if not leaks.overlaps:
        return f"None of the {leaks.n:,} items of {result.task} stands in the training rows."
    kinds = Counter(one.kind for one in leaks.overlaps)
    said = ", ".join(f"{kinds[kind]:,} {words}" for kind, words in _WORDS.items() if kinds[kind])
    stand = "stands" if len(leaks.overlaps) == 1 else "stand"
    lead = f"{len(leaks.overlaps):,} of {leaks.n:,} items of {result.task} {stand} in the training rows ({said})"
    if clean is None:
        return f"{lead}: no item is left that could tell whether anything but them was learned."
    found = clean.comparison
    places = decimals(found.interval, 2)
    tail = f"{found.verdict}, difference {with_interval(found.difference, found.interval, places, signed=True)}"
    if found.verdict == result.comparison.verdict:
        return f"{lead}; on the {leaks.n_clean:,} others the verdict is the same: {tail}."
    return (
        f"{lead}; on the {leaks.n_clean:,} others the verdict is not what it is on all of them "
        f"({result.comparison.verdict}) but {tail}."
    )
