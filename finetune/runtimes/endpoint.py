"""A model behind an OpenAI-compatible endpoint: `with EndpointRuntime(section, name=...) as big: big.reply(...)`.

Answers are kept as they come: an evaluation that breaks off goes on where it stopped and pays for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from finetune.errors import FinetuneError, Problem, some
from finetune.recipe.contestants import Endpoint
from finetune.runtimes.chat_service import FIRST_WAIT, ChatService, Fault, Interrupted, Messages, Said
from finetune.runtimes.kept_replies import KeptReplies
from finetune.runtimes.protocol import Generation, Progress

# Questions that an endpoint may refuse before the others are not asked any more
MOST_REFUSED = 5
# Finish reasons of an answer that the model itself ended
_ENDED = {"stop", "tool_calls", "function_call", "end_turn", "eos"}
_USUAL = {*_ENDED, "length", ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply(Generation):
    """An endpoint's answer; it has no token ids.

    `prompt_tokens` and `answer_tokens` are those that the endpoint counts and bills, None where it does not say;
    `model` is who it says has answered; `seconds` is the time of the request, while others were under way.
    """

    finish_reason: str
    prompt_tokens: int | None
    answer_tokens: int | None
    model: str
    seconds: float

    @property
    def tokens(self) -> int:
        """How many tokens the endpoint says it generated; 0 where it does not say."""
        return self.answer_tokens or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What answers cost. Tokens are None where an answer came without a count, the price too, or where none is set."""

    requests: int
    prompt_tokens: int | None
    answer_tokens: int | None
    price: float | None
    currency: str

    @property
    def per_thousand_requests(self) -> float | None:
        """The price of a thousand requests like these, None where it is not known."""
        return None if self.price is None or not self.requests else 1000 * self.price / self.requests


@dataclass(frozen=True, slots=True)
class _Question:
    """A request to send: its hash, the item that asks it first, how many items ask it, and what is sent."""

    key: str
    item: str
    times: int
    payload: Mapping[str, Any]


class EndpointRuntime:
    """Answers from an endpoint. Close it, or use it in a `with` block.

    Args:
        section: the endpoint as the recipe names it.
        name: what the contestant is called.
        store: JSON Lines file in which answers are kept and found again; unset keeps them in memory.
        first_wait: seconds before a request is tried again for the first time.

    Raises:
        FinetuneError: the key is missing, or the file of answers is damaged.
    """

    def __init__(
        self, section: Endpoint, *, name: str, store: Path | None = None, first_wait: float = FIRST_WAIT
    ) -> None:
        self.section, self.name = section, name
        self.where = f"{name} ({section.url})"
        self._service = ChatService(section, where=self.where, first_wait=first_wait)
        self._kept = KeptReplies(store)

    def __enter__(self) -> EndpointRuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def reply(
        self,
        conversations: Sequence[Messages],
        *,
        max_new_tokens: int,
        ids: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Reply]:
        """Answer each conversation; those that were answered before by the same request are not asked again.

        Args:
            conversations: messages of `role` and `content`, the last one a question.
            max_new_tokens: longest answer.
            ids: what problems call the items; unset counts them from 1.
            progress: called with the number of conversations answered so far.

        Raises:
            FinetuneError: an item has no answer, named with its id; the others are kept.
        """
        names = [f"{number}" for number in range(1, len(conversations) + 1)] if ids is None else list(ids)
        payloads = [self._service.payload(messages, max_new_tokens) for messages in conversations]
        keys = [self._key(payload) for payload in payloads]
        times = Counter(keys)
        questions: dict[str, _Question] = {}
        for key, name, payload in zip(keys, names, payloads, strict=True):
            if key not in self._kept:
                questions.setdefault(key, _Question(key, name, times[key], payload))
        self._complete(list(questions.values()), len(keys), progress)
        return [self._as_reply(self._kept[key], max_new_tokens) for key in keys]

    def timed(self, conversations: Sequence[Messages], *, max_new_tokens: int) -> list[Reply]:
        """Ask conversations one at a time and always anew, for the time that each takes; nothing is kept.

        Raises:
            FinetuneError: one has no answer.
        """
        replies = []
        for number, messages in enumerate(conversations, 1):
            try:
                said = self._service.ask(self._service.payload(messages, max_new_tokens), threading.Event())
            except Fault as fault:
                raise FinetuneError(f"request {number}: {fault.what}", where=self.where, fix=fault.fix) from None
            replies.append(self._as_reply(said, max_new_tokens))
        return replies

    def _key(self, payload: Mapping[str, Any]) -> str:
        """Return the hash of all that decides an answer."""
        text = json.dumps({"url": self._service.url, **payload}, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def _complete(self, questions: Sequence[_Question], total: int, progress: Progress | None) -> None:
        """Have questions answered, several at once, each answer kept when it comes."""
        stopped = threading.Event()
        done = total - sum(question.times for question in questions)
        faults: dict[str, Fault] = {}
        with ThreadPoolExecutor(self.section.concurrency) as pool:
            pending: dict[Future[Fault | None], _Question] = {
                pool.submit(self._answer, question, stopped): question for question in questions
            }
            try:
                for future in as_completed(pending):
                    question, fault = pending[future], future.result()
                    if fault is not None:
                        faults[question.item] = fault
                        if len(faults) >= MOST_REFUSED:
                            stopped.set()
                    elif question.key in self._kept:
                        done += question.times
                        if progress is not None:
                            progress(done)
            finally:
                # Whatever ends this (Ctrl-C too), requests under way are still waited for and their answers kept
                stopped.set()
        if faults:
            raise self._failed(faults, done, total)

    def _answer(self, question: _Question, stopped: threading.Event) -> Fault | None:
        """Have one question answered and its answer kept; returns why it has none, nothing where it was not asked."""
        if stopped.is_set():
            return None
        try:
            said = self._service.ask(question.payload, stopped)
        except Interrupted:
            return None
        except Fault as fault:
            if not fault.of_item:
                stopped.set()
            return fault
        self._kept.add(question.key, question.item, said)
        return None

    def _failed(self, faults: Mapping[str, Fault], done: int, total: int) -> FinetuneError:
        """Return the problem of each item that was refused, or the one of an endpoint that answers nobody."""
        general = {item: fault for item, fault in faults.items() if not fault.of_item}
        # What brings all requests down is told once, by the first item that met it
        told = dict(list(general.items())[:1]) if general else faults
        where = f"; {done:,} of {total:,} answers are kept"
        if self._kept.path is not None:
            where += f" in {self._kept.path}, and the same command asks for the others only"
        return FinetuneError.of(
            [Problem(self.where, f"item {item!r}: {fault.what}", fault.fix + where) for item, fault in told.items()]
        )

    def _as_reply(self, said: Said, max_new_tokens: int) -> Reply:
        silent = not said.finish_reason and said.answer_tokens is not None and said.answer_tokens < max_new_tokens
        return Reply(
            token_ids=(),
            text=said.text,
            ended=said.finish_reason in _ENDED or silent,
            finish_reason=said.finish_reason,
            prompt_tokens=said.prompt_tokens,
            answer_tokens=said.answer_tokens,
            model=said.model,
            seconds=said.seconds,
        )

    def bill(self, replies: Sequence[Reply]) -> Bill:
        """Return what answers cost at the prices that the recipe names."""
        return _bill(self.section, replies)


def _bill(section: Endpoint, replies: Sequence[Reply]) -> Bill:
    asked, answered = _total([one.prompt_tokens for one in replies]), _total([one.answer_tokens for one in replies])
    for_input, for_output = section.price_per_million_input, section.price_per_million_output
    price = None
    if asked is not None and answered is not None and for_input is not None and for_output is not None:
        price = (asked * for_input + answered * for_output) / 1e6
    return Bill(
        requests=len(replies),
        prompt_tokens=asked,
        answer_tokens=answered,
        price=price,
        currency=section.currency or "USD",
    )


def remarks(replies: Sequence[Reply]) -> tuple[str, ...]:
    """Return sentences that whoever reads an endpoint's scores has to know: two models, answers withheld, no counts."""
    found = []
    models = sorted({one.model for one in replies})
    if len(models) > 1:
        found.append(f"the endpoint answered as {len(models)} models: {some(map(repr, models))}")
    withheld = Counter(one.finish_reason for one in replies if one.finish_reason not in _USUAL)
    found += [f"{count} of {len(replies)} answers ended by {reason!r}" for reason, count in sorted(withheld.items())]
    uncounted = sum(one.prompt_tokens is None or one.answer_tokens is None for one in replies)
    if uncounted:
        found.append(f"{uncounted} of {len(replies)} answers came without a count of tokens, so they have no price")
    unsaid = sum(not one.finish_reason for one in replies)
    if unsaid:
        found.append(
            f"{unsaid} of {len(replies)} answers do not say whether they ended; a count below the limit decides"
        )
    return tuple(found)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
