"""Scorers that measure the text itself instead of an answer: `bits_per_byte` and `perplexity`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.evaluation.scoring.scorer import Floats, Score, Scorer, WholeSet

BITS_PER_BYTE = "bits per byte"


def bits_per_byte_scorer() -> Scorer:
    """How many bits the model needs for each UTF-8 byte of the text; lower is better. See `bits_per_byte`."""

    def measure(log_likelihood: float, text: str, tokens: int) -> Score:
        return Score(bits_per_byte(log_likelihood, text))

    return Scorer(
        "bits_per_byte",
        False,
        False,
        BITS_PER_BYTE,
        _no_answers("bits_per_byte"),
        "bits per byte of the text",
        needs_likelihood=True,
        highest=math.inf,
        measure=measure,
    )


def bits_per_byte(log_likelihood: float, text: str) -> float:
    """Bits per UTF-8 byte, comparable between tokenizers: -log2 p(text) / bytes.

    Args:
        log_likelihood: Natural logarithm of the probability of `text`, in nats.
        text: What was predicted.

    Raises:
        ValueError: The text is empty.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if not size:
        raise ValueError("an empty text has no bits per byte")
    return -log_likelihood / (math.log(2) * size)


def perplexity_scorer() -> Scorer:
    """Perplexity of the whole set: exp of the mean negative log-likelihood of a token; lower is better.

    exp(-sum of log p / number of tokens) over all items together (Jelinek et al. 1977, J. Acoust. Soc. Am. 62:S63), so
    that long texts count by their length. It depends on the tokenizer: contestants with another one can only be
    compared by `bits_per_byte`. An item's own score is the perplexity of its text.
    """

    def measure(log_likelihood: float, text: str, tokens: int) -> Score:
        if not tokens:
            raise ValueError("a text without tokens has no perplexity")
        nats = -log_likelihood
        return Score(_bounded_exp(nats / tokens), {"nats": nats, "tokens": tokens})

    def parts(details: Sequence[Mapping[str, Any]]) -> Floats:
        return np.array([[detail["nats"], detail["tokens"]] for detail in details], dtype=np.float64).reshape(-1, 2)

    def of(sums: Floats) -> Floats:
        found: Floats = np.exp(np.minimum(sums[..., 0] / sums[..., 1], _LARGEST_EXPONENT))
        return found

    return Scorer(
        "perplexity",
        False,
        False,
        "perplexity",
        _no_answers("perplexity"),
        "exp of the mean negative log-likelihood of a token",
        needs_likelihood=True,
        highest=math.inf,
        measure=measure,
        whole=WholeSet(parts, of),
    )


# exp of more is infinite, which no interval and no JSON can hold
_LARGEST_EXPONENT = 700.0


def _bounded_exp(exponent: float) -> float:
    return math.exp(min(exponent, _LARGEST_EXPONENT))


def _no_answers(name: str) -> Any:
    def judge(answer: str, reference: str) -> Score:
        raise ValueError(f"{name} judges no answers: take the runtime's log-likelihood to its measure()")

    return judge
