"""Closed forms for right-or-wrong scores, against scipy and against the defining equations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from finetune.evaluation.statistics.proportions import (
    constant_interval,
    mcnemar_mid_p,
    minimum_detectable_effect,
    tango_interval,
    wilson_interval,
)


@pytest.mark.parametrize(("wins", "losses"), [(8, 11), (0, 5), (4, 0), (30, 12), (1, 0), (200, 150)])
def test_mid_p_is_the_exact_p_less_the_probability_of_the_outcome(wins: int, losses: int) -> None:
    exact = stats.binomtest(wins, wins + losses).pvalue
    half_weight = stats.binom.pmf(wins, wins + losses, 0.5)
    assert mcnemar_mid_p(wins, losses) == pytest.approx(exact - half_weight)
    assert mcnemar_mid_p(wins, losses) == mcnemar_mid_p(losses, wins)


@pytest.mark.parametrize("count", [0, 1, 7, 50])
def test_mid_p_of_a_draw_is_one(count: int) -> None:
    assert mcnemar_mid_p(count, count) == 1


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.8, 0.95, 0.99]))
def test_tango_limits_are_where_the_score_statistic_is_z(wins: int, losses: int, ties: int, confidence: float) -> None:
    n = wins + losses + ties
    if n == 0:
        return
    low, high = tango_interval(wins, losses, n, confidence)
    z = stats.norm.ppf(0.5 + confidence / 2)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    for limit in (low, high):
        if abs(limit) < 1:
            assert abs(score_statistic(wins, losses, n, limit)) == pytest.approx(z, abs=1e-3)


def score_statistic(wins: int, losses: int, n: int, d: float) -> float:
    """Tango's statistic, with the probability of a loss found by maximising the likelihood numerically."""

    def surprise(q: float) -> float:
        ties = n - wins - losses
        return -float(special.xlogy(wins, q + d) + special.xlogy(losses, q) + special.xlogy(ties, 1 - 2 * q - d))

    q = optimize.minimize_scalar(surprise, bounds=(max(0.0, -d), (1 - d) / 2), options={"xatol": 1e-13}).x
    return (wins - losses - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


def test_published_example() -> None:
    """Fagerland, Lydersen & Laake (2013, 2014): airway reactivity of 21 children, 1 and 7 discordant."""
    low, high = tango_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)
    assert round(mcnemar_mid_p(1, 7), 3) == 0.039


def test_tango_leaves_out_zero_where_uncorrected_mcnemar_rejects() -> None:
    seen = set()
    for wins in range(25):
        for losses in range(wins):
            rejects = (wins - losses) ** 2 / (wins + losses) > stats.chi2.ppf(0.95, 1)
            assert (tango_interval(wins, losses, 60)[0] > 0) == rejects
            seen.add(rejects)
    assert seen == {True, False}


@settings(deadline=None)
@given(st.integers(1, 500), st.sampled_from([0.0, 1.0]))
def test_interval_of_a_constant_is_wilsons_at_the_ends(n: int, value: float) -> None:
    assert constant_interval(value, n, (0.0, 1.0), 0.95) == pytest.approx(
        wilson_interval(round(value * n), n), abs=1e-9
    )


def test_detectable_effect_never_needs_more_discordance_than_there_can_be() -> None:
    assert (
        minimum_detectable_effect(100, 0.0) == minimum_detectable_effect(100, 0.01) == pytest.approx(0.0785, abs=1e-4)
    )
    assert minimum_detectable_effect(5, 0.0) == 1
    assert minimum_detectable_effect(100, 1.0) == pytest.approx(0.2802, abs=1e-4)


def test_detectable_effect_refuses_nonsense() -> None:
    with pytest.raises(
        ValueError, match=r"^needs n >= 1 and a discordance between 0 and 1, not n = 0, discordance = 0\.2$"
    ):
        minimum_detectable_effect(0)
