"""KL divergence by hand, on whatever distributions, with impossible tokens and with padded vocabularies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finetune.runtimes.divergence import kl_divergence


def logs(*rows: tuple[float, ...]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, dtype=np.float32))


@given(st.lists(st.tuples(*[st.floats(0.01, 1.0)] * 6), min_size=1, max_size=5))
def test_it_is_scipys_and_never_negative(rows: list[tuple[float, ...]]) -> None:
    numbers = np.array(rows)
    p = numbers[:, :3] / numbers[:, :3].sum(axis=1, keepdims=True)
    q = numbers[:, 3:] / numbers[:, 3:].sum(axis=1, keepdims=True)
    found = kl_divergence(np.log(p).astype(np.float32), np.log(q).astype(np.float32))
    assert found.shape == (len(rows),)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, [stats.entropy(a, b) for a, b in zip(p, q, strict=True)], atol=1e-5)


def test_what_p_holds_impossible_adds_nothing() -> None:
    found = kl_divergence(logs((0.5, 0.5, 0.0)), logs((0.5, 0.5, 0.0)))
    np.testing.assert_allclose(found, [0.0], atol=1e-7)
    np.testing.assert_allclose(kl_divergence(logs((1.0, 0.0)), logs((0.5, 0.5))), [np.log(2)], atol=1e-6)


def test_a_padded_vocabulary_is_compared_as_far_as_both_reach() -> None:
    np.testing.assert_allclose(kl_divergence(logs((0.5, 0.5)), logs((0.5, 0.5, 1e-9))), [0.0], atol=1e-6)
