"""Bits per byte and perplexity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetune.evaluation.scoring.text_measures import bits_per_byte, bits_per_byte_scorer, perplexity_scorer


def test_bits_per_byte() -> None:
    assert bits_per_byte(-8 * math.log(2), "four") == pytest.approx(2)
    assert bits_per_byte(-8 * math.log(2), "\u00e9") == pytest.approx(4)
    with pytest.raises(ValueError, match=r"^an empty text has no bits per byte$"):
        bits_per_byte(-1.0, "")
    scorer = bits_per_byte_scorer()
    assert scorer.needs_likelihood
    assert not scorer.higher_is_better
    assert scorer.bounds is None
    with pytest.raises(ValueError, match=r"^bits_per_byte judges no answers: take the runtime's log-likelihood to "):
        scorer.judge("a", "a")


def test_perplexity_is_of_all_tokens_together() -> None:
    """Two texts of 10 and 2 tokens with a likelihood of 1/2 and 1/8 a token: 10 + 3 * 2 bits over 12 tokens."""
    scorer = perplexity_scorer()
    assert scorer.measure is not None
    assert scorer.whole is not None
    scores = [scorer.measure(-10 * math.log(2), "long", 10), scorer.measure(-2 * math.log(8), "short", 2)]
    assert [score.value for score in scores] == pytest.approx([2, 8])
    metric = scorer.whole.statistic([score.detail for score in scores])
    assert metric(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 5.0]])) == pytest.approx([2 ** (16 / 12), 2, 8])
    assert (scorer.needs_likelihood, scorer.higher_is_better, scorer.bounds) == (True, False, None)


def test_perplexity_stays_finite() -> None:
    scorer = perplexity_scorer()
    assert scorer.measure is not None
    assert math.isfinite(scorer.measure(-1e6, "text", 1).value)
    with pytest.raises(ValueError, match=r"^a text without tokens has no perplexity$"):
        scorer.measure(-1.0, "", 0)


def test_bits_per_byte_is_measured_without_tokens() -> None:
    scorer = bits_per_byte_scorer()
    assert scorer.measure is not None
    assert scorer.measure(-8 * math.log(2), "four", 1).value == pytest.approx(2)
