"""Several seeds of one recipe: the two-way analysis of variance by hand, and what seeds add to the doubt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from finetune.evaluation.statistics.seeds import seed_comparison


def graded(seeds: int, n: int, spread: float, gain: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    base = rng.normal(0.5, 0.1, n)
    of_item, of_seed = rng.normal(0, 0.1, n), rng.normal(0, spread, (seeds, 1)) if spread else np.zeros((seeds, 1))
    return base, base + gain + of_item + of_seed + rng.normal(0, 0.1, (seeds, n))


def test_variance_is_that_of_statsmodels_two_way_table() -> None:
    import pandas as pd

    base, tuned = graded(4, 40, 0.05)
    found = seed_comparison(base, tuned, binary=False, higher_is_better=True, bounds=None)
    cells = [
        {"seed": f"s{seed}", "item": f"i{item}", "gain": tuned[seed, item] - base[item]}
        for seed in range(4)
        for item in range(40)
    ]
    squares = anova_lm(ols("gain ~ seed + item", pd.DataFrame(cells)).fit())["mean_sq"]
    of_items = squares["item"] / 160
    of_seeds = (squares["seed"] - squares["Residual"]) / 160
    assert of_seeds > 0
    margin = math.sqrt(stats.t.ppf(0.975, 39) ** 2 * of_items + stats.t.ppf(0.975, 3) ** 2 * of_seeds)
    mean = float((tuned - base).mean())
    assert found.comparison.interval == pytest.approx((mean - margin, mean + margin))
    assert found.deviation == pytest.approx(math.sqrt(4 * of_seeds))
    assert found.differences == pytest.approx((tuned - base).mean(axis=1))
    assert found.comparison.difference == pytest.approx(mean)
    assert found.comparison.test == "t test over items and 4 seeds"
    assert found.comparison.verdict == "better"


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = seed_comparison(*graded(3, 200, 0.0), binary=False, higher_is_better=True, bounds=None)
    unlike = seed_comparison(*graded(3, 200, 0.3), binary=False, higher_is_better=True, bounds=None)
    assert alike.comparison.verdict == "better"
    assert unlike.comparison.verdict == "no detectable difference"
    assert unlike.deviation > 0.05 > alike.deviation
    assert unlike.comparison.minimum_detectable > 5 * alike.comparison.minimum_detectable


def test_equal_models_are_one_model() -> None:
    base, tuned = graded(3, 60, 0.0)
    found = seed_comparison(base, np.tile(tuned[0], (3, 1)), binary=False, higher_is_better=True, bounds=None)
    reference = stats.ttest_rel(tuned[0], base)
    assert found.deviation == 0
    assert found.comparison.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.comparison.p_value == pytest.approx(reference.pvalue, abs=1e-9)


def test_groups_of_items() -> None:
    base, tuned = graded(3, 60, 0.02)
    clusters = [number // 5 for number in range(60)]
    found = seed_comparison(base, tuned, binary=False, higher_is_better=True, bounds=None, clusters=clusters)
    assert (found.comparison.n, found.comparison.groups) == (60, 12)
    assert found.comparison.notes == (
        "with only 12 groups the interval rests on Student's t with 11 degrees of freedom",
    )


def test_nothing_differs() -> None:
    scores = np.tile([0.0, 1.0], 20)
    found = seed_comparison(scores, np.tile(scores, (3, 1)), binary=True, higher_is_better=True)
    assert (found.comparison.difference, found.comparison.p_value) == (0.0, 1.0)
    assert found.comparison.interval[0] < 0 < found.comparison.interval[1]
    assert found.comparison.ties == 40


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 6), st.integers(10, 40), st.integers(0, 1000), st.sampled_from([0.8, 0.9, 0.95]), st.booleans())
def test_verdict_interval_and_p_value_agree(seeds: int, n: int, seed: int, confidence: float, higher: bool) -> None:
    rng = np.random.default_rng(seed)
    base = (rng.random(n) < 0.5).astype(float)
    tuned = (rng.random((seeds, n)) < rng.uniform(0.3, 0.9)).astype(float)
    found = seed_comparison(base, tuned, binary=True, higher_is_better=higher, confidence=confidence).comparison
    outside = not found.interval[0] <= 0 <= found.interval[1]
    assert outside == (found.p_value <= 1 - confidence)
    assert outside == (found.verdict in ("better", "worse"))
    assert -1 <= found.interval[0] <= found.difference <= found.interval[1] <= 1
    assert found.wins + found.losses + found.ties == n


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 12)), "needs 3 seeds with scores of the same items, not (2, 12) to (12,)"),
        (np.zeros((3, 11)), "needs 3 seeds with scores of the same items, not (3, 11) to (12,)"),
        (np.zeros(12), "needs 3 seeds with scores of the same items, not (12,) to (12,)"),
        (np.full((3, 12), 0.5), "a binary score is 0 or 1"),
    ],
)
def test_refused_scores(rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        seed_comparison(np.zeros(12), rows, binary=True, higher_is_better=True)
    assert str(caught.value) == message
