"""Error rates by simulation: intervals hold the truth in 93 to 97 of 100 samples, 3.5 to 6.5 of 100 alarms are false.

All seeds are fixed, so that the figures are always the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.evaluation.scoring.label_scorers import label_scorer, macro_f1_scorer
from finetune.evaluation.statistics.multiple import holm, non_inferiority
from finetune.evaluation.statistics.paired import Comparison, paired_comparison, paired_statistic
from finetune.evaluation.statistics.seeds import seed_comparison

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]
Clusters = Sequence[int] | None
Draw = Callable[[np.random.Generator], tuple[Floats, Floats, Clusters]]
RESAMPLES = 1000


@dataclass(frozen=True)
class Rates:
    """Shares of samples whose interval holds the truth, and whose verdict is better or worse."""

    coverage: float
    alarms: float


def rates(found: Sequence[Comparison], truth: float, weights: Sequence[int] | None = None) -> Rates:
    held = [one.interval[0] <= truth <= one.interval[1] for one in found]
    decided = [one.verdict in ("better", "worse") for one in found]
    return Rates(float(np.average(held, weights=weights)), float(np.average(decided, weights=weights)))


def simulated(draw: Draw, truth: float, *, binary: bool, samples: int = 2000) -> Rates:
    rng = np.random.default_rng(20)
    found = []
    for number in range(samples):
        base, tuned, clusters = draw(rng)
        found.append(
            paired_comparison(
                base,
                tuned,
                binary=binary,
                higher_is_better=True,
                clusters=clusters,
                seed=number,
                resamples=RESAMPLES,
            )
        )
    return rates(found, truth)


def check(found: Rates, *, null: bool) -> None:
    assert 0.93 <= found.coverage <= 0.97, found
    if null:
        assert 0.035 <= found.alarms <= 0.065, found


# ------------------------------------------------------------------------------------------------- right or wrong


def binary_rates(n: int, wins: float, losses: float) -> Rates:
    """Of 10,000 samples; each table that occurs is judged once."""
    shares = [wins, losses, 0.3, 0.7 - wins - losses]
    tables = np.random.default_rng(20).multinomial(n, shares, size=10_000)[:, :2]
    distinct, counts = np.unique(tables, axis=0, return_counts=True)
    found = []
    for won, lost in distinct.tolist():
        base = np.concatenate([np.zeros(won), np.ones(lost), np.ones(n - won - lost)])
        tuned = np.concatenate([np.ones(won), np.zeros(lost), np.ones(n - won - lost)])
        found.append(paired_comparison(base, tuned, binary=True, higher_is_better=True))
    return rates(found, wins - losses, counts.tolist())


@pytest.mark.parametrize("n", [50, 200, 500])
@pytest.mark.parametrize("differing", [0.2, 0.3])
def test_binary_without_effect(n: int, differing: float) -> None:
    check(binary_rates(n, differing / 2, differing / 2), null=True)


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize(("wins", "losses"), [(0.2, 0.1), (0.3, 0.05), (0.6, 0.02)])
def test_binary_with_effect(n: int, wins: float, losses: float) -> None:
    check(binary_rates(n, wins, losses), null=False)


def test_where_hardly_any_item_differs_alarms_are_rarer_than_promised() -> None:
    """Six items decide: no test of so few has a level between those of whole items."""
    found = binary_rates(100, 0.03, 0.03)
    assert found.coverage >= 0.95
    assert found.alarms <= 0.05


# ---------------------------------------------------------------------------------------------------------- graded


def graded_draw(n: int, gain: float) -> Draw:
    """Shares of five fields right, of items unlike in difficulty; the tuned one gets `gain` of what is missing."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, Clusters]:
        ease = rng.beta(2, 2, n)
        return rng.binomial(5, ease) / 5, rng.binomial(5, ease + gain * (1 - ease)) / 5, None

    return draw


@pytest.mark.parametrize("n", [15, 50, 200])
def test_graded_without_effect(n: int) -> None:
    check(simulated(graded_draw(n, 0.0), 0.0, binary=False), null=True)


@pytest.mark.parametrize("n", [15, 50, 200])
def test_graded_with_effect(n: int) -> None:
    check(simulated(graded_draw(n, 0.4), 0.2, binary=False), null=False)


# ---------------------------------------------------------------------------------------------------------- groups


def equal_sizes(size: int) -> Callable[[np.random.Generator, int], NDArray[np.int_]]:
    return lambda rng, groups: np.full(groups, size)


def geometric_sizes(rng: np.random.Generator, groups: int) -> NDArray[np.int_]:
    return rng.geometric(0.2, groups)


def skewed_sizes(rng: np.random.Generator, groups: int) -> NDArray[np.int_]:
    """Lognormal: a few documents have most of the questions."""
    return np.ceil(rng.lognormal(1.0, 1.0, groups)).astype(int)


def grouped_draw(
    groups: int, sizes: Callable[[np.random.Generator, int], NDArray[np.int_]], *, binary: bool, gain: float = 0.0
) -> Draw:
    """Each group has a leaning of its own towards base or tuned, around `gain`."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, Clusters]:
        of_item = np.repeat(np.arange(groups), sizes(rng, groups))
        ease, leaning = rng.normal(size=len(of_item)), rng.normal(gain, 0.6, groups)[of_item]
        base = ease + rng.normal(0, 0.7, len(of_item))
        tuned = ease + leaning + rng.normal(0, 0.7, len(of_item))
        if binary:
            return (base > 0).astype(float), (tuned > 0).astype(float), of_item.tolist()
        return np.clip(np.round(base + 2) / 4, 0, 1), np.clip(np.round(tuned + 2) / 4, 0, 1), of_item.tolist()

    return draw


SIZES = {
    "equal": equal_sizes(5),
    "equal, large": equal_sizes(10),
    "geometric": geometric_sizes,
    "skewed": skewed_sizes,
}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("groups", [12, 30, 60])
def test_groups_without_effect(groups: int, sizes: str, binary: bool) -> None:
    check(simulated(grouped_draw(groups, SIZES[sizes], binary=binary), 0.0, binary=binary), null=True)


@pytest.mark.parametrize("groups", [15, 40])
def test_groups_with_effect(groups: int) -> None:
    # A gain of 0.5 moves the latent score, whose variance is 1 + 0.7^2 without and + 0.6^2 with the leaning
    from scipy.stats import norm

    truth = float(norm.cdf(0.5 / np.sqrt(1 + 0.49 + 0.36)) - 0.5)
    check(simulated(grouped_draw(groups, equal_sizes(5), binary=True, gain=0.5), truth, binary=True), null=False)


def test_ignoring_groups_would_double_false_alarms() -> None:
    grouped = grouped_draw(30, equal_sizes(10), binary=True)

    def ignoring(rng: np.random.Generator) -> tuple[Floats, Floats, Clusters]:
        base, tuned, _ = grouped(rng)
        return base, tuned, None

    assert simulated(ignoring, 0.0, binary=True, samples=1000).alarms > 0.09


# ------------------------------------------------------------------------------------------ metrics of a whole set

NAMES = tuple("abcdefgh")


def macro_f1_rates(n: int, shares: Sequence[float], accuracies: tuple[float, float], samples: int) -> Rates:
    scorer = label_scorer(NAMES[: len(shares)])
    truth = _true_macro_f1(shares, accuracies[1]) - _true_macro_f1(shares, accuracies[0])
    rng, found = np.random.default_rng(20), []
    for number in range(samples):
        gold = rng.choice(len(shares), n, p=shares)
        # Answers of both lean on the same difficulty of an item, so that pairing matters
        shared, ease = rng.random(n) < 0.5, rng.random(n)
        judged = []
        for accuracy in accuracies:
            luck = np.where(shared, ease, rng.random(n))
            given = np.where(luck < accuracy, gold, rng.choice(len(shares), n, p=shares))
            whole = macro_f1_scorer(scorer, [NAMES[index] for index in gold])
            assert whole.whole is not None
            scores = [whole.judge(NAMES[said], NAMES[index]) for said, index in zip(given, gold, strict=True)]
            judged.append((whole.whole.statistic([one.detail for one in scores]), [one.value for one in scores]))
        (base, base_scores), (tuned, tuned_scores) = judged
        found.append(
            paired_statistic(
                base, tuned, base_scores, tuned_scores, higher_is_better=True, seed=number, resamples=RESAMPLES
            )
        )
    return rates(found, truth)


def _true_macro_f1(shares: Sequence[float], accuracy: float) -> float:
    """Hits of a class are share (accuracy + (1 - accuracy) share); it is named as often as it occurs."""
    return float(np.mean([accuracy + (1 - accuracy) * share for share in shares]))


@pytest.mark.parametrize(("n", "samples"), [(60, 2000), (120, 1000)])
def test_macro_f1_without_effect(n: int, samples: int) -> None:
    check(macro_f1_rates(n, (0.5, 0.3, 0.2), (0.6, 0.6), samples), null=True)


def test_macro_f1_with_effect() -> None:
    check(macro_f1_rates(100, (0.5, 0.3, 0.2), (0.5, 0.7), 1200), null=False)


# ------------------------------------------------------------------------------------------------ seeds and margins


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
def test_seeds_without_effect(seeds: int, n: int, spread: float) -> None:
    """Right-or-wrong answers; `spread` is the deviation of the seeds' true leaning on the scale of difficulty."""
    rng, found = np.random.default_rng(20), []
    for _ in range(2000):
        ease, leaning = rng.normal(size=n), rng.normal(0, 0.5, n)
        base = ease + rng.normal(0, np.sqrt(0.5), n) > 0
        tuned = ease + leaning + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.5, (seeds, n)) > 0
        found.append(
            seed_comparison(base.astype(float), tuned.astype(float), binary=True, higher_is_better=True).comparison
        )
    result = rates(found, 0.0)
    assert 0.93 <= result.coverage <= 0.975, result
    assert 0.025 <= result.alarms <= 0.065, result


def test_one_model_taken_for_its_recipe_raises_false_alarms() -> None:
    rng, found = np.random.default_rng(20), []
    for number in range(400):
        base = rng.normal(0.5, 0.1, 100)
        tuned = base + rng.normal(0, 0.05) + rng.normal(0, 0.2, 100)
        found.append(
            paired_comparison(
                base,
                tuned,
                binary=False,
                higher_is_better=True,
                bounds=None,
                seed=number,
                resamples=RESAMPLES,
            )
        )
    assert rates(found, 0.0).alarms > 0.3


def test_a_loss_as_large_as_the_margin_is_rarely_taken_for_none() -> None:
    rng, verdicts = np.random.default_rng(20), []
    for wins, losses in rng.multinomial(300, [0.05, 0.1, 0.85], size=4000)[:, :2].tolist():
        base = np.repeat([0.0, 1.0, 1.0], [wins, losses, 300 - wins - losses])
        tuned = np.repeat([1.0, 0.0, 1.0], [wins, losses, 300 - wins - losses])
        found = paired_comparison(base, tuned, binary=True, higher_is_better=True)
        verdicts.append(non_inferiority(found, margin=0.05, higher_is_better=True).verdict)
    assert 0.015 <= verdicts.count("keeps") / 4000 <= 0.035
    assert 0.015 <= verdicts.count("forgets") / 4000 <= 0.035


# ------------------------------------------------------------------------------------------------------------ Holm


def test_holm_keeps_false_verdicts_rare_over_many_tasks() -> None:
    """Eight tasks without any difference, 200 items each."""
    rng, alone, together = np.random.default_rng(20), 0, 0
    known: dict[tuple[int, int], Comparison] = {}
    for tables in rng.multinomial(200, [0.15, 0.15, 0.7], size=(4000, 8))[:, :, :2].tolist():
        found = []
        for wins, losses in tables:
            if (wins, losses) not in known:
                base = np.repeat([0.0, 1.0, 1.0], [wins, losses, 200 - wins - losses])
                tuned = np.repeat([1.0, 0.0, 1.0], [wins, losses, 200 - wins - losses])
                known[wins, losses] = paired_comparison(base, tuned, binary=True, higher_is_better=True)
            found.append(known[wins, losses])
        alone += any(one.verdict in ("better", "worse") for one in found)
        together += any(one.verdict in ("better", "worse") for one in holm(found))
    assert alone / 4000 > 0.25
    assert 0.03 <= together / 4000 <= 0.055
