"""What a scorer is: `Score` and `Scorer`; the scorers are in `scorers`, `benchmark_scorers` and `running`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.evaluation.words import collapse


@dataclass(frozen=True, slots=True)
class Score:
    """How good one answer is: 0 to 1, except for bits_per_byte. `detail` says why, in JSON values."""

    value: float
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A way of judging answers. `judge(answer, reference)` looks at texts only.

    `binary` scorers give 0 or 1. With `needs_likelihood` there is no answer to judge: the score comes from the
    runtime's log-likelihood of the reference (`bits_per_byte`), and is unbounded. `guess` makes, out of the training
    answers, the one answer that a contestant without any understanding would always give. `judge_item`, where there is
    one, takes the item's metadata too (a database, tests), without which such a scorer can judge nothing.
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

    def score(self, answer: str, reference: str, metadata: Mapping[str, Any]) -> Score:
        """Judge one answer to one item."""
        if self.judge_item is not None:
            return self.judge_item(answer, reference, metadata)
        return self.judge(answer, reference)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest possible score, None where there is no such limit."""
        return None if self.needs_likelihood else (0.0, self.highest)


def right_or_wrong(
    name: str,
    judge: Callable[[str, str], Score],
    description: str,
    guess: Callable[[Sequence[str]], str] | None = None,
) -> Scorer:
    """Make a scorer that gives 1 or 0."""
    return Scorer(name, True, True, "share right", judge, description, guess=guess or commonest)


def commonest(references: Sequence[str]) -> str:
    """Return the commonest of the training answers."""
    return Counter(map(collapse, references)).most_common(1)[0][0]
