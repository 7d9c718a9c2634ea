"""Is the file the model that was trained? Both read the same rows and answer the same prompts, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError
from finetune.runtimes import Generation, Runtime
from finetune.runtimes.divergence import kl_divergence


@dataclass(frozen=True, slots=True)
class ProofRow:
    """One real row of the run: the prompt alone, and prompt and answer together, as token ids."""

    id: str
    prompt: tuple[int, ...]
    whole: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a file compares with the trained model.

    Divergences are in nats over all positions of all rows; `top1_agreement` is the share of positions where both
    find the same token likeliest; `greedy_match` the share of prompts answered with the same tokens, and
    `first_divergence` the earliest token at which an answer differs. `prompt_parity` is the share of `conversations`
    that the file's own template and tokenizer turn into the tokens that training saw; None where that was not
    compared. `problems` says what else is wrong. `size` and `peak_memory` are in bytes, `load_seconds` is what opening
    the file took, `tokens_per_second` how fast it answered and `peak_memory` what one answer took; `task` compares its
    score with the tuned model's.
    """

    path: str
    runtime: str
    rows: int
    positions: int
    kl: float
    kl_max: float
    log_probability_max_difference: float
    top1_agreement: float
    prompts: int
    greedy_match: float
    first_divergence: int | None
    max_kl: float
    min_top1: float
    passed: bool
    note: str = ""
    prompt_parity: float | None = None
    conversations: int = 0
    problems: tuple[str, ...] = ()
    size: int | None = None
    bits_per_weight: float | None = None
    load_seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory: int | None = None
    task: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "problems": list(self.problems)}

    def sentence(self) -> str:
        """Say the result in one sentence."""
        within = "behaves like the trained model" if self.min_top1 else "keeps what files of its format keep"
        outcome = within if self.passed else "does NOT behave like the trained model"
        bound = f"bound {self.min_top1:.0%}" if self.min_top1 else "no bound"
        return (
            f"{outcome}: KL {self.kl:.1e} nats (bound {self.max_kl:g}), same likeliest token at "
            f"{self.top1_agreement:.2%} of {self.positions:,} positions ({bound}), "
            f"{self.greedy_match:.0%} of {self.prompts} greedy answers equal" + "".join(f"; {p}" for p in self.problems)
        )

    def knowing(self, **facts: Any) -> Verification:
        """Return the verification with more facts; a problem among them, or a prompt that differs, fails the file."""
        problems = (*self.problems, *facts.pop("problems", ()))
        return replace(self, **facts, problems=problems, passed=self.passed and not problems)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a model predicts and answers on the proof rows, kept so that the next model can have the memory."""

    rows: tuple[ProofRow, ...]
    log_probabilities: tuple[NDArray[np.float32], ...]
    answers: tuple[Generation, ...]
    new_tokens: int


def observe(runtime: Runtime, rows: Sequence[ProofRow], *, stop: Sequence[int], new_tokens: int = 32) -> Observation:
    """Record a model's predictions at every position, and its greedy answers.

    Args:
        runtime: the model.
        rows: rows of the run.
        stop: tokens that end an answer.
        new_tokens: length of the answers.

    Raises:
        FinetuneError: no rows, or predictions that are no numbers.
    """
    if not rows:
        raise FinetuneError("there are no rows to verify on", where="data", fix="keep some rows for the test")
    predicted = tuple(runtime.log_probabilities(row.whole) for row in rows)
    if any(np.isnan(found).any() for found in predicted):
        raise FinetuneError(
            f"{runtime.name} predicts NaN", where="export", fix="export to another number format, e.g. dtype: float32"
        )
    prompts = [row.prompt for row in rows]
    answers = runtime.generate(prompts, max_new_tokens=new_tokens, stop=stop, progress=None)
    return Observation(tuple(rows), predicted, tuple(answers), new_tokens)


def verify(
    trained: Observation,
    shipped: Runtime,
    *,
    path: str,
    stop: Sequence[int],
    max_kl: float,
    min_top1: float,
    note: str = "",
) -> Verification:
    """Compare a shipped model with the trained one on real rows.

    Args:
        trained: what the model as it was trained predicted.
        shipped: the file, loaded from disk in its own runtime.
        path: the file, for the report.
        stop: tokens that end an answer.
        max_kl: bound for the mean divergence KL(trained || shipped), in nats.
        min_top1: bound for the share of positions with the same likeliest token.
        note: added to the report.

    Raises:
        FinetuneError: the file predicts NaN.
    """
    seen = observe(shipped, trained.rows, stop=stop, new_tokens=trained.new_tokens)
    compared = [_compare(p, q) for p, q in zip(trained.log_probabilities, seen.log_probabilities, strict=True)]
    kl = np.concatenate([found[0] for found in compared])
    agree = np.concatenate([found[1] for found in compared])
    pairs = zip(trained.answers, seen.answers, strict=True)
    apart = [_divergence(one.token_ids, other.token_ids) for one, other in pairs]
    differing = [position for position in apart if position is not None]
    mean, top1 = float(kl.mean()), float(agree.mean())
    widths = (trained.log_probabilities[0].shape[1], seen.log_probabilities[0].shape[1])
    padded = "" if widths[0] == widths[1] else f"compared on the {min(widths):,} tokens that both have"
    return Verification(
        path=path,
        runtime=shipped.name,
        rows=len(trained.rows),
        positions=len(kl),
        kl=mean,
        kl_max=float(kl.max()),
        log_probability_max_difference=max(found[2] for found in compared),
        top1_agreement=top1,
        prompts=len(trained.rows),
        greedy_match=1 - len(differing) / len(apart),
        first_divergence=min(differing, default=None),
        max_kl=max_kl,
        min_top1=min_top1,
        passed=mean <= max_kl and top1 >= min_top1,
        note="; ".join(filter(None, (note, padded))),
    )


def _compare(p: NDArray[np.float32], q: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """Return KL(p || q) and agreement at each position, and the largest difference among likely tokens.

    Differences are taken where p gives a token at least 1e-4: far down the tail, log probabilities differ by much
    and matter to nothing.
    """
    width = min(p.shape[1], q.shape[1])
    p, q = p[:, :width], q[:, :width]
    likely = np.exp(p) >= 1e-4
    return kl_divergence(p, q), p.argmax(axis=1) == q.argmax(axis=1), float(np.abs(p - q)[likely].max())


def _divergence(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Return the first position at which two answers differ, or None."""
    for position, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return position
    return None if len(a) == len(b) else min(len(a), len(b))
