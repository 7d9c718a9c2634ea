"""What is timed and what is not, one request at a time, and what it says of memory, size and price."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest

from finetune.data import Example, Message, Origin, TestItem, TokenRow
from finetune.evaluation.cost import Cost, endpoint_cost, measure_cost, prompt_of, requests_of
from finetune.hardware import GIGABYTE, Machine
from finetune.recipe.contestants import Endpoint
from finetune.recipe.costs import CostSection
from finetune.runtimes import EndpointRuntime, TransformersRuntime
from tests.tiny import tiny_model, tiny_tokenizer

MACHINE = Machine("cpu", "Xeon", 16 * GIGABYTE, 2, native_bfloat16=False)


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(TransformersRuntime):
    """A tiny model for which time passes: a tenth of a second for each token of the prompt."""

    def __init__(self, clock: Clock) -> None:
        tokenizer = tiny_tokenizer()
        super().__init__(tiny_model(tokenizer), tokenizer, name="tuned")
        self.clock = clock
        self.asked: list[tuple[int, ...]] = []

    def generate(self, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Any]:
        assert len(prompts) == 1
        self.asked.append(tuple(prompts[0]))
        self.clock.now += len(prompts[0]) / 10
        return super().generate(prompts, **settings)


def measured(lengths: Sequence[int], **settings: Any) -> tuple[Cost | None, Slow]:
    runtime = Slow(Clock())
    cost = measure_cost(
        CostSection(**settings),
        runtime,
        [tuple(range(5, 5 + length)) for length in lengths],
        max_new_tokens=4,
        stop=(),
        machine=MACHINE,
        clock=runtime.clock,
    )
    return cost, runtime


def test_every_request_is_timed_by_itself_after_warming_up() -> None:
    cost, runtime = measured([90, 90, *range(1, 12)], warm_up=2)
    assert len(runtime.asked) == 13
    assert cost is not None
    assert cost.requests == 11
    assert cost.latency_p50 == pytest.approx(0.6)
    assert cost.latency_p95 == pytest.approx(1.05)
    assert cost.tokens_per_second == pytest.approx(11 * 4 / 6.6)
    assert cost.hardware == "Xeon, 2 cores, 16 GB, float32"
    assert cost.size_bytes == runtime.size_bytes() > 0
    assert (cost.price_per_thousand_requests, cost.currency) == (None, None)
    assert cost.peak_memory is None or cost.peak_memory > 10_000_000
    assert json.loads(json.dumps(cost.as_json(), allow_nan=False))["requests"] == 11


def test_timing_ends_with_its_time() -> None:
    cost, runtime = measured([1, 10, 10, 10, 10], warm_up=1, seconds=1.5)
    assert cost is not None
    assert (cost.requests, len(runtime.asked)) == (2, 3)
    cost, _ = measured([100, 100], warm_up=0, seconds=0.1)
    assert cost is not None
    assert cost.requests == 1


def test_no_requests_ask_nobody() -> None:
    cost, runtime = measured([5, 5], requests=0)
    assert (cost, runtime.asked) == (None, [])


def item(number: int) -> TestItem:
    example = Example(id=f"{number}", origin=Origin("t", number), messages=(Message("assistant", "a"),))
    row = TokenRow(f"{number}", np.arange(6, dtype=np.int32), np.ones(6, dtype=bool))
    return TestItem(example, (number,), (row,))


def test_what_is_timed_was_not_asked_for_warming_up() -> None:
    items = [item(number) for number in range(30)]
    drawn = [one.prompt[0] for one in requests_of(items, CostSection(requests=20, warm_up=3), seed=1)]
    assert len(drawn) == len(set(drawn)) == 23
    assert drawn == [one.prompt[0] for one in requests_of(items, CostSection(requests=20, warm_up=3), seed=1)]
    assert drawn != [one.prompt[0] for one in requests_of(items, CostSection(requests=20, warm_up=3), seed=2)]
    few = [one.prompt[0] for one in requests_of(items[:4], CostSection(requests=20, warm_up=6), seed=1)]
    assert len(few) == 10
    assert sorted(few[6:]) == [0, 1, 2, 3]


def test_of_raw_text_the_second_half_is_to_be_continued() -> None:
    assert prompt_of(item(7)) == (7,)
    row = TokenRow("r", np.arange(9, dtype=np.int32), np.ones(9, dtype=bool))
    text = Example(id="r", origin=Origin("t", 1), text="text")
    assert prompt_of(TestItem(text, (), (row,))) == (0, 1, 2, 3)


@contextmanager
def service(usage: dict[str, int] | None) -> Iterator[tuple[str, list[Any]]]:
    """A chat service that counts its requests; yields its address and what it was asked."""
    asked: list[Any] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": "yes"}
            said: dict[str, Any] = {"model": "big", "choices": [{"message": message, "finish_reason": "stop"}]}
            body = json.dumps({**said, "usage": usage} if usage else said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def asked_of(usage: dict[str, int] | None, **prices: float) -> tuple[Cost | None, int, str]:
    with service(usage) as (url, asked):
        section = Endpoint(url=url, model="big", **prices)
        with EndpointRuntime(section, name="big") as endpoint:
            same = [[{"role": "user", "content": "Where is my card?"}]] * 7
            cost = endpoint_cost(CostSection(warm_up=2, requests=5), endpoint, same, max_new_tokens=8)
    return cost, len(asked), url


def test_an_endpoint_is_asked_anew_and_has_a_price() -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 10}
    cost, asked, url = asked_of(usage, price_per_million_input=1.0, price_per_million_output=6.0)
    assert asked == 7
    assert cost is not None
    assert cost.requests == 5
    assert cost.price_per_thousand_requests == pytest.approx(0.1)
    assert cost.currency == "USD"
    assert cost.hardware == f"{url} (big), the way there included"
    assert (cost.size_bytes, cost.peak_memory) == (None, None)
    assert 0 < cost.latency_p50 <= cost.latency_p95 < 5
    assert cost.tokens_per_second is not None
    assert math.isfinite(cost.tokens_per_second)


def test_an_endpoint_that_counts_nothing_has_neither_speed_nor_price() -> None:
    cost, _, _ = asked_of(None, price_per_million_input=1.0, price_per_million_output=6.0)
    assert cost is not None
    assert (cost.tokens_per_second, cost.price_per_thousand_requests, cost.currency) == (None, None, None)
