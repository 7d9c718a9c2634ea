"""What a contestant without any understanding scores: `trivial_baseline`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.item_choices import CHOICES, GOLD
from finetune.evaluation.scoring.scorer import Floats, Scorer
from finetune.evaluation.scoring.text_measures import BITS_PER_BYTE
from finetune.evaluation.scoring.words import collapse

_LONGEST_QUOTE = 60


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the trivial contestant scored on each test item, and in words what it does.

    `details` are those of its scores, for metrics of the whole set; empty where nothing was answered.
    """

    name: str
    scores: Floats
    what: str
    details: tuple[Mapping[str, Any], ...] = ()


def trivial_baseline(
    scorer: Scorer,
    train_references: Sequence[str],
    test_references: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None = None,
    *,
    alternatives: Sequence[Sequence[str]] | None = None,
    ids: Sequence[str] | None = None,
) -> Baseline | None:
    """What a contestant without any understanding scores: the commonest training answer, given to every item.

    For json_fields that is the object of each field's commonest value; for bits_per_byte, a code by the byte
    frequencies of the training text (order 0, add-one smoothing); for choices that are not the same everywhere, the
    longest choice. None for perplexity, since tokens are a model's own.

    Args:
        scorer: of the task.
        train_references: the training answers.
        test_references: what ought to be answered on the test items.
        metadata: what the test items hold beside their texts, for scorers that need it.
        alternatives: further right answers of each test item.
        ids: the test items' ids, for messages.

    Raises:
        ValueError: There are no training or no test references.
        FinetuneError: The scorer cannot give the answer a score.
    """
    if not train_references or not test_references:
        raise ValueError("a trivial baseline needs training and test references")
    if scorer.unit == BITS_PER_BYTE:
        counts = np.ones(256) + np.bincount(_bytes("".join(train_references)), minlength=256)
        bits = -np.log2(counts / counts.sum())
        measured = np.array([bits[_bytes(reference)].mean() for reference in test_references])
        return Baseline("byte frequencies", measured, "each byte coded by its frequency in the training text")
    if scorer.of_choices:
        return _of_choices(scorer.guess(train_references), metadata or ())
    if scorer.needs_likelihood:
        return None
    answer, count = scorer.guess(train_references), len(test_references)
    columns = zip(
        test_references, metadata or [{}] * count, alternatives or [()] * count, ids or [""] * count, strict=True
    )
    found = [
        scorer.score(answer, reference, beside, alternatives=others, item=item)
        for reference, beside, others, item in columns
    ]
    return Baseline(
        "commonest training answer",
        np.array([score.value for score in found]),
        f"always answers {clip(answer)!r}",
        tuple(score.detail for score in found),
    )


def _of_choices(answer: str, items: Sequence[Mapping[str, Any]]) -> Baseline:
    offered = [[collapse(choice) for choice in item[CHOICES]] for item in items]
    if all(answer in choices for choices in offered):
        name, what = "commonest training answer", f"always answers {clip(answer)!r}"
        chosen = [choices.index(answer) for choices in offered]
    else:
        name, what = "longest choice", "always takes the longest choice, the first of several"
        chosen = [_longest(choices) for choices in offered]
    right = [float(place == item[GOLD]) for place, item in zip(chosen, items, strict=True)]
    return Baseline(name, np.array(right), what, tuple({"chosen": place} for place in chosen))


def _longest(choices: Sequence[str]) -> int:
    return max(range(len(choices)), key=lambda place: len(choices[place]))


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def clip(text: str) -> str:
    """Return a text as a sentence can quote it, cut to 60 characters."""
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."
