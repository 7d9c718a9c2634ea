"""Holm against statsmodels, plans against the power they promise, margins case by case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from finetune.evaluation.statistics.multiple import adjusted, holm, non_inferiority, planned_mde, planned_sentence
from finetune.evaluation.statistics.paired import Comparison, minimum_detectable_effect, paired_comparison


def compared(wins: int, losses: int, both: int = 40) -> Comparison:
    base = [0.0] * wins + [1.0] * losses + [1.0] * both
    tuned = [1.0] * wins + [0.0] * losses + [1.0] * both
    return paired_comparison(base, tuned, binary=True, higher_is_better=True)


# ------------------------------------------------------------------------------------------------------------ Holm


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_are_statsmodels(p_values: list[float]) -> None:
    assert adjusted(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_adjusted_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([]) == []


def test_a_verdict_that_does_not_stand_among_many() -> None:
    clear, slight, nothing, few = compared(30, 2), compared(12, 4), compared(9, 9), compared(5, 0, both=0)
    assert [one.verdict for one in (clear, slight, nothing, few)] == [
        "better",
        "better",
        "no detectable difference",
        "too few items to tell",
    ]
    together = holm([slight, clear, few, nothing])
    assert [one.verdict for one in together] == [
        "no detectable difference",
        "better",
        "too few items to tell",
        "no detectable difference",
    ]
    assert {one.tasks for one in together} == {3}
    assert together[0].p_value == pytest.approx(2 * slight.p_value)
    assert together[2].as_json() == {"p_holm": None, "holm": {"tasks": 3, "verdict": "too few items to tell"}}


def test_one_task_alone_keeps_its_verdict() -> None:
    (found,) = holm([compared(14, 4)])
    assert found.as_json() == {
        "p_holm": compared(14, 4).p_value,
        "holm": {"tasks": 1, "verdict": "better"},
    }


# ----------------------------------------------------------------------------------------------------------- plans


def test_plans_for_right_or_wrong_scores_are_the_known_ones() -> None:
    assert planned_mde(200, binary=True) == minimum_detectable_effect(200) == pytest.approx(0.089, abs=5e-4)


def test_plans_for_groups_and_graded_scores() -> None:
    alone = planned_mde(200, binary=False)
    assert alone == pytest.approx(0.0893, abs=5e-4)
    assert planned_mde(200, binary=False, bounds=(0.0, 3.0)) == pytest.approx(3 * (alone or 0))
    grouped = planned_mde(200, binary=True, clusters=[number // 10 for number in range(200)])
    # Twenty groups of ten: 200 / (1 + 9 x 0.2) = 71.4 independent items, and Student's t with 19 degrees of freedom
    assert grouped == pytest.approx((2.0930 + 0.8610) * math.sqrt(0.2 / 71.43), abs=1e-3)
    assert planned_mde(200, binary=True, clusters=list(range(200))) == planned_mde(200, binary=True)


def test_no_plan_without_bounds_or_units() -> None:
    assert planned_mde(200, binary=False, bounds=None) is None
    assert planned_mde(9, binary=True) is None
    assert planned_mde(200, binary=True, clusters=[number % 9 for number in range(200)]) is None


@settings(deadline=None)
@given(st.integers(10, 3000), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_plans_are_possible_and_more_items_show_more(n: int, binary: bool, discordance: float, likeness: float) -> None:
    clusters = [number // 2 for number in range(2 * n)]
    found = planned_mde(2 * n, binary=binary, clusters=clusters, discordance=discordance, likeness=likeness)
    more = planned_mde(
        4 * n,
        binary=binary,
        clusters=[number // 2 for number in range(4 * n)],
        discordance=discordance,
        likeness=likeness,
    )
    assert found is not None
    assert more is not None
    assert 0 < more <= found <= 1


@pytest.mark.parametrize(
    ("n", "groups", "bounds", "sentence"),
    [
        (
            200,
            None,
            (0.0, 1.0),
            "held-out: 200 items show a difference of 0.09 or more with 80 % power (at 95 %, if the contestants differ "
            "on 20 % of them).",
        ),
        (
            200,
            20,
            (0.0, 1.0),
            "held-out: 200 items in 20 groups show a difference of 0.16 or more with 80 % power (at 95 %, if the "
            "contestants differ on 20 % of them).",
        ),
        (8, None, (0.0, 1.0), "held-out: 8 items will give no verdict, which needs at least 10 items."),
        (1, None, (0.0, 1.0), "held-out: 1 item will give no verdict, which needs at least 10 items."),
        (90, 9, (0.0, 1.0), "held-out: 90 items in 9 groups will give no verdict, which needs at least 10 groups."),
        (200, None, None, "held-out: what 200 items can show is known once scores are in, which have no bounds."),
    ],
)
def test_plans_in_words(n: int, groups: int | None, bounds: tuple[float, float] | None, sentence: str) -> None:
    clusters = None if groups is None else [number % groups for number in range(n)]
    assert planned_sentence("held-out", n, binary=True, bounds=bounds, clusters=clusters) == sentence


def test_a_plan_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match=r"^needs n >= 1 and shares between 0 and 1, not 0, 0\.2, 0\.2$"):
        planned_mde(0, binary=True)
    with pytest.raises(ValueError, match=r"^needs n >= 1 and shares between 0 and 1, not 9, 1\.5, 0\.2$"):
        planned_mde(9, binary=True, discordance=1.5)


# --------------------------------------------------------------------------------------------------------- margins


def unbounded(gain: float, spread: float = 0.1, n: int = 40) -> Comparison:
    base = np.linspace(2, 3, n)
    noise = spread * np.tile([-1.0, 1.0], n // 2)
    return paired_comparison(base, base + gain + noise, binary=False, higher_is_better=False, bounds=None)


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.0, "keeps"), (-0.5, "keeps"), (0.05, "keeps"), (0.1, "cannot tell"), (0.2, "forgets")]
)
def test_a_rise_in_loss_against_its_margin(gain: float, verdict: str) -> None:
    found = non_inferiority(unbounded(gain), margin=0.1, higher_is_better=False)
    assert found.verdict == verdict
    assert found.loss == pytest.approx(gain)
    assert found.interval[0] < gain < found.interval[1]
    assert found.margin == 0.1


def test_a_fall_in_score_is_a_loss() -> None:
    base, tuned = [1.0] * 60 + [0.0] * 40, [1.0] * 30 + [0.0] * 70
    fallen = paired_comparison(base, tuned, binary=True, higher_is_better=True)
    found = non_inferiority(fallen, margin=0.05, higher_is_better=True)
    assert (found.loss, found.verdict) == (pytest.approx(0.3), "forgets")
    assert found.interval == pytest.approx((-fallen.interval[1], -fallen.interval[0]))
    risen = paired_comparison(tuned, base, binary=True, higher_is_better=True)
    assert non_inferiority(risen, margin=0.05, higher_is_better=True).verdict == "keeps"


def test_a_margin_of_nothing_and_too_few_items() -> None:
    same = unbounded(0.0, spread=0.0)
    assert non_inferiority(same, margin=0.0, higher_is_better=False).verdict == "keeps"
    few = paired_comparison([1.0] * 8, [0.0] * 8, binary=True, higher_is_better=True)
    assert non_inferiority(few, margin=0.01, higher_is_better=True).verdict == "cannot tell"
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^a margin is a finite number from 0 on, not "):
            non_inferiority(same, margin=margin, higher_is_better=False)
