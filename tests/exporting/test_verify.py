"""Comparing a file with the trained model: the numbers by hand, the bounds, and what cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.exporting.verify import Observation, ProofRow, Verification, observe, verify
from finetune.runtimes import Generation
from finetune.runtimes.protocol import Progress

ROWS = (ProofRow("a", (1, 2), (1, 2, 3)), ProofRow("b", (2,), (2, 0)))


class Table:
    """A runtime that predicts the same distribution everywhere, and answers with given tokens."""

    def __init__(self, probabilities: Sequence[float], answers: Sequence[Sequence[int]], name: str = "table") -> None:
        self.name = name
        with np.errstate(divide="ignore"):
            self.scores = np.log(np.asarray(probabilities, dtype=np.float32))
        self.answers = answers
        self.asked: list[tuple[int, tuple[int, ...]]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Generation]:
        self.asked += [(max_new_tokens, tuple(prompt)) for prompt in prompts]
        return [Generation(tuple(answer), "", True) for answer in self.answers]

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        raise AssertionError("not asked for")

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        return np.tile(self.scores, (len(token_ids), 1))

    def size_bytes(self) -> int:
        return 0


TRAINED = Table([0.5, 0.25, 0.25], [[1, 2, 3], [4]])


def compared(shipped: Table, *, max_kl: float = 1e-3, min_top1: float = 0.99) -> Verification:
    trained = observe(TRAINED, ROWS, stop=[9])
    return verify(trained, shipped, path="exports/x", stop=[9], max_kl=max_kl, min_top1=min_top1, note="by hand")


def test_the_same_model_passes() -> None:
    found = compared(Table([0.5, 0.25, 0.25], [[1, 2, 3], [4]], name="shipped"))
    assert found.passed
    assert (found.kl, found.kl_max, found.log_probability_max_difference) == (0.0, 0.0, 0.0)
    assert (found.top1_agreement, found.greedy_match, found.first_divergence) == (1.0, 1.0, None)
    assert (found.rows, found.positions, found.prompts, found.runtime) == (2, 5, 2, "shipped")
    assert found.as_dict()["note"] == "by hand"
    assert found.sentence() == (
        "behaves like the trained model: KL 0.0e+00 nats (bound 0.001), same likeliest token at 100.00% of 5 positions "
        "(bound 99%), 100% of 2 greedy answers equal"
    )


def test_a_format_without_a_bound_for_tokens_is_not_said_to_behave_alike() -> None:
    found = compared(Table([0.4, 0.45, 0.15], [[1, 2, 3], [4]]), max_kl=0.2, min_top1=0.0)
    assert found.passed
    assert found.top1_agreement == 0.0
    assert found.sentence() == (
        f"keeps what files of its format keep: KL {found.kl:.1e} nats (bound 0.2), same likeliest token at 0.00% of 5 "
        "positions (no bound), 100% of 2 greedy answers equal"
    )


def test_the_numbers_are_those_of_the_definition() -> None:
    found = compared(Table([0.25, 0.5, 0.25], [[1, 2, 3], [4]]))
    divergence = 0.5 * math.log(0.5 / 0.25) + 0.25 * math.log(0.25 / 0.5)
    assert found.kl == pytest.approx(divergence, rel=1e-6)
    assert found.kl_max == pytest.approx(divergence, rel=1e-6)
    assert found.log_probability_max_difference == pytest.approx(math.log(2), rel=1e-6)
    assert found.top1_agreement == 0.0
    assert not found.passed
    assert found.sentence().startswith("does NOT behave like the trained model: KL 1.7e-01 nats (bound 0.001), ")


def test_either_bound_can_fail_a_file() -> None:
    near = [0.4999, 0.2502, 0.2499]
    assert compared(Table(near, [[], []])).passed
    assert not compared(Table(near, [[], []]), max_kl=1e-9).passed
    tipped = Table([0.34, 0.35, 0.31], [[], []])
    assert not compared(tipped, max_kl=1.0).passed
    assert compared(tipped, max_kl=1.0, min_top1=0.0).passed


@pytest.mark.parametrize(
    ("answers", "match", "first"),
    [
        ([[1, 2, 3], [4]], 1.0, None),
        ([[1, 2, 4], [4]], 0.5, 2),
        ([[1, 2], [5]], 0.0, 0),
        ([[1, 2, 3, 4], [4]], 0.5, 3),
        ([[], []], 0.0, 0),
    ],
)
def test_answers_are_compared_token_by_token(answers: list[list[int]], match: float, first: int | None) -> None:
    found = compared(Table([0.5, 0.25, 0.25], answers))
    assert (found.greedy_match, found.first_divergence) == (match, first)
    # Likelihoods decide: one near tie turns a whole answer
    assert found.passed


def test_tokens_that_nobody_predicts_do_not_count() -> None:
    trained = observe(Table([1 - 2e-6, 1e-6, 1e-6], [[], []]), ROWS, stop=[])
    found = verify(trained, Table([1 - 2e-6, 1e-9, 2e-6], [[], []]), path="", stop=[], max_kl=1e-4, min_top1=1.0)
    assert found.log_probability_max_difference < 1e-5
    assert found.passed


def test_a_vocabulary_padded_on_one_side_is_compared_where_both_have_it() -> None:
    found = compared(Table([0.5, 0.25, 0.25, 0.0], [[1, 2, 3], [4]]))
    assert found.kl == pytest.approx(0.0, abs=1e-6)
    assert found.passed


def test_both_get_the_same_prompts_and_length() -> None:
    trained, shipped = Table([1.0], [[], []]), Table([1.0], [[], []])
    observation = observe(trained, ROWS, stop=[9], new_tokens=7)
    verify(observation, shipped, path="", stop=[9], max_kl=1, min_top1=0)
    assert trained.asked == shipped.asked == [(7, (1, 2)), (7, (2,))]
    assert isinstance(observation, Observation)


def test_without_rows_nothing_is_proven() -> None:
    with pytest.raises(FinetuneError) as caught:
        observe(TRAINED, [], stop=[])
    assert str(caught.value) == "data: there are no rows to verify on\n    -> keep some rows for the test"


def test_nan_is_refused_with_its_name() -> None:
    broken = Table([float("nan"), 0.5, 0.5], [[], []], name="transformers")
    with pytest.raises(FinetuneError, match=r"^export: transformers predicts NaN\n"):
        compared(broken)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6).flatmap(
        lambda p: st.tuples(st.just(p), st.lists(st.floats(0.01, 1.0), min_size=len(p), max_size=len(p)))
    )
)
def test_the_divergence_is_never_negative_and_zero_only_for_the_same(pair: tuple[list[float], list[float]]) -> None:
    p, q = (np.array(side) / sum(side) for side in pair)
    trained = observe(Table(p.tolist(), [[], []]), ROWS, stop=[])
    found = verify(trained, Table(q.tolist(), [[], []]), path="", stop=[], max_kl=1.0, min_top1=0.0)
    assert found.kl >= 0
    assert found.kl == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-3, abs=1e-6)
