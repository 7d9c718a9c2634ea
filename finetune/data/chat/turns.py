"""Where a conversation's answers begin and end in its rendered text: `TurnFinder(template, ...).plan(messages)`.

All by characters; `chat` turns the plan into tokens. An answer begins where the generation prompt ends, which is where
the model takes over at inference, and ends with the end-of-turn token that the template writes after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from finetune.data.chat.templates import Layout, Span, Template
from finetune.data.formats.tool_texts import check_tools
from finetune.data.rows import Message
from finetune.errors import FinetuneError

Proof = Literal["sentinel", "prefix", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An assistant turn: the end of its prompt if the text begins with it, its words, its end-of-turn token."""

    learn: bool
    cut: int | None
    words: Span
    stop: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The text to tokenise, the contents in it (`spans`) and its assistant turns; see `chat.Encoded` for the rest."""

    text: str
    spans: tuple[Span, ...]
    turns: tuple[Turn, ...]
    append_stop: bool
    spliced: bool
    rewritten: int
    proof: Proof

    @property
    def cuts(self) -> list[int]:
        return [turn.cut for turn in self.turns if turn.cut is not None]


class TurnFinder:
    """Finds assistant turns in what one template writes.

    `control_pattern` matches the tokenizer's control tokens as they are written, `eos` is its end of text. `stops` are
    the control tokens that end an answer, learned from the template's probe.
    """

    def __init__(self, template: Template, control_pattern: re.Pattern[str], eos: str | None) -> None:
        self._template = template
        self._control_pattern = control_pattern
        self._eos = eos
        self.stops = frozenset(self._learn_stops())
        self._stop_pattern = re.compile("|".join(map(re.escape, sorted(self.stops))) or "(?!)")

    def plan(self, messages: Sequence[Message]) -> Plan:
        """Find the turns of a conversation whose system message is folded already.

        Raises:
            FinetuneError: the template refuses the conversation, leaves a message out, or rewrites an answer so that
                its place cannot be proven.
        """
        layout = self._template.lay_out(messages)
        self.check_complete(messages, layout)
        answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
        ends = self.prompt_ends(messages, layout.text)
        proven = layout.spans is not None and all(
            layout.words(number) is not None
            for number in answers
            if messages[number].learn and messages[number].content
        )
        spliced = None
        if proven and messages[-1].role == "assistant" and messages[-1].learn and ends[answers[-1]] is None:
            spliced = self._spliced(messages, layout)
        if spliced is not None:
            layout, ends = spliced, self.prompt_ends(messages, spliced.text)
        if proven:
            turns = [
                self._proven_turn(messages, number, layout, ends[number])
                if layout.spans is not None and layout.spans[number]
                else self._prefix_turn(messages, number, layout.text, ends)
                for number in answers
            ]
        else:
            self._check_writable(messages)
            turns = [self._prefix_turn(messages, number, layout.text, ends) for number in answers]
        last = turns[-1] if messages[-1].role == "assistant" else None
        append = last is not None and last.learn and last.stop is None and self._eos is not None
        return Plan(
            text=layout.text[: last.words[1]] if last is not None and append else layout.text,
            spans=flat(layout),
            turns=tuple(turns),
            append_stop=append,
            spliced=spliced is not None,
            rewritten=_rewritten(messages, layout),
            proof="sentinel" if proven and all(messages[number].content for number in answers) else "prefix",
        )

    def check_complete(self, messages: Sequence[Message], layout: Layout) -> None:
        """Raise FinetuneError where a message is missing, or where written control tokens cannot be told apart."""
        check_tools(messages, layout.text, self._control_pattern)
        if layout.spans is None:
            self._check_writable(messages)
            return
        for number, places in enumerate(layout.spans):
            if not places and (messages[number].content or not messages[number].tool_calls):
                raise FinetuneError(
                    f"the chat template leaves out message {number + 1} of {len(messages)} ({messages[number].role})",
                    fix="remove the message, or set model.chat_template to one that writes it",
                )

    def prompt_ends(self, messages: Sequence[Message], text: str) -> dict[int, int | None]:
        """For each assistant message, where its prompt ends in `text`; None if `text` does not begin with it."""
        return {
            number: self._template.prompt_end(messages, number, text)
            for number, message in enumerate(messages)
            if message.role == "assistant"
        }

    def _check_writable(self, messages: Sequence[Message]) -> None:
        """Refuse control tokens in contents whose place is not proven: they would be taken for the template's."""
        for number, message in enumerate(messages, 1):
            written = self._control_pattern.search(message.content)
            if written:
                raise FinetuneError(
                    f"message {number} ({message.role}) holds the control token {written[0]!r}, and the chat "
                    "template rewrites this conversation so that its text cannot be told from the template's",
                    fix="remove the control token from the row",
                )

    def _spliced(self, messages: Sequence[Message], layout: Layout) -> Layout | None:
        """The last answer, as the template writes it, put after the generation prompt, as at inference.

        For templates that begin an answer otherwise when it is given than when it is to be generated: reasoning models
        ('<think>' is prompted, '<think></think>' is written), or an 'Assistant:' with other white space.
        """
        words = layout.words(len(messages) - 1)
        try:
            prompt = self._template.lay_out(messages[:-1], add_generation_prompt=True)
        except FinetuneError:
            return None
        if words is None or prompt.spans is None or not all(prompt.spans):
            return None
        start = _widened(layout.text, words, messages[-1].content)[0]
        moved = len(prompt.text) - start
        return Layout(prompt.text + layout.text[start:], (*prompt.spans, ((words[0] + moved, words[1] + moved),)))

    def _proven_turn(self, messages: Sequence[Message], number: int, layout: Layout, cut: int | None) -> Turn:
        assert layout.spans is not None  # noqa: S101 - the caller has looked
        start, end = layout.spans[number][0][0], layout.spans[number][-1][1]
        following = [span[0] for spans in layout.spans[number + 1 :] for span in spans if span[0] >= end]
        stop = self._stop_pattern.search(layout.text, end, min(following, default=len(layout.text)))
        return Turn(
            learn=messages[number].learn,
            cut=cut if cut is not None and cut <= end else None,
            words=_widened(layout.text, (start, end), messages[number].content),
            stop=stop.start() if stop else None,
        )

    def _prefix_turn(self, messages: Sequence[Message], number: int, text: str, ends: Mapping[int, int | None]) -> Turn:
        """A turn whose words are not proven: all that the template writes between the prompt and the end-of-turn."""
        cut, learn = ends[number], messages[number].learn
        limit = min((end for end in ends.values() if end is not None and end > (cut or 0)), default=len(text))
        stop = self._stop_pattern.search(text, cut, limit) if cut is not None else None
        if learn and (cut is None or (stop is None and number + 1 < len(messages))):
            reason = "does not begin it with its generation prompt" if cut is None else "writes no end-of-turn after it"
            raise FinetuneError(
                f"the chat template rewrites message {number + 1} (assistant) and {reason}: where the answer stands "
                "cannot be proven",
                fix="remove reasoning marks such as '</think>' from the answer, or set model.chat_template",
            )
        if cut is None:
            return Turn(learn=False, cut=None, words=(0, 0), stop=None)
        end = stop.start() if stop else cut + len(text[cut:].rstrip())
        return Turn(learn=learn, cut=cut, words=(cut, end), stop=stop.start() if stop else None)

    def _learn_stops(self) -> set[str]:
        """Find the control tokens that end an answer, from what the template writes after those of its probe.

        Between turns there is also the beginning of the next one. What stands there counts if it also ends the last
        answer, is the tokenizer's eos, or ends user turns as well.
        """
        messages, layout = self._template.probe
        last = len(messages) - 1
        words = layout.words(last)
        start = words[1] if words else self._template.prompt_end(messages, last, layout.text)
        final = self._first_stop(layout.text[start:]) if start is not None else None
        found = {final} if final else set()
        places = [layout.words(number) for number in range(len(messages))]
        gaps = [layout.text[one[1] : two[0]] for one, two in pairwise(places) if one and two]
        if len(gaps) == 3:
            middle = self._first_stop(gaps[1])
            if middle and (middle == self._eos or (final and middle == self._first_stop(gaps[0]))):
                found.add(middle)
        return found

    def _first_stop(self, text: str) -> str | None:
        """The first control token of `text`, or eos where that stands in the unbroken run that it begins."""
        run: list[str] = []
        end = -1
        for match in self._control_pattern.finditer(text):
            if run and match.start() != end:
                break
            run.append(match[0])
            end = match.end()
        if not run:
            return None
        return self._eos if self._eos in run else run[0]


def flat(layout: Layout) -> tuple[Span, ...]:
    """All contents' places in order."""
    return tuple(sorted(span for spans in layout.spans or () for span in spans))


def _widened(text: str, span: Span, content: str) -> Span:
    """The span with the white space at the content's ends, where the template kept it."""
    before, after = content[: len(content) - len(content.lstrip())], content[len(content.rstrip()) :]
    start = span[0] - len(before) if text[: span[0]].endswith(before) else span[0]
    end = span[1] + len(after) if text.startswith(after, span[1]) else span[1]
    return start, end


def _rewritten(messages: Sequence[Message], layout: Layout) -> int:
    """Count the messages whose words do not stand in the rendering as they were written."""
    if layout.spans is None:
        return sum(message.content.strip() not in layout.text for message in messages)
    return sum(
        any(layout.text[start:end] != message.content.strip() for start, end in places)
        for message, places in zip(messages, layout.spans, strict=True)
    )
