"""What an answer costs, one request at a time: `measure_cost` for models on this machine, `endpoint_cost` for others.

Latency is what a single user waits for a whole answer. Warm-up requests come first and are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from finetune.data import TestItem
from finetune.hardware import Machine, peak_memory, processor, release_freed_memory, reset_peak_memory
from finetune.recipe.costs import CostSection
from finetune.runtimes import EndpointRuntime, LlamaCppRuntime, Runtime
from finetune.runtimes.endpoint import Reply

T = TypeVar("T")
U = TypeVar("U")

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What answering costs a contestant.

    Attributes:
        latency_p50: median time of a whole answer, in seconds.
        latency_p95: 95th percentile of it, interpolated between the two nearest requests.
        tokens_per_second: tokens answered in a second of latency, reading the question included; None where an endpoint
            does not count them.
        peak_memory: most bytes that the process, or the GPU, held while answering; None where that cannot be known.
        size_bytes: bytes of the weights; None for an endpoint.
        requests: how many were timed.
        hardware: where it was measured.
        price_per_thousand_requests: what an endpoint asks for them; None without a price.
        currency: of the price.
    """

    latency_p50: float
    latency_p95: float
    tokens_per_second: float | None
    peak_memory: int | None
    size_bytes: int | None
    requests: int
    hardware: str
    price_per_thousand_requests: float | None = None
    currency: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it in values of strict JSON."""
        return asdict(self)


def requests_of(items: Sequence[TestItem], section: CostSection, seed: int) -> list[TestItem]:
    """Draw the items that are asked for their cost, those for warming up first; few items come again.

    Args:
        items: the items of a task, one or more.
        section: how many.
        seed: seed of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    timed = min(section.requests, len(items))
    # What is timed is new to the contestant as long as there are enough items
    warm_up = [order[(timed + place) % len(order)] for place in range(section.warm_up)]
    return [items[index] for index in (*warm_up, *order[:timed])]


def prompt_of(item: TestItem) -> tuple[int, ...]:
    """Return what a model is asked: the prompt, or of raw text the first half, which it is to continue."""
    tokens = item.row.input_ids.tolist()
    return item.prompt or tuple(tokens[: max(1, len(tokens) // 2)])


def measure_cost(
    section: CostSection,
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    machine: Machine,
    clock: Clock = time.perf_counter,
) -> Cost | None:
    """Measure what answering costs a model on this machine; None where the recipe asks for no requests.

    Memory is that of this process, other models in it included, or of the one that llama.cpp runs in.

    Args:
        section: the recipe's `evaluate.cost`.
        runtime: who answers.
        prompts: of the items that `requests_of` draws, those for warming up first.
        max_new_tokens: longest answer.
        stop: tokens that end an answer.
        machine: what this process computes on.
        clock: seconds.
    """
    release_freed_memory()
    known = reset_peak_memory()
    timed = _timed(
        section,
        lambda prompt: runtime.generate([prompt], max_new_tokens=max_new_tokens, stop=stop, progress=None)[0],
        prompts,
        clock,
    )
    if not timed:
        return None
    own = isinstance(runtime, LlamaCppRuntime)
    memory = runtime.peak_memory() if isinstance(runtime, LlamaCppRuntime) else peak_memory() if known else None
    return _cost(
        [seconds for seconds, _ in timed],
        # A token that ends an answer is computed like any other
        sum(len(given.token_ids) + given.ended for _, given in timed),
        peak_memory=memory,
        size_bytes=runtime.size_bytes(),
        hardware=str(processor() if own else machine),
    )


def endpoint_cost(
    section: CostSection,
    endpoint: EndpointRuntime,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    max_new_tokens: int,
    clock: Clock = time.perf_counter,
) -> Cost | None:
    """Measure what answering costs an endpoint, asked anew; None where the recipe asks for no requests.

    Args:
        section: the recipe's `evaluate.cost`.
        endpoint: who answers.
        conversations: of the items that `requests_of` draws, those for warming up first.
        max_new_tokens: longest answer.
        clock: seconds.

    Raises:
        FinetuneError: a request has no answer.
    """

    def ask(conversation: Sequence[dict[str, str]]) -> Reply:
        return endpoint.timed([conversation], max_new_tokens=max_new_tokens)[0]

    timed = _timed(section, ask, conversations, clock)
    if not timed:
        return None
    bill = endpoint.bill([reply for _, reply in timed])
    return _cost(
        [seconds for seconds, _ in timed],
        bill.answer_tokens,
        peak_memory=None,
        size_bytes=None,
        hardware=f"{endpoint.section.url} ({endpoint.section.model}), the way there included",
        price_per_thousand_requests=bill.per_thousand_requests,
        currency=None if bill.per_thousand_requests is None else bill.currency,
    )


def _timed(section: CostSection, ask: Callable[[T], U], requests: Sequence[T], clock: Clock) -> list[tuple[float, U]]:
    """Ask one after another; return the time and the answer of each that is counted."""
    if not section.requests:
        return []
    for request in requests[: section.warm_up]:
        ask(request)
    found: list[tuple[float, U]] = []
    begun = clock()
    for request in requests[section.warm_up :]:
        started = clock()
        if found and started - begun >= section.seconds:
            break
        answer = ask(request)
        found.append((clock() - started, answer))
    return found


def _cost(seconds: Sequence[float], tokens: int | None, **known: Any) -> Cost:
    median, late = np.percentile(seconds, [50, 95]).tolist()
    return Cost(
        latency_p50=median,
        latency_p95=late,
        tokens_per_second=None if tokens is None else tokens / sum(seconds),
        requests=len(seconds),
        **known,
    )
