"""Slices: every item in one of each column, a planted weakness found, chance findings not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.label_scorers import balanced_scorer, label_scorer, macro_f1_scorer
from finetune.evaluation.scoring.scorers import exact_scorer
from finetune.evaluation.statistics.paired import paired_comparison
from finetune.evaluation.statistics.pairing import Scored
from finetune.evaluation.statistics.slices import Slice, slices


def cut(columns: list[str], metadata: list[dict[str, Any]], base: Any, tuned: Any, **more: Any) -> list[Slice]:
    details: list[dict[str, Any]] = [{} for _ in metadata]
    settings = {"confidence": 0.95, "clusters": None, "seed": 0, **more}
    return slices(columns, metadata, exact_scorer(), Scored(base, details), Scored(tuned, details), **settings)


def planted() -> tuple[list[dict[str, Any]], list[float], list[float]]:
    """Tuned is better on 120 items of `billing`, and worse on 60 of `legal`."""
    metadata = [{"department": "billing" if place < 120 else "legal"} for place in range(180)]
    base = [float(place % 4 == 0) for place in range(120)] + [1.0] * 55 + [0.0] * 5
    tuned = [float(place % 4 != 1) for place in range(120)] + [1.0] * 30 + [0.0] * 30
    return metadata, base, tuned


def test_a_planted_weakness_is_found() -> None:
    metadata, base, tuned = planted()
    billing, legal = cut(["department"], metadata, base, tuned)
    assert (billing.column, billing.value, billing.n, billing.verdict) == ("department", "billing", 120, "better")
    assert (legal.value, legal.n, legal.verdict) == ("legal", 60, "worse")
    alone = paired_comparison(base[120:], tuned[120:], binary=True, higher_is_better=True)
    assert (legal.difference, legal.interval, legal.p_value) == (alone.difference, alone.interval, alone.p_value)
    assert legal.p_holm == pytest.approx(max(alone.p_value, 2 * billing.p_value))


def test_what_chance_shows_in_one_of_many_slices_is_no_verdict() -> None:
    metadata = [{"source": f"s{place // 40}"} for place in range(400)]
    base, tuned = [0.0] * 400, [0.0] * 400
    tuned[:6] = [1.0] * 6
    found = cut(["source"], metadata, base, tuned)
    assert len(found) == 10
    assert found[0].p_value < 0.05 < (found[0].p_holm or 0)
    assert {one.verdict for one in found} == {"no detectable difference"}


def test_few_items_give_no_verdict() -> None:
    metadata = [{"part": "small" if place < 5 else "large"} for place in range(60)]
    large, small = cut(["part"], metadata, [0.0] * 60, [1.0] * 60)
    assert (small.value, small.n, small.verdict, small.p_holm) == ("small", 5, "too few items to tell", None)
    assert (large.value, large.verdict, large.p_holm) == ("large", "better", large.p_value)


def test_json() -> None:
    metadata, base, tuned = planted()
    found = [one.as_json() for one in cut(["department"], metadata, base, tuned)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {"column", "value", "n", "base", "tuned", "difference", "interval", "verdict"} <= set(found[0])


# ---------------------------------------------------------------------------------------------------------- values


def names(values: list[Any]) -> dict[str, int]:
    metadata = [{"x": value} if value is not None else {} for value in values]
    found = cut(["x"], metadata, [0.0] * len(values), [1.0] * len(values))
    return {one.value: one.n for one in found}


def test_words_come_by_their_number_and_missing_ones_last() -> None:
    assert list(names(["b", "a", "a", None, "c", "c", None, "c"]).items()) == [
        ("c", 3),
        ("a", 2),
        ("b", 1),
        ("(none)", 2),
    ]


def test_numbers_come_in_their_order() -> None:
    assert list(names([10, 9, 9, 2.5, None]).items()) == [("2.5", 1), ("9", 2), ("10", 1), ("(none)", 1)]


def test_many_numbers_are_cut_in_quarters() -> None:
    assert list(names(list(range(100))).items()) == [
        ("0 to 24", 25),
        ("25 to 49", 25),
        ("50 to 74", 25),
        ("75 to 99", 25),
    ]
    assert list(names([0] * 80 + list(range(1, 21))).items()) == [("0", 80), ("1 to 20", 20)]


def test_rare_words_share_a_slice() -> None:
    values = [f"w{place}" for place in range(11)] * 3 + [f"rare {place}" for place in range(5)]
    found = names(values)
    assert found["(other: 5 values)"] == 5
    assert len(found) == 12


def test_values_of_other_kinds_are_written_out() -> None:
    assert names([True, True, False, ["a", 1], {"k": "ä"}, 10**400]) == {
        "true": 2,
        '["a", 1]': 1,
        "false": 1,
        '{"k": "ä"}': 1,
        str(10**400): 1,
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=3), st.integers(-50, 50), st.floats(allow_nan=True), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_every_item_is_in_one_slice(values: list[Any]) -> None:
    found = names([*values, 1])
    assert sum(found.values()) == len(values) + 1
    assert len(found) <= 13


# --------------------------------------------------------------------------------------------------------- scorers


def test_whole_set_metrics_are_those_of_the_slice() -> None:
    rng = np.random.default_rng(1)
    gold, said = rng.choice(["yes", "no"], 80).tolist(), rng.choice(["yes", "no"], (2, 80)).tolist()
    labelled = label_scorer(["yes", "no"])
    scorer = macro_f1_scorer(labelled, gold)
    scored = []
    for answers in said:
        judged = [scorer.judge(answer, right) for answer, right in zip(answers, gold, strict=True)]
        scored.append(Scored([one.value for one in judged], [one.detail for one in judged]))
    metadata = [{"half": "a" if place < 40 else "b"} for place in range(80)]
    first, _ = slices(["half"], metadata, scorer, *scored, confidence=0.95, clusters=None, seed=0)
    own = macro_f1_scorer(labelled, gold[:40])
    assert own.whole is not None
    assert first.base == pytest.approx(float(own.whole.statistic(scored[0].details[:40])(np.ones((1, 40)))[0]))


def test_scores_weighted_by_class_are_shares_right_in_a_slice() -> None:
    gold = ["yes"] * 60 + ["no"] * 20
    scorer = balanced_scorer(label_scorer(["yes", "no"]), gold, [{} for _ in gold])
    answers = {"base": ["yes"] * 80, "tuned": gold}
    scored = []
    for texts in answers.values():
        judged = [scorer.score(answer, right, {}) for answer, right in zip(texts, gold, strict=True)]
        scored.append(Scored([one.value for one in judged], [one.detail for one in judged]))
    metadata = [{"class": name} for name in gold]
    yes, no = slices(["class"], metadata, scorer, *scored, confidence=0.95, clusters=None, seed=0)
    assert (yes.base, yes.tuned, no.base, no.tuned) == (1.0, 1.0, 0.0, 1.0)


def test_groups_stay_together() -> None:
    metadata, base, tuned = planted()
    billing, legal = cut(["department"], metadata, base, tuned, clusters=[place // 4 for place in range(180)])
    assert (billing.groups, legal.groups) == (30, 15)


def test_unknown_columns() -> None:
    metadata, base, tuned = planted()
    with pytest.raises(FinetuneError) as caught:
        cut(["departement", "department", "zzz"], metadata, base, tuned)
    assert str(caught.value) == (
        "2 problems:\n"
        "  1. evaluate.slices: no test item has a column 'departement'\n    -> did you mean 'department'?\n"
        "  2. evaluate.slices: no test item has a column 'zzz'\n    -> the columns are department"
    )
    with pytest.raises(FinetuneError, match="leave it out"):
        cut(["x"], [{} for _ in range(3)], [0.0] * 3, [1.0] * 3)
