"""One request to an OpenAI-compatible chat endpoint, tried again where that can help: `ChatService(section).ask(...)`.

The key is read from the environment, sent in the header and nowhere else: it is taken out of all that a server says.
"""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from finetune.errors import FinetuneError
from finetune.recipe.contestants import Endpoint

Messages = Sequence[Mapping[str, Any]]

# Seconds before the first repetition; each further one waits twice as long, up to LONGEST_WAIT
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
# A server that asks for more patience than this, in seconds, is not waited for
MOST_PATIENCE = 600.0
MOST_BYTES = 64 << 20
PATH = "/chat/completions"
# 408 and 425 mean "ask again", 409 a lock that somebody else holds, 429 too many requests
_PASSING = {408, 409, 425, 429}
# What servers say about one question rather than about all of them
_OF_THE_ITEM = {400, 413, 422}
_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}


@dataclass(frozen=True, slots=True)
class Said:
    """What an endpoint answered, as it said it.

    Attributes:
        text: the answer; empty where the endpoint gave none (a content filter, a length used up by reasoning).
        finish_reason: `stop`, `length` and so on; empty where the endpoint does not say.
        prompt_tokens: tokens of the question as the endpoint counts and bills them, None where it does not say.
        answer_tokens: likewise of the answer, reasoning included.
        model: the model that the endpoint says has answered.
        seconds: time of the request that succeeded.
        attempts: how many requests it took.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None
    answer_tokens: int | None
    model: str
    seconds: float
    attempts: int


class Fault(Exception):
    """Why a question has no answer. `of_item`: it lies in the question, so that others may be answered."""

    def __init__(self, what: str, fix: str, *, of_item: bool = False) -> None:
        super().__init__(what)
        self.what, self.fix, self.of_item = what, fix, of_item


class Interrupted(Exception):
    """The waiting for an endpoint was ended from outside."""


class _Passing(Exception):
    """A fault that may be gone after a while; `wait` is what the server asks for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.what, self.wait = what, wait


class ChatService:
    """An endpoint that can be asked from several threads at once. Close it, or use it in a `with` block.

    Args:
        section: the endpoint.
        where: what problems call it.
        first_wait: seconds before a request is tried again for the first time.

    Raises:
        FinetuneError: the environment variable with the key is not set, or holds no key; the url is none.
    """

    def __init__(self, section: Endpoint, *, where: str, first_wait: float = FIRST_WAIT) -> None:
        self.section, self.where, self._first_wait = section, where, first_wait
        self._attempts, self._parameters = section.retries + 1, section.parameters
        self.url = section.url.rstrip("/").removesuffix(PATH) + PATH
        self._key = _key(section.api_key_env, where)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(
            headers={**headers, "Content-Type": "application/json"},
            timeout=section.timeout,
            limits=httpx.Limits(max_connections=section.concurrency),
            # A proxy of the environment does not know this machine's own ports
            trust_env=not _is_this_machine(self.url, where),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def payload(self, messages: Messages, max_new_tokens: int) -> dict[str, Any]:
        """Return what is sent for a question: greedy decoding, then the recipe's parameters, null leaving one out."""
        settings = {"temperature": 0, "max_tokens": max_new_tokens, **self._parameters}
        kept = {name: value for name, value in settings.items() if value is not None}
        return {**kept, "model": self.section.model, "messages": [dict(message) for message in messages]}

    def ask(self, payload: Mapping[str, Any], stopped: threading.Event) -> Said:
        """Send a question until it is answered.

        Args:
            payload: from `payload`.
            stopped: ends the waiting between requests when set.

        Raises:
            Fault: there is no answer, and asking again would not help or has not helped.
            Interrupted: `stopped` was set while the next attempt was waited for.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return self._asked(payload, attempt)
            except _Passing as passing:
                found, wait = passing.what, passing.wait
            if wait is not None and wait > MOST_PATIENCE:
                raise Fault(f"{found}, and asks to wait for {wait:,.0f} s", "run the same command again by then")
            if attempt < self._attempts and stopped.wait(self._wait(attempt) if wait is None else wait):
                raise Interrupted
        tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        raise Fault(f"{found} ({tries})", "see that the endpoint runs and that its url is right")

    def _wait(self, attempt: int) -> float:
        """Return seconds that double with each attempt, less up to a half by chance so that threads do not march."""
        longest = min(LONGEST_WAIT, self._first_wait * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def _asked(self, payload: Mapping[str, Any], attempt: int) -> Said:
        started = time.perf_counter()
        try:
            status, headers, body = self._sent(payload)
        except httpx.TimeoutException:
            raise _Passing(f"the endpoint did not answer within {self.section.timeout:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise Fault(
                f"the request cannot be sent: {self._clean(str(error))}", "correct the endpoint's url"
            ) from None
        except httpx.HTTPError as error:
            said = self._clean(str(error)) or type(error).__name__
            raise _Passing(f"the endpoint cannot be reached: {said}") from None
        seconds = time.perf_counter() - started
        if status == httpx.codes.OK:
            return self._understood(body, seconds, attempt)
        raise self._refusal(status, headers, body)

    def _sent(self, payload: Mapping[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Send one request and read the answer, both within the time limit."""
        # The libraries' limit holds for each piece that arrives; a server that drips would never meet it
        deadline = time.monotonic() + self.section.timeout
        content = json.dumps(payload, allow_nan=False).encode()
        with self._client.stream("POST", self.url, content=content) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer took too long")
                if len(body) > MOST_BYTES:
                    raise Fault(f"the endpoint's answer is longer than {MOST_BYTES >> 20} MB", "is this a chat API?")
        return response.status_code, response.headers, bytes(body)

    def _refusal(self, status: int, headers: httpx.Headers, body: bytes) -> Fault | _Passing:
        """Return what a status other than 200 means."""
        said, code = self._words(body)
        what = f"the endpoint answers {status}" + (f": {said}" if said else "")
        if code in _SPENT:
            return Fault(what, "the account's quota is used up; run the same command again when it is not")
        if status in _PASSING or status >= 500:
            return _Passing(what, retry_after(headers))
        if status in (401, 403):
            name = self.section.api_key_env
            return Fault(
                what, f"put a valid key into {name}" if name else "set api_key_env to the variable with the key"
            )
        if status == 404:
            return Fault(what, f"correct url ({self.url} was asked) or model ({self.section.model!r})")
        if status in _OF_THE_ITEM:
            return Fault(what, "shorten the question, or see the endpoint's model and parameters", of_item=True)
        return Fault(what, "see that url is the address of a chat API, e.g. http://localhost:11434/v1")

    def _words(self, body: bytes) -> tuple[str, str]:
        """Return the message of an error in one short line, and its code where there is one."""
        text, code = body.decode("utf-8", "replace"), ""
        try:
            told = json.loads(text)
        except ValueError:
            told = text
        if isinstance(told, dict):
            told = told.get("error") or told.get("detail") or told.get("message") or told
        if isinstance(told, dict):
            code, told = str(told.get("code") or told.get("type") or ""), told.get("message") or told
        return self._clean(told if isinstance(told, str) else json.dumps(told)) if told else "", code

    def _clean(self, text: str) -> str:
        line = " ".join(text.split())
        return (line.replace(self._key, "[key]") if self._key else line)[:300]

    def _understood(self, body: bytes, seconds: float, attempt: int) -> Said:
        """Read an answer.

        Raises:
            Fault: it is none.
        """
        fix = "see that url is the address of an OpenAI-compatible API, e.g. http://localhost:11434/v1"
        try:
            told = json.loads(body)
        except ValueError:
            start = self._clean(body[:200].decode("utf-8", "replace"))
            raise Fault(f"the endpoint's answer is no JSON: {start!r}", fix) from None
        try:
            choice = told["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            usage = told.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (TypeError, KeyError, IndexError, AttributeError):
            start = self._clean(body[:200].decode("utf-8", "replace"))
            raise Fault(f"the endpoint's answer holds no choices with a message: {start!r}", fix) from None
        if not isinstance(text, (str, type(None))) or not isinstance(reason, (str, type(None))):
            raise Fault(f"the endpoint's answer is of type {type(text).__name__}, not text", fix)
        prompt, answer = (one if isinstance(one, int) and one >= 0 else None for one in counts)
        return Said(text or "", reason or "", prompt, answer, str(told.get("model") or ""), seconds, attempt)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a server asks to wait (RFC 9110, 10.2.3: seconds or a date), None where it does not."""
    said = headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _key(name: str | None, where: str) -> str:
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise FinetuneError(
            f"the environment variable {name} is not set", where=where, fix=f"export {name}=... with the endpoint's key"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise FinetuneError(
            f"the environment variable {name} holds no key: keys have no spaces and no letters beyond ASCII",
            where=where,
            fix=f"export {name}=... with the endpoint's key",
        )
    return key


def _is_this_machine(url: str, where: str) -> bool:
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise FinetuneError(f"{url!r} is no address: {error}", where=where, fix="correct the endpoint's url") from None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
