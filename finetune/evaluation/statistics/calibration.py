"""Does a contestant know what it knows? `calibration` sets its probabilities of choices against what was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.statistics.inference import Floats

BINS = 10
_DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Items whose confidence lies above `low` and at most at `high`: their mean confidence, and the share right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Confidence is the probability of the chosen answer; above `accuracy` it is over-confidence.

    `ece` is the mean distance of confidence and accuracy over `bins` (those with items). `ece_if_calibrated` is what
    perfect calibration would show at these confidences and this number of items, by chance alone. `brier` lies
    between 0 and 2.
    """

    n: int
    ece: float
    ece_if_calibrated: float
    brier: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """The same in values of strict JSON."""
        return {**asdict(self), "bins": [asdict(found) for found in self.bins]}


def calibration(
    probabilities: Sequence[Sequence[float]], gold: Sequence[int], *, bins: int = BINS, seed: int = 0
) -> Calibration:
    """Compute calibration figures of choices by likelihood.

    The expected calibration error has bins of equal width over the confidence (Naeini, Cooper & Hauskrecht 2015, AAAI;
    Guo et al. 2017, arXiv:1706.04599). It is above 0 by chance alone: `ece_if_calibrated` is its mean over 1,000 draws
    in which each choice is right with its own confidence (Broecker & Smith 2007, Weather Forecast. 22:651-661). The
    Brier score is the sum over choices of (probability - outcome)^2, averaged over items (Brier 1950).

    Args:
        probabilities: Of each item's choices, in their order; items may have unlike numbers of them.
        gold: Index of each item's right choice.
        bins: Number of bins between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: No items, unequal numbers, a gold index that is no choice, or probabilities that are none.
    """
    _check(probabilities, gold, bins)
    rows = [np.asarray(row, dtype=np.float64) for row in probabilities]
    confidence = np.array([row.max() for row in rows])
    right = np.array([float(int(row.argmax()) == index) for row, index in zip(rows, gold, strict=True)])
    brier = [float((row**2).sum() - 2 * row[index] + 1) for row, index in zip(rows, gold, strict=True)]
    place = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    imagined = np.random.default_rng(seed).random((_DRAWS, len(rows))) < confidence
    return Calibration(
        n=len(rows),
        ece=float(_errors(right[None, :] - confidence, place, bins)[0]),
        ece_if_calibrated=float(_errors(imagined - confidence, place, bins).mean()),
        brier=float(np.mean(brier)),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        bins=tuple(_bin(number, bins, confidence, right, place == number) for number in sorted(set(place.tolist()))),
    )


def _check(probabilities: Sequence[Sequence[float]], gold: Sequence[int], bins: int) -> None:
    if bins < 1 or not probabilities or len(probabilities) != len(gold):
        raise ValueError(
            f"needs a bin and an item with its gold index at least, not {bins} bins, {len(probabilities)} items, "
            f"{len(gold)} indexes"
        )
    for number, (row, index) in enumerate(zip(probabilities, gold, strict=True)):
        values = np.asarray(row, dtype=np.float64)
        if not 0 <= index < len(values):
            raise ValueError(f"item {number} has {len(values)} choices, none of index {index}")
        if not (np.isfinite(values).all() and (values >= 0).all() and abs(values.sum() - 1) <= 1e-6):
            raise ValueError(f"probabilities of item {number} are not at least 0 with sum 1: {list(row)}")


def _errors(surplus: Floats, place: NDArray[np.intp], bins: int) -> Floats:
    """Expected calibration error of each row of outcome - confidence."""
    member = np.zeros((len(place), bins))
    member[np.arange(len(place)), place] = 1.0
    found: Floats = np.abs(surplus @ member).sum(axis=1) / len(place)
    return found


def _bin(number: int, bins: int, confidence: Floats, right: Floats, inside: NDArray[np.bool_]) -> Bin:
    return Bin(
        low=number / bins,
        high=(number + 1) / bins,
        n=int(inside.sum()),
        confidence=float(confidence[inside].mean()),
        accuracy=float(right[inside].mean()),
    )
