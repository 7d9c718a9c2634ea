"""What a scorer is: `Score` and `Scorer`; `scorers.choose_scorer` picks the one of a task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.words import collapse

Floats = NDArray[np.float64]


class Unjudged(Exception):
    """An answer that a scorer cannot give a score, not even 0; `Scorer.score` says of which item."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good one answer is: 0 to 1, where the scorer has bounds. `detail` says why, in JSON values."""

    value: float
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WholeSet:
    """A metric of a whole set of items that is no mean of the items' scores, but a function of sums over them.

    Attributes:
        parts: makes one row of numbers an item out of the details of its score.
        of: turns sums of such rows (the last axis) into the metric, for any number of sets at once.
    """

    parts: Callable[[Sequence[Mapping[str, Any]]], Floats]
    of: Callable[[Floats], Floats]

    def statistic(self, details: Sequence[Mapping[str, Any]]) -> Callable[[Floats], Floats]:
        """Return what `statistics.paired_statistic` takes: the metric as a function of the items' weights.

        Args:
            details: those of one contestant's scores, in the order of the items.
        """
        from scipy.sparse import csr_array

        # Mostly zeros: of each class an item belongs to one
        table = csr_array(self.parts(details))

        def metric(weights: Floats) -> Floats:
            return self.of(weights @ table)

        return metric


@dataclass(frozen=True, slots=True)
class Scorer:
    """A way of judging answers. `judge(answer, reference)` looks at texts only; call `score`.

    Attributes:
        name: as the recipe says it.
        binary: it gives 0 or 1.
        higher_is_better: whether the larger score wins.
        unit: what the mean of the scores, or the metric of the whole set, is called.
        judge: of texts alone.
        description: what counts as right, in words.
        needs_likelihood: there is no answer to judge: the score comes from the runtime's log-likelihood of the
            reference (`measure`), or of every choice (`of_choices`).
        guess: makes, out of the training answers, the one answer that a contestant without any understanding would
            always give.
        judge_item: takes the item's metadata too (a database, tests); such a scorer can judge nothing without it.
        highest: the largest possible score; infinite where there is no limit.
        best_of: of several right answers the one that gives the highest score counts.
        measure: score of a reference, from its log-likelihood in nats, its text and the number of its tokens.
        of_choices: the score comes from the log-likelihoods of an item's choices.
        whole: where the metric is one of the whole set, what makes it; the items' own scores then only say which of
            them went well.
    """

    name: str
    binary: bool
    higher_is_better: bool
    unit: str
    judge: Callable[[str, str], Score]
    description: str
    needs_likelihood: bool = False
    guess: Callable[[Sequence[str]], str] = field(default_factory=lambda: commonest)
    judge_item: Callable[[str, str, Mapping[str, Any]], Score] | None = None
    highest: float = 1.0
    best_of: bool = False
    measure: Callable[[float, str, int], Score] | None = None
    of_choices: bool = False
    whole: WholeSet | None = None

    def score(
        self,
        answer: str,
        reference: str,
        metadata: Mapping[str, Any],
        *,
        alternatives: Sequence[str] = (),
        item: str = "",
    ) -> Score:
        """Judge one answer to one item.

        Args:
            answer: the whole answer.
            reference: the right answer.
            metadata: what the item holds beside its texts.
            alternatives: further right answers. Where one of them gives a higher score than the reference, that
                counts, and stands in the detail as `right_answer`; scorers that take metadata find them there.
            item: id of the item, for messages.

        Raises:
            FinetuneError: the answer cannot be given a score.
        """
        try:
            if self.judge_item is not None:
                beside = {**metadata, "alternatives": list(alternatives)} if alternatives else metadata
                return self.judge_item(answer, reference, beside)
            best = self.judge(answer, reference)
            for other in alternatives if self.best_of else ():
                found = self.judge(answer, other)
                if found.value > best.value:
                    best = Score(found.value, {**found.detail, "right_answer": other})
            return best
        except Unjudged as fault:
            raise FinetuneError(
                f"{self.name} cannot judge the answer to item {item!r}: {fault}",
                where="evaluate.scorer",
                fix="mend the scorer, or take another one; 'auto' chooses one that fits",
            ) from fault.__cause__

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest possible score, None where there is no such limit."""
        return None if math.isinf(self.highest) else (0.0, self.highest)


def right_or_wrong(
    name: str,
    judge: Callable[[str, str], Score],
    description: str,
    guess: Callable[[Sequence[str]], str] | None = None,
    *,
    best_of: bool = False,
) -> Scorer:
    """Make a scorer that gives 1 or 0."""
    return Scorer(name, True, True, "share right", judge, description, guess=guess or commonest, best_of=best_of)


def graded(name: str, unit: str, judge: Callable[[str, str], Score], description: str) -> Scorer:
    """Make a scorer of texts that gives anything from 0 to 1, and the best over several right answers."""
    return Scorer(name, False, True, unit, judge, description, best_of=True)


def commonest(references: Sequence[str]) -> str:
    """Return the commonest of the training answers."""
    return Counter(map(collapse, references)).most_common(1)[0][0]
