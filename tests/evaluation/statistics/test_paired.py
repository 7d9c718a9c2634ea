"""Paired comparison: agreement with scipy and statsmodels on fixed tables, and edge cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar

from finetune.evaluation.scoring.label_scorers import label_scorer, macro_f1_scorer
from finetune.evaluation.statistics.inference import Statistic, degrees_of_freedom
from finetune.evaluation.statistics.paired import (
    mean_interval,
    minimum_detectable_effect,
    paired_comparison,
    paired_statistic,
)

Floats = NDArray[np.float64]


def table(wins: int, losses: int, both: int = 0, neither: int = 0) -> tuple[list[float], list[float]]:
    base = [0.0] * wins + [1.0] * losses + [1.0] * both + [0.0] * neither
    tuned = [1.0] * wins + [0.0] * losses + [1.0] * both + [0.0] * neither
    return base, tuned


def graded_pair(n: int, seed: int = 0, gain: float = 0.1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    base = rng.beta(2, 2, n)
    return base, np.clip(base + rng.normal(gain, 0.2, n), 0, 1)


# ------------------------------------------------------------------------------------------------ right or wrong


def test_binary_counts_and_scores() -> None:
    found = paired_comparison(*table(8, 11, 42, 139), binary=True, higher_is_better=True)
    assert (found.n, found.groups) == (200, None)
    assert (found.wins, found.losses, found.ties) == (8, 11, 181)
    assert (found.base, found.tuned) == (0.265, 0.25)
    assert found.difference == pytest.approx(-0.015)
    assert found.test == "McNemar mid-p test"
    assert found.verdict == "no detectable difference"
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.notes == ()


def test_binary_intervals_are_wilson() -> None:
    found = paired_comparison(*table(30, 5, 40, 25), binary=True, higher_is_better=True, confidence=0.9)
    for successes, interval in ((45, found.base_interval), (70, found.tuned_interval)):
        reference = stats.binomtest(successes, 100).proportion_ci(0.9, method="wilson")
        assert interval == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_lower_is_better_turns_the_verdict_but_not_the_difference() -> None:
    base, tuned = table(30, 2, 10, 58)
    high = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    low = paired_comparison(base, tuned, binary=True, higher_is_better=False)
    assert high.verdict == "better"
    assert low.verdict == "worse"
    assert high.difference == low.difference == pytest.approx(0.28)
    assert (high.wins, high.losses) == (30, 2)
    assert (low.wins, low.losses) == (2, 30)


def test_nothing_differs() -> None:
    found = paired_comparison(*table(0, 0, 60, 40), binary=True, higher_is_better=True)
    assert found.difference == 0
    assert found.p_value == 1
    assert found.verdict == "no detectable difference"
    # Agreement on 100 items bounds the difference, it does not prove it to be nothing.
    assert found.interval == pytest.approx((-0.03699, 0.03699), abs=1e-4)
    assert found.minimum_detectable == pytest.approx(0.0785, abs=1e-4)


def test_everything_differs() -> None:
    found = paired_comparison(*table(50, 0), binary=True, higher_is_better=True)
    assert found.verdict == "better"
    assert found.interval[1] == 1
    assert 0.8 < found.interval[0] < 1
    assert found.base_interval[0] == 0
    assert found.tuned_interval[1] == 1


@pytest.mark.parametrize("n", [1, 9])
def test_fewer_than_ten_items_give_no_verdict(n: int) -> None:
    found = paired_comparison(*table(n, 0), binary=True, higher_is_better=True)
    assert found.verdict == "too few items to tell"
    assert found.notes == (f"at least 10 items are needed for a verdict, there are {n}",)
    assert math.isfinite(found.p_value)


def test_four_wins_are_not_enough_and_the_interval_says_so_too() -> None:
    found = paired_comparison(*table(4, 0, 20, 26), binary=True, higher_is_better=True)
    assert found.p_value == pytest.approx(0.0625)
    assert found.interval[0] == 0
    assert found.verdict == "no detectable difference"
    assert paired_comparison(*table(5, 0, 20, 25), binary=True, higher_is_better=True).verdict == "better"


@settings(deadline=None)
@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(10, 60), st.sampled_from([0.8, 0.9, 0.95, 0.99]), st.booleans()
)
def test_verdict_interval_and_p_value_agree(
    wins: int, losses: int, others: int, confidence: float, higher: bool
) -> None:
    found = paired_comparison(*table(wins, losses, others), binary=True, higher_is_better=higher, confidence=confidence)
    outside = not found.interval[0] <= 0 <= found.interval[1]
    assert outside == (found.p_value <= 1 - confidence)
    assert outside == (found.verdict in ("better", "worse"))
    assert found.interval[0] <= found.difference <= found.interval[1]
    assert found.wins + found.losses + found.ties == found.n


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_swapping_the_contestants_mirrors_the_result(wins: int, losses: int, both: int) -> None:
    base, tuned = table(wins, losses, both, 10)
    there = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    back = paired_comparison(tuned, base, binary=True, higher_is_better=True)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=1e-9)
    assert there.p_value == back.p_value


# ------------------------------------------------------------------------------------------------- graded scores


def test_graded_interval_agrees_with_scipy_bootstrap() -> None:
    base, tuned = graded_pair(200)
    found = paired_comparison(base, tuned, binary=False, higher_is_better=True)
    assert found.test == "paired bootstrap"
    for interval, values in (
        (found.interval, tuned - base),
        (found.base_interval, base),
        (found.tuned_interval, tuned),
    ):
        reference = stats.bootstrap(
            (values,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)
        ).confidence_interval
        width = reference.high - reference.low
        assert interval == pytest.approx((reference.low, reference.high), abs=0.05 * width)


@pytest.mark.parametrize("gain", [0.01, 0.03, 0.05])
def test_graded_p_value_agrees_with_scipy_permutation_test(gain: float) -> None:
    base, tuned = graded_pair(100, seed=3, gain=gain)
    found = paired_comparison(base, tuned, binary=False, higher_is_better=True)
    reference = stats.permutation_test(
        (tuned, base),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert found.p_value == pytest.approx(reference, abs=0.02)


def test_few_graded_items_take_students_t() -> None:
    base, tuned = graded_pair(20)
    found = paired_comparison(base, tuned, binary=False, higher_is_better=True)
    reference = stats.ttest_rel(tuned, base)
    assert found.test == "paired t test"
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_graded_scores_that_are_all_0_or_1_take_mcnemar() -> None:
    found = paired_comparison(*table(12, 3, 40, 5), binary=False, higher_is_better=True)
    assert found == paired_comparison(*table(12, 3, 40, 5), binary=True, higher_is_better=True)
    assert found.test == "McNemar mid-p test"


def test_the_seed_decides_the_bootstrap() -> None:
    base, tuned = graded_pair(60)
    first, again, other = (
        paired_comparison(base, tuned, binary=False, higher_is_better=True, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again
    assert first.interval != other.interval
    assert first.interval == pytest.approx(other.interval, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(30, 60), st.integers(0, 10_000), st.floats(-0.1, 0.1), st.sampled_from([0.8, 0.9, 0.95]), st.booleans()
)
def test_graded_verdict_interval_and_p_value_agree(
    n: int, seed: int, gain: float, confidence: float, grouped: bool
) -> None:
    base, tuned = graded_pair(n, seed=seed, gain=gain)
    clusters = [number // 3 for number in range(n)] if grouped else None
    found = paired_comparison(
        base,
        tuned,
        binary=False,
        higher_is_better=True,
        confidence=confidence,
        clusters=clusters,
        resamples=500,
    )
    outside = not found.interval[0] <= 0 <= found.interval[1]
    assert outside == (found.p_value <= 1 - confidence)
    assert outside == (found.verdict in ("better", "worse"))


def test_the_same_graded_difference_everywhere_still_leaves_doubt() -> None:
    found = paired_comparison([0.25] * 40, [0.75] * 40, binary=False, higher_is_better=True)
    assert found.verdict == "better"
    assert found.interval == pytest.approx((0.3686, 0.5438), abs=1e-4)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(math.sqrt(40 * 0.5)))
    assert found.tuned_interval == pytest.approx((0.6843, 0.7719), abs=1e-4)


@settings(deadline=None)
@given(st.integers(10, 60), st.floats(-1, 1))
def test_constant_differences_agree_with_their_p_value(n: int, difference: float) -> None:
    base, tuned = (0.0, difference) if difference > 0 else (-difference, 0.0)
    found = paired_comparison([base] * n, [tuned] * n, binary=False, higher_is_better=True)
    assert (found.p_value <= 0.05) == (found.verdict in ("better", "worse"))
    assert found.interval[0] <= found.difference + 1e-12
    assert found.difference <= found.interval[1] + 1e-12


def test_unbounded_scores() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(3.0, 0.5, 100)
    found = paired_comparison(
        base, base - rng.normal(0.2, 0.05, 100), binary=False, higher_is_better=False, bounds=None
    )
    assert found.verdict == "better"
    assert found.wins == 100
    assert found.difference == pytest.approx(-0.2, abs=0.02)
    same = paired_comparison(base, base, binary=False, higher_is_better=False, bounds=None)
    assert (same.interval, same.p_value, same.verdict) == ((0.0, 0.0), 1.0, "no detectable difference")


# -------------------------------------------------------------------------------------------------------- groups


def test_groups_widen_the_interval_when_their_items_agree() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 10)
    base = np.clip(rng.normal(0.5, 0.1, 400), 0, 1)
    tuned = np.clip(base + rng.normal(0, 0.2, 40)[clusters], 0, 1)
    alone = paired_comparison(base, tuned, binary=False, higher_is_better=True)
    grouped = paired_comparison(base, tuned, binary=False, higher_is_better=True, clusters=clusters.tolist())
    assert (grouped.n, grouped.groups, grouped.test) == (400, 40, "paired bootstrap by group")
    assert grouped.difference == alone.difference
    assert np.diff(grouped.interval) > 2 * np.diff(alone.interval)
    assert grouped.minimum_detectable > 2 * alone.minimum_detectable


def test_equal_groups_are_a_t_test_of_their_means() -> None:
    rng = np.random.default_rng(0)
    base, tuned = rng.random((12, 5)), rng.random((12, 5))
    clusters = np.repeat(np.arange(12), 5).tolist()
    found = paired_comparison(base.ravel(), tuned.ravel(), binary=False, higher_is_better=True, clusters=clusters)
    reference = stats.ttest_rel(tuned.mean(axis=1), base.mean(axis=1))
    assert found.test == "paired t test by group"
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.notes == ("with only 12 groups the interval rests on Student's t with 11 degrees of freedom",)


def test_groups_of_one_are_no_groups() -> None:
    base, tuned = table(12, 3, 40, 5)
    names = [f"document {number}" for number in range(60)]
    alone = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    assert paired_comparison(base, tuned, binary=True, higher_is_better=True, clusters=names) == alone


def test_few_groups_give_no_verdict_however_many_items() -> None:
    base, tuned = graded_pair(300)
    clusters = [number % 9 for number in range(300)]
    found = paired_comparison(base, tuned, binary=False, higher_is_better=True, clusters=clusters)
    assert found.verdict == "too few items to tell"
    assert found.notes == ("at least 10 groups are needed for a verdict, there are 9",)


# ------------------------------------------------------------------------------------------- the rest, and errors


@pytest.mark.parametrize(("n", "points"), [(50, 17.7), (100, 12.5), (200, 8.9), (500, 5.6), (1000, 4.0), (2000, 2.8)])
def test_minimum_detectable_effect(n: int, points: float) -> None:
    assert 100 * minimum_detectable_effect(n) == pytest.approx(points, abs=0.06)


def test_minimum_detectable_effect_has_the_power_it_says() -> None:
    effect, rng = minimum_detectable_effect(200, 0.3), np.random.default_rng(0)
    outcomes = rng.choice([1, -1, 0], p=[0.15 + effect / 2, 0.15 - effect / 2, 0.7], size=(400, 200))
    verdicts = [
        paired_comparison(
            *table(int((row == 1).sum()), int((row == -1).sum()), int((row == 0).sum())),
            binary=True,
            higher_is_better=True,
        ).verdict
        for row in outcomes
    ]
    assert verdicts.count("better") / 400 == pytest.approx(0.8, abs=0.06)


def test_mean_interval_of_binary_and_graded_scores() -> None:
    wilson = stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    found = mean_interval([1.0] * 30 + [0.0] * 10, binary=True)
    assert (found.mean, found.n) == (0.75, 40)
    assert found.interval == pytest.approx((wilson.low, wilson.high))
    values, _ = graded_pair(20)
    mean, error = values.mean(), stats.sem(values)
    assert mean_interval(values, binary=False).interval == pytest.approx(stats.t(19, mean, error).interval(0.95))


@pytest.mark.parametrize(
    ("base", "tuned", "binary", "message"),
    [
        ([], [], True, "needs a list of at least one score, not shape (0,)"),
        ([1.0], [1.0, 0.0], True, "1 base scores but 2 tuned scores"),
        ([1.0, math.nan], [1.0, 0.0], False, "score 1 is not a finite number"),
        ([0.5, 0.0], [1.0, 0.0], True, "a binary score is 0 or 1"),
        ([0.5, 0.0], [1.5, 0.0], False, "scores from 0.0 to 1.5 leave the bounds (0.0, 1.0)"),
    ],
)
def test_refused_scores(base: list[float], tuned: list[float], binary: bool, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        paired_comparison(base, tuned, binary=binary, higher_is_better=True)
    assert str(caught.value) == message


def test_refused_groups() -> None:
    with pytest.raises(ValueError, match=r"^2 scores but 1 group names$"):
        paired_comparison([1.0, 0.0], [1.0, 0.0], binary=True, higher_is_better=True, clusters=["a"])


# --------------------------------------------------------------------------------- statsmodels, and unlike groups


@pytest.mark.parametrize(("wins", "losses"), [(8, 11), (30, 12), (5, 0), (60, 40)])
def test_mcnemar_agrees_with_statsmodels(wins: int, losses: int) -> None:
    base, tuned = table(wins, losses, 20, 13)
    both = np.array([[20, losses], [wins, 13]])
    exact = mcnemar(both, exact=True).pvalue
    found = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    assert found.p_value == pytest.approx(exact - stats.binom.pmf(wins, wins + losses, 0.5))
    if wins + losses > 15:
        assert found.p_value == pytest.approx(mcnemar(both, exact=False, correction=False).pvalue, abs=0.02)


def test_grouped_interval_agrees_with_statsmodels_cluster_robust_error() -> None:
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(25), 6)
    gains = rng.normal(0.05, 0.2, 25)[clusters] + rng.normal(0, 0.2, 150)
    base = rng.normal(0, 1, 150)
    found = paired_comparison(
        base, base + gains, binary=False, higher_is_better=True, clusters=clusters.tolist(), bounds=None
    )
    fitted = OLS(gains, np.ones(150)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    # Statsmodels corrects by G / (G - 1) x (n - 1) / (n - 1), and uses G - 1 degrees of freedom here too
    assert found.interval == pytest.approx(tuple(fitted.conf_int()[0]), rel=1e-6)
    assert found.p_value == pytest.approx(float(fitted.pvalues[0]), rel=1e-6)


def test_equal_groups_have_one_degree_of_freedom_less_than_there_are() -> None:
    assert degrees_of_freedom(np.full(12, 5.0)) == pytest.approx(11)
    assert degrees_of_freedom(np.ones(500)) == pytest.approx(499)
    assert degrees_of_freedom(np.ones(1)) == 0


def test_degrees_of_freedom_are_those_of_the_quadratic_form() -> None:
    sizes = np.array([9.0, 4.0, 4.0, 1.0, 1.0, 2.0, 7.0])
    n = sizes.sum()
    residual_maker = np.eye(7) - np.outer(sizes, np.ones(7)) / n
    form = residual_maker.T @ np.diag(1 / (1 - sizes / n)) @ residual_maker @ np.diag(sizes)
    assert degrees_of_freedom(sizes) == pytest.approx(np.trace(form) ** 2 / np.trace(form @ form))
    assert 3 < degrees_of_freedom(sizes) < 6


def test_one_large_group_among_many_small_ones_takes_students_t() -> None:
    rng = np.random.default_rng(2)
    clusters = [0] * 200 + list(range(1, 41))
    base, tuned = rng.random(240), rng.random(240)
    found = paired_comparison(base, tuned, binary=False, higher_is_better=True, clusters=clusters)
    assert (found.groups, found.test) == (41, "paired t test by group")
    assert found.notes == (
        "with 41 groups of unlike size the interval rests on Student's t with 1.43 degrees of freedom",
    )
    assert found.verdict == "no detectable difference"


# ------------------------------------------------------------------------------------------ metrics of a whole set


def macro_f1(gold: list[int], given: list[int]) -> tuple[Statistic, list[float]]:
    names = [f"class {number}" for number in range(max(*gold, *given) + 1)]
    scorer = macro_f1_scorer(label_scorer(names), [names[index] for index in gold])
    scores = [scorer.judge(names[said], names[index]) for said, index in zip(given, gold, strict=True)]
    assert scorer.whole is not None
    return scorer.whole.statistic([score.detail for score in scores]), [score.value for score in scores]


def classified(n: int, seed: int, accuracy: float) -> tuple[list[int], list[int], list[int]]:
    rng = np.random.default_rng(seed)
    gold = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    base, tuned = (np.where(rng.random(n) < share, gold, rng.choice(3, n)) for share in (0.5, accuracy))
    return gold.tolist(), base.tolist(), tuned.tolist()


def by_hand(gold: Sequence[int], given: Sequence[int]) -> float:
    """Mean over classes of the harmonic mean of precision and recall."""
    found = []
    for name in set(gold):
        hits = sum(wanted == said == name for wanted, said in zip(gold, given, strict=True))
        found.append(2 * hits / (list(gold).count(name) + list(given).count(name)))
    return sum(found) / len(found)


def test_whole_set_values_are_those_by_hand() -> None:
    gold, base, tuned = classified(120, 1, 0.8)
    (of_base, right_base), (of_tuned, right_tuned) = macro_f1(gold, base), macro_f1(gold, tuned)
    found = paired_statistic(of_base, of_tuned, right_base, right_tuned, higher_is_better=True)
    assert found.base == pytest.approx(by_hand(gold, base))
    assert found.tuned == pytest.approx(by_hand(gold, tuned))
    assert found.difference == pytest.approx(found.tuned - found.base)
    assert (found.test, found.verdict, found.n) == ("paired bootstrap", "better", 120)
    assert found.wins == sum(new > old for old, new in zip(right_base, right_tuned, strict=True))
    assert found.wins + found.losses + found.ties == 120
    for mean, interval in ((found.base, found.base_interval), (found.tuned, found.tuned_interval)):
        assert interval[0] < mean < interval[1]


def test_whole_set_interval_agrees_with_scipy_bootstrap() -> None:
    gold, base, tuned = classified(200, 3, 0.6)
    (of_base, right_base), (of_tuned, right_tuned) = macro_f1(gold, base), macro_f1(gold, tuned)
    found = paired_statistic(of_base, of_tuned, right_base, right_tuned, higher_is_better=True)
    columns = tuple(np.array(column) for column in (gold, base, tuned))

    def difference(gold: NDArray[np.int_], base: NDArray[np.int_], tuned: NDArray[np.int_]) -> float:
        return by_hand(gold.tolist(), tuned.tolist()) - by_hand(gold.tolist(), base.tolist())

    reference = stats.bootstrap(
        columns,
        difference,
        paired=True,
        vectorized=False,
        n_resamples=1500,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.interval == pytest.approx((reference.low, reference.high), abs=0.08 * (reference.high - reference.low))


def test_a_mean_as_a_whole_set_metric_is_the_mean() -> None:
    base, tuned = graded_pair(80)

    def mean_of(scores: Floats) -> Statistic:
        return lambda weights: weights @ scores / weights.sum(axis=1)

    clusters = [number // 2 for number in range(80)]
    found = paired_statistic(mean_of(base), mean_of(tuned), base, tuned, higher_is_better=True, clusters=clusters)
    plain = paired_comparison(base, tuned, binary=False, higher_is_better=True, clusters=clusters)
    assert found.interval == pytest.approx(plain.interval, abs=0.002)
    assert (found.test, found.groups, found.wins) == (plain.test, plain.groups, plain.wins)
    few = paired_statistic(
        mean_of(base[:20]), mean_of(tuned[:20]), base[:20], tuned[:20], higher_is_better=True, bounds=None
    )
    reference = stats.ttest_rel(tuned[:20], base[:20])
    assert few.test == "paired jackknife"
    assert few.p_value == pytest.approx(reference.pvalue)
    assert few.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_equal_answers_leave_doubt_about_a_whole_set_metric_too() -> None:
    gold, base, _ = classified(100, 5, 0.5)
    of_base, right = macro_f1(gold, base)
    found = paired_statistic(of_base, of_base, right, right, higher_is_better=True)
    assert (found.difference, found.p_value, found.verdict) == (0.0, 1.0, "no detectable difference")
    assert found.interval == pytest.approx((-0.03699, 0.03699), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 60), st.integers(0, 10_000), st.floats(0.3, 0.9), st.booleans())
def test_whole_set_verdict_interval_and_p_value_agree(n: int, seed: int, accuracy: float, grouped: bool) -> None:
    gold, base, tuned = classified(n, seed, accuracy)
    (of_base, right_base), (of_tuned, right_tuned) = macro_f1(gold, base), macro_f1(gold, tuned)
    found = paired_statistic(
        of_base,
        of_tuned,
        right_base,
        right_tuned,
        higher_is_better=True,
        clusters=[number // 3 for number in range(n)] if grouped else None,
        resamples=400,
    )
    outside = not found.interval[0] <= 0 <= found.interval[1]
    assert outside == (found.p_value <= 0.05)
    assert (found.verdict in ("better", "worse")) == (outside and found.verdict != "too few items to tell")
