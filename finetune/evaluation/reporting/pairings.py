"""One comparison of a run with another, in words: `pairing(task, "a", "b", comparison)`; `after_holm` corrects it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from finetune.evaluation.statistics.multiple import Holm
from finetune.evaluation.statistics.paired import Comparison
from finetune.evaluation.statistics.seeds import SeedComparison
from finetune.evaluation.wording import comparison_words, decimals, p_words, unseen_words


class Judged(Protocol):
    """What a pairing has to know of its task."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def scorer(self) -> str:
        """What judged it."""

    @property
    def higher_is_better(self) -> bool:
        """Whether the larger score wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """`run` against `reference` on one task: `comparison` has the reference in the place of base.

    `p_holm` and `verdict` are corrected for all comparisons of the page; `p_holm` is None where there is no other one,
    or too few items to tell.
    """

    task: str
    reference: str
    run: str
    comparison: Comparison
    sentence: str
    p_holm: float | None
    verdict: str

    def after_holm(self, found: Holm) -> Pairing:
        """Return it with p-value and verdict corrected for all comparisons that were made together."""
        if found.tasks < 2 or found.p_value is None:
            return self
        p_value = p_words(found.p_value, self.comparison.confidence)
        said = f" Corrected for {found.tasks} comparisons (Holm), {p_value}: {found.verdict}."
        return replace(self, p_holm=found.p_value, verdict=found.verdict, sentence=f"{self.sentence}{said}")


def pairing(task: Judged, reference: str, run: str, found: Comparison, *, tail: str = "") -> Pairing:
    """Say a comparison.

    Args:
        task: the task.
        reference: who stands in the place of base.
        run: who is compared with it.
        found: the comparison.
        tail: a sentence to follow.
    """
    places = decimals(found.interval, 2 if task.higher_is_better else 3)
    title = run[:1].upper() + run[1:] if run.startswith("the ") else run
    lead = {
        "better": f"{title} is better than {reference}",
        "worse": f"{title} is worse than {reference}",
        "no detectable difference": f"No detectable difference between {run} and {reference}",
        "too few items to tell": f"Too few items to tell {run} from {reference}",
    }[found.verdict]
    figures = comparison_words(found, places, higher_is_better=task.higher_is_better)
    said = f"{lead} on {task.task}: {task.scorer} {figures}{unseen_words(found, places)}."
    return Pairing(
        task=task.task,
        reference=reference,
        run=run,
        comparison=found,
        sentence=f"{said} {tail}".rstrip(),
        p_holm=None,
        verdict=found.verdict,
    )


def deviation_words(over: SeedComparison) -> str:
    """Say how far the models of different seeds lie apart."""
    return f"The seed alone moves the score by {over.deviation:.3f} (standard deviation beyond the items' noise)."
