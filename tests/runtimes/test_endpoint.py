"""Endpoints asked over real connections: no answer is lost, none is paid twice, and a fault names its item."""

from __future__ import annotations

import email.utils
import itertools
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.recipe.contestants import Endpoint
from finetune.runtimes.chat_service import retry_after
from finetune.runtimes.endpoint import MOST_REFUSED, EndpointRuntime, Reply, remarks
from tests.chat_server import Asked, ChatServer, Told, echo, said

KEY = "sk-this-is-very-secret-4711"


def runtime(url: str, store: Path | None = None, **settings: Any) -> EndpointRuntime:
    section = Endpoint(**{"url": url, "model": "big-model", "retries": 2, "timeout": 5, **settings})
    return EndpointRuntime(section, name="big", store=store, first_wait=0.01)


def questions(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "system", "content": "be short"}, {"role": "user", "content": text}] for text in texts]


def message(caught: pytest.ExceptionInfo[FinetuneError]) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", re.sub(r"\[Errno \d+\]", "[Errno N]", str(caught.value)))


# --------------------------------------------------------------------------------------------------------- asking


def test_answers_come_in_order_and_say_whether_they_ended() -> None:
    def answer(asked: Asked) -> Told:
        time.sleep(0.1 if asked.question == "a" else 0)
        return said(f"<{asked.question}>", "length" if asked.question == "b" else "stop", prompt=7, answer=3)

    seen: list[int] = []
    with ChatServer(answer) as server, runtime(server.url) as big:
        replies = big.reply(questions("a", "b", "c"), max_new_tokens=16, progress=seen.append)
    assert [(one.text, one.ended, one.tokens, one.token_ids) for one in replies] == [
        ("<a>", True, 3, ()),
        ("<b>", False, 3, ()),
        ("<c>", True, 3, ()),
    ]
    assert seen == [1, 2, 3]
    assert all(one.seconds > 0 and one.model == "m-1" and one.prompt_tokens == 7 for one in replies)


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", KEY)
    with ChatServer() as server, runtime(server.url, api_key_env="BIG_KEY", parameters={"seed": 7}) as big:
        big.reply(questions("Überall \U0001f600"), max_new_tokens=16)
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "temperature": 0,
        "max_tokens": 16,
        "seed": 7,
        "model": "big-model",
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "Überall \U0001f600"}],
    }


def test_parameters_replace_and_leave_out() -> None:
    wanted = {"temperature": None, "max_tokens": None, "max_completion_tokens": 900, "model": "other"}
    with ChatServer() as server, runtime(server.url, parameters=wanted) as big:
        big.reply(questions("a"), max_new_tokens=16)
    (asked,) = server.asked
    assert {name: asked.body[name] for name in asked.body if name != "messages"} == {
        "max_completion_tokens": 900,
        "model": "big-model",
    }
    assert "Authorization" not in asked.headers


@pytest.mark.parametrize("tail", ["", "/", "/chat/completions"])
def test_the_address_may_be_written_in_full(tail: str) -> None:
    with ChatServer() as server, runtime(server.url + tail) as big:
        big.reply(questions("a"), max_new_tokens=16)
    assert [asked.path for asked in server.asked] == ["/v1/chat/completions"]


def test_requests_are_under_way_together_but_no_more_than_allowed() -> None:
    def answer(asked: Asked) -> Told:
        return Told(echo(asked).body, seconds=0.05)

    with ChatServer(answer) as server, runtime(server.url, concurrency=3) as big:
        big.reply(questions(*"abcdefghi"), max_new_tokens=16)
    assert len(server.asked) == 9
    assert server.most_at_once == 3


def test_the_same_question_is_asked_once() -> None:
    seen: list[int] = []
    with ChatServer() as server, runtime(server.url) as big:
        replies = big.reply(questions("a", "b", "a"), max_new_tokens=16, progress=seen.append)
    assert [one.text for one in replies] == ["you said a", "you said b", "you said a"]
    assert len(server.asked) == 2
    assert seen[-1] == 3


# ------------------------------------------------------------------------------------------------- trying it again


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_passing_fault_is_tried_again(status: int) -> None:
    def answer(asked: Asked) -> Told:
        return echo(asked) if asked.number == 3 else Told({"error": {"message": "overloaded"}}, status)

    with ChatServer(answer) as server, runtime(server.url) as big:
        (reply,) = big.reply(questions("a"), max_new_tokens=16)
    assert reply.text == "you said a"
    assert len(server.asked) == 3


def test_a_broken_connection_and_a_slow_answer_are_tried_again() -> None:
    def answer(asked: Asked) -> Told:
        return [Told(hang_up=True), Told(echo(asked).body, seconds=0.6), echo(asked)][asked.number - 1]

    with ChatServer(answer) as server, runtime(server.url, timeout=0.3) as big:
        (reply,) = big.reply(questions("a"), max_new_tokens=16)
    assert reply.text == "you said a"
    assert len(server.asked) == 3


def test_an_answer_that_drips_is_given_up() -> None:
    def answer(asked: Asked) -> Told:
        return Told(echo(asked).body, drip=0.05)

    started = time.monotonic()
    with (
        ChatServer(answer) as server,
        runtime(server.url, timeout=0.3, retries=0) as big,
        pytest.raises(FinetuneError, match=r"item '1': the endpoint did not answer within 0\.3 s \(1 attempt\)"),
    ):
        big.reply(questions("a"), max_new_tokens=16)
    assert time.monotonic() - started < 3


def test_the_wait_is_what_the_server_asks_for() -> None:
    def answer(asked: Asked) -> Told:
        return echo(asked) if asked.number == 2 else Told({}, 429, {"Retry-After": "0.5"})

    with ChatServer(answer) as server, runtime(server.url) as big:
        big.reply(questions("a"), max_new_tokens=16)
    first, second = server.asked
    assert 0.5 <= second.time - first.time < 2


def test_the_wait_doubles() -> None:
    def answer(asked: Asked) -> Told:
        return Told({}, 500)

    section = Endpoint(url="http://localhost/v1", model="m", retries=4)
    with ChatServer(answer) as server:
        section = section.model_copy(update={"url": server.url})
        with EndpointRuntime(section, name="big", first_wait=0.1) as big, pytest.raises(FinetuneError):
            big.reply(questions("a"), max_new_tokens=16)
    times = [asked.time for asked in server.asked]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 4
    for gap, longest in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= gap < longest + 0.2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "7"}, 7), ({"retry-after": "-3"}, 0), ({"retry-after": "soon"}, None)],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_a_date() -> None:
    found = retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})
    assert found is not None
    assert 55 < found <= 60


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    def answer(asked: Asked) -> Told:
        return Told({"error": {"message": "daily limit"}}, 429, {"Retry-After": "3600"})

    with ChatServer(answer) as server, runtime(server.url) as big, pytest.raises(FinetuneError) as caught:
        big.reply(questions("a"), max_new_tokens=16, ids=["t-1"])
    assert message(caught) == (
        "big (http://HOST/v1): item 't-1': the endpoint answers 429: daily limit, and asks to wait for 3,600 s\n"
        "    -> run the same command again by then; 0 of 1 answers are kept"
    )
    assert len(server.asked) == 1


# --------------------------------------------------------------------------------------------------- what is wrong


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_an_endpoint_that_is_down(tmp_path: Path) -> None:
    store = tmp_path / "big.jsonl"
    with (
        runtime(f"http://127.0.0.1:{free_port()}/v1", store, retries=1) as big,
        pytest.raises(FinetuneError) as caught,
    ):
        big.reply(questions("a"), max_new_tokens=16, ids=["t-1"])
    assert message(caught) == (
        "big (http://HOST/v1): item 't-1': the endpoint cannot be reached: [Errno N] Connection refused"
        " (2 attempts)\n"
        f"    -> see that the endpoint runs and that its url is right; 0 of 1 answers are kept in {store},"
        " and the same command asks for the others only"
    )


def test_an_endpoint_that_goes_down_stops_the_others_at_once() -> None:
    def answer(asked: Asked) -> Told:
        return echo(asked) if asked.question == "a" else Told({"error": "out of memory"}, 500)

    with (
        ChatServer(answer) as server,
        runtime(server.url, concurrency=1) as big,
        pytest.raises(FinetuneError) as caught,
    ):
        big.reply(questions(*"abcdefgh"), max_new_tokens=16, ids=[f"t-{one}" for one in "abcdefgh"])
    assert message(caught).startswith(
        "big (http://HOST/v1): item 't-b': the endpoint answers 500: out of memory (3 attempts)\n"
    )
    assert message(caught).endswith("; 1 of 8 answers are kept")
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("told", "what", "fix"),
    [
        (
            Told({"error": {"message": f"Incorrect API key provided: {KEY}."}}, 401),
            "the endpoint answers 401: Incorrect API key provided: [key].",
            "put a valid key into BIG_KEY",
        ),
        (
            Told({"error": {"message": "model 'big-model' not found"}}, 404),
            "the endpoint answers 404: model 'big-model' not found",
            "correct url (http://HOST/v1/chat/completions was asked) or model ('big-model')",
        ),
        (
            Told({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429),
            "the endpoint answers 429: You exceeded your quota",
            "the account's quota is used up; run the same command again when it is not",
        ),
        (
            Told(raw=b"", status=302, headers={"Location": "https://example.org/login"}),
            "the endpoint answers 302",
            "see that url is the address of a chat API, e.g. http://localhost:11434/v1",
        ),
        (
            Told(raw=b"<html>Welcome to nginx!</html>"),
            "the endpoint's answer is no JSON: '<html>Welcome to nginx!</html>'",
            "see that url is the address of an OpenAI-compatible API, e.g. http://localhost:11434/v1",
        ),
        (
            Told({"choices": []}),
            "the endpoint's answer holds no choices with a message: '{\"choices\": []}'",
            "see that url is the address of an OpenAI-compatible API, e.g. http://localhost:11434/v1",
        ),
        (
            Told([1]),
            "the endpoint's answer holds no choices with a message: '[1]'",
            "see that url is the address of an OpenAI-compatible API, e.g. http://localhost:11434/v1",
        ),
        (
            Told({"choices": [{"message": {"content": [{"type": "text"}]}}]}),
            "the endpoint's answer is of type list, not text",
            "see that url is the address of an OpenAI-compatible API, e.g. http://localhost:11434/v1",
        ),
    ],
)
def test_what_asking_again_does_not_mend(told: Told, what: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", KEY)
    with (
        ChatServer(lambda _: told) as server,
        runtime(server.url, api_key_env="BIG_KEY") as big,
        pytest.raises(FinetuneError) as caught,
    ):
        big.reply(questions("a"), max_new_tokens=16, ids=["t-1"])
    assert message(caught) == f"big (http://HOST/v1): item 't-1': {what}\n    -> {fix}; 0 of 1 answers are kept"
    assert len(server.asked) == 1


def test_questions_that_are_refused_are_all_told_and_the_others_answered() -> None:
    def answer(asked: Asked) -> Told:
        if asked.question in "bd":
            return Told({"error": {"message": "maximum context length is 10"}}, 400)
        return echo(asked)

    with ChatServer(answer) as server, runtime(server.url) as big, pytest.raises(FinetuneError) as caught:
        big.reply(questions(*"abcd"), max_new_tokens=16, ids=["t-a", "t-b", "t-c", "t-d"])
    found = sorted((one.what, one.fix) for one in caught.value.problems)
    fix = "shorten the question, or see the endpoint's model and parameters; 2 of 4 answers are kept"
    assert found == [
        ("item 't-b': the endpoint answers 400: maximum context length is 10", fix),
        ("item 't-d': the endpoint answers 400: maximum context length is 10", fix),
    ]
    assert len(server.asked) == 4


def test_an_endpoint_that_refuses_everything_is_not_asked_everything() -> None:
    def answer(_: Asked) -> Told:
        return Told({"error": {"message": "unknown parameter"}}, 400)

    with (
        ChatServer(answer) as server,
        runtime(server.url, concurrency=1) as big,
        pytest.raises(FinetuneError) as caught,
    ):
        big.reply(questions(*map(str, range(200))), max_new_tokens=16)
    assert len(caught.value.problems) >= MOST_REFUSED
    assert len(server.asked) < 100


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIG_KEY", raising=False)
    with pytest.raises(FinetuneError) as caught:
        runtime("http://localhost:1/v1", api_key_env="BIG_KEY")
    assert str(caught.value) == (
        "big (http://localhost:1/v1): the environment variable BIG_KEY is not set\n"
        "    -> export BIG_KEY=... with the endpoint's key"
    )


def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", "two words of a sëcret")
    with pytest.raises(FinetuneError) as caught:
        runtime("http://localhost:1/v1", api_key_env="BIG_KEY")
    assert "BIG_KEY holds no key" in str(caught.value)
    assert "words" not in str(caught.value)


def test_an_address_that_is_none() -> None:
    with pytest.raises(FinetuneError, match=r"'http://here:port/v1/chat/completions' is no address: Invalid port"):
        runtime("http://here:port/v1")


# ----------------------------------------------------------------------------------------------- keeping what came


def test_a_broken_evaluation_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIG_KEY", KEY)
    store = tmp_path / "evaluation" / "big.jsonl"
    down = threading.Event()
    down.set()

    def answer(asked: Asked) -> Told:
        return Told({}, 503) if down.is_set() and asked.question in "cdef" else echo(asked)

    texts, ids = list("abcdef"), [f"t-{one}" for one in "abcdef"]
    with ChatServer(answer) as server:
        with (
            runtime(server.url, store, concurrency=1, api_key_env="BIG_KEY") as big,
            pytest.raises(FinetuneError, match=r"2 of 6 answers are kept in .*big\.jsonl, and the same command asks"),
        ):
            big.reply(questions(*texts), max_new_tokens=16, ids=ids)
        before = len(server.asked)
        # As if killed in the middle of a line
        with store.open("a") as file:
            file.write('{"request": "abc", "te')
        down.clear()
        seen: list[int] = []
        with runtime(server.url, store, api_key_env="BIG_KEY") as big:
            replies = big.reply(questions(*texts), max_new_tokens=16, ids=ids, progress=seen.append)
        asked_again = [asked.question for asked in server.asked[before:]]
        with runtime(server.url, store, api_key_env="BIG_KEY") as big:
            assert big.reply(questions(*texts), max_new_tokens=16, ids=ids) == replies
        assert len(server.asked) == before + 4
    assert [one.text for one in replies] == [f"you said {one}" for one in texts]
    assert sorted(asked_again) == list("cdef")
    assert seen == [3, 4, 5, 6]
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    assert sorted(line["item"] for line in lines) == ids
    assert KEY not in store.read_text()


def test_another_length_or_parameter_is_another_question(tmp_path: Path) -> None:
    store = tmp_path / "big.jsonl"
    with ChatServer() as server:
        for settings, longest in (({}, 16), ({}, 32), ({"parameters": {"seed": 1}}, 16), ({"model": "m2"}, 16)):
            with runtime(server.url, store, **settings) as big:
                big.reply(questions("a"), max_new_tokens=longest)
        assert len(server.asked) == 4
        with runtime(server.url, store) as big:
            big.reply(questions("a"), max_new_tokens=16)
        assert len(server.asked) == 4


def test_a_damaged_file_is_told_with_its_line(tmp_path: Path) -> None:
    store = tmp_path / "big.jsonl"
    with ChatServer() as server, runtime(server.url, store) as big:
        big.reply(questions("a"), max_new_tokens=16)
    store.write_text(store.read_text() + '{"request": "x"}\n')
    with pytest.raises(FinetuneError) as caught:
        runtime("http://localhost:1/v1", store)
    assert str(caught.value) == f"{store}:2: this line is no answer of an endpoint\n    -> remove the line"


def test_a_file_that_cannot_be_written_ends_the_asking(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        ChatServer() as server,
        runtime(server.url, tmp_path / "file" / "big.jsonl", concurrency=1) as big,
        pytest.raises(FinetuneError, match=r"cannot write 'big\.jsonl'"),
    ):
        big.reply(questions(*map(str, range(50))), max_new_tokens=16)
    assert len(server.asked) < 50


# ------------------------------------------------------------------------------------------------ time and money


def test_requests_are_timed_one_at_a_time_and_always_sent(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Told:
        return Told(echo(asked).body, seconds=0.05)

    with ChatServer(answer) as server, runtime(server.url, tmp_path / "big.jsonl") as big:
        replies = big.timed(questions("a", "a", "a"), max_new_tokens=16)
    assert len(server.asked) == 3
    assert server.most_at_once == 1
    assert all(0.05 <= one.seconds < 1 for one in replies)
    assert not (tmp_path / "big.jsonl").exists()


def test_a_request_that_cannot_be_timed() -> None:
    with (
        ChatServer(lambda _: Told({}, 404)) as server,
        runtime(server.url) as big,
        pytest.raises(FinetuneError, match="request 1: the endpoint answers 404"),
    ):
        big.timed(questions("a"), max_new_tokens=16)


def test_prices() -> None:
    with ChatServer(lambda _: said("x", prompt=1000, answer=200)) as server:
        settings = {"price_per_million_input": 2.5, "price_per_million_output": 10.0, "currency": "EUR"}
        with runtime(server.url, **settings) as big:
            bill = big.bill(big.reply(questions("a", "b"), max_new_tokens=16))
        with runtime(server.url) as free:
            unpriced = free.bill(free.reply(questions("a", "b"), max_new_tokens=16))
    assert (bill.requests, bill.prompt_tokens, bill.answer_tokens, bill.currency) == (2, 2000, 400, "EUR")
    assert bill.price == pytest.approx(2 * (1000 * 2.5 + 200 * 10) / 1e6)
    assert bill.per_thousand_requests == pytest.approx(4.5)
    assert (unpriced.prompt_tokens, unpriced.price, unpriced.per_thousand_requests) == (2000, None, None)


def test_no_price_without_a_count() -> None:
    def answer(asked: Asked) -> Told:
        told = said("x")
        return told if asked.question == "a" else Told({**told.body, "usage": None})

    with (
        ChatServer(answer) as server,
        runtime(server.url, price_per_million_input=1, price_per_million_output=1) as big,
    ):
        replies = big.reply(questions("a", "b"), max_new_tokens=16)
        bill = big.bill(replies)
    assert (bill.price, bill.prompt_tokens) == (None, None)
    assert remarks(replies) == ("1 of 2 answers came without a count of tokens, so they have no price",)


def reply(reason: str = "stop", model: str = "m", tokens: int | None = 3) -> Reply:
    return Reply(
        (), "x", True, finish_reason=reason, prompt_tokens=tokens, answer_tokens=tokens, model=model, seconds=1
    )


def test_remarks() -> None:
    assert remarks([reply(), reply("length")]) == ()
    assert remarks([reply(model="m-1"), reply(model="m-2"), reply("content_filter"), reply("")]) == (
        "the endpoint answered as 3 models: 'm', 'm-1', 'm-2'",
        "1 of 4 answers ended by 'content_filter'",
        "1 of 4 answers do not say whether they ended; a count below the limit decides",
    )


@pytest.mark.parametrize(
    ("reason", "tokens", "ended"), [("stop", 16, True), ("length", 3, False), (None, 3, True), (None, 16, False)]
)
def test_an_endpoint_that_does_not_say_whether_it_ended(reason: str | None, tokens: int, ended: bool) -> None:
    with ChatServer(lambda _: said("x", reason, answer=tokens)) as server, runtime(server.url) as big:
        (found,) = big.reply(questions("a"), max_new_tokens=16)
    assert found.ended is ended


def test_an_answer_that_is_withheld_is_empty_and_remarked() -> None:
    with ChatServer(lambda _: said(None, "content_filter")) as server, runtime(server.url) as big:
        replies = big.reply(questions("a"), max_new_tokens=16)
    assert (replies[0].text, replies[0].ended) == ("", False)
    assert remarks(replies) == ("1 of 1 answers ended by 'content_filter'",)
