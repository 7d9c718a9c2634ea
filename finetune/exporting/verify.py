"""Is the file the model that was trained? Both read the same rows and answer the same prompts, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune.errors import FinetuneError
from finetune.runtimes import Runtime


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
    `first_divergence` the earliest token at which an answer differs.
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Say the result in one sentence."""
        outcome = "behaves like the trained model" if self.passed else "does NOT behave like the trained model"
        return (
            f"{outcome}: KL {self.kl:.1e} nats (bound {self.max_kl:g}), same likeliest token at "
            f"{self.top1_agreement:.2%} of {self.positions:,} positions (bound {self.min_top1:.0%}), "
            f"{self.greedy_match:.0%} of {self.prompts} greedy answers equal"
        )


def verify(
    trained: Runtime,
    shipped: Runtime,
    rows: Sequence[ProofRow],
    *,
    path: str,
    stop: Sequence[int],
    max_kl: float,
    min_top1: float,
    new_tokens: int = 32,
    note: str = "",
) -> Verification:
    """Compare a shipped model with the trained one on real rows.

    Args:
        trained: the model as it was trained (adapter on its base).
        shipped: the file, loaded from disk in its own runtime.
        rows: rows of the run.
        path: the file, for the report.
        stop: tokens that end an answer.
        max_kl: bound for the mean divergence KL(trained || shipped), in nats.
        min_top1: bound for the share of positions with the same likeliest token.
        new_tokens: length of the greedy answers compared.
        note: added to the report.

    Raises:
        FinetuneError: no rows to compare on.
    """
    if not rows:
        raise FinetuneError("there are no rows to verify the file on", where=path, fix="keep some rows for the test")
    divergences, agreements, furthest = [], [], 0.0
    for row in rows:
        kl, agree, difference = _compare(trained.log_probabilities(row.whole), shipped.log_probabilities(row.whole))
        divergences.append(kl)
        agreements.append(agree)
        furthest = max(furthest, difference)
    kl_all, agree_all = np.concatenate(divergences), np.concatenate(agreements)
    match, first = _greedy(trained, shipped, rows, stop, new_tokens)
    kl_mean, top1 = float(kl_all.mean()), float(agree_all.mean())
    return Verification(
        path=path,
        runtime=shipped.name,
        rows=len(rows),
        positions=len(kl_all),
        kl=kl_mean,
        kl_max=float(kl_all.max()),
        log_probability_max_difference=furthest,
        top1_agreement=top1,
        prompts=len(rows),
        greedy_match=match,
        first_divergence=first,
        max_kl=max_kl,
        min_top1=min_top1,
        passed=bool(np.isfinite(kl_mean) and kl_mean <= max_kl and top1 >= min_top1),
        note=note,
    )


def _compare(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return KL(p || q) and agreement at each position, and the largest difference among likely tokens.

    Differences are taken where p gives a token at least 1e-4: far down the tail, log probabilities differ by much
    and matter to nothing.
    """
    width = min(p.shape[1], q.shape[1])
    p, q = p[:, :width], q[:, :width]
    probability = np.exp(p)
    kl = np.maximum((probability * (p - q)).sum(axis=1), 0.0)
    likely = probability >= 1e-4
    return kl, p.argmax(axis=1) == q.argmax(axis=1), float(np.abs(p - q)[likely].max())


def _greedy(
    trained: Runtime, shipped: Runtime, rows: Sequence[ProofRow], stop: Sequence[int], new_tokens: int
) -> tuple[float, int | None]:
    prompts = [row.prompt for row in rows]
    pairs = zip(
        trained.generate(prompts, max_new_tokens=new_tokens, stop=stop, progress=None),
        shipped.generate(prompts, max_new_tokens=new_tokens, stop=stop, progress=None),
        strict=True,
    )
    first = [_divergence(a.token_ids, b.token_ids) for a, b in pairs]
    apart = [position for position in first if position is not None]
    return 1 - len(apart) / len(first), min(apart, default=None)


def _divergence(a: Sequence[int], b: Sequence[int]) -> int | None:
    """Return the first position at which two answers differ, or None."""
    for position, (one, other) in enumerate(zip(a, b, strict=False)):
        if one != other:
            return position
    return None if len(a) == len(b) else min(len(a), len(b))
