"""Chat templates rendered in transformers' sandbox, with the place of every message's words proven: `Template`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune.data.chat.rendering import Renderer
from finetune.data.rows import Message
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

# Private-use plane 16: characters without a meaning, 32,766 pairs of them.
_FIRST_SENTINEL = 0x100000
_SENTINEL = re.compile("[\U00100000-\U0010fffd]")
_MAX_MESSAGES = (0x10FFFD - _FIRST_SENTINEL) // 2

_PROBE = (
    Message("user", "Where is the parcel?"),
    Message("assistant", "On its way."),
    Message("user", "And the invoice?"),
    Message("assistant", "Attached."),
)
_PROBE_SYSTEM = Message("system", "Sort the mail.")


@dataclass(frozen=True, slots=True)
class Layout:
    """A rendered conversation and where the words of each message stand in it.

    `spans` holds, for each message, the places of its content without white space at its ends: one as a rule, none
    where the template leaves the message out or it calls tools without a word, several where it repeats it. `spans` is
    None where the template treats marked content differently from unmarked content, so that nothing is proven.
    """

    text: str
    spans: tuple[tuple[Span, ...], ...] | None

    def words(self, message: int) -> Span | None:
        """Where the words of this message stand, if it is proven that they stand in one place."""
        if self.spans is None or len(self.spans[message]) != 1:
            return None
        return self.spans[message][0]


class Template:
    """A chat template as it is used with one tokenizer.

    Found out by rendering a short conversation: whether contents are given as text or as a list of parts, and whether
    the template takes a system message (`folds_system` if not: it is then put before the first user message, as the
    families without a system role do).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str | None = None) -> None:
        self.source = source if source is not None else _own_template(tokenizer)
        self._renderer = Renderer(tokenizer, self.source)
        self._in_parts = False
        self.probe = self._probe()
        self.folds_system = self._lacks_system()

    @property
    def dated(self) -> bool:
        """Whether the template may write today's date, so that another day gives other tokens."""
        return "strftime_now" in self.source

    def fold(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as this template can take them: a leading system text joined to the first user turn if need be.

        Raises:
            FinetuneError: the template takes no system message and no user turn follows the one given.
        """
        if not (self.folds_system and messages and messages[0].role == "system"):
            return tuple(messages)
        if len(messages) < 2 or messages[1].role != "user":
            raise FinetuneError(
                "the chat template takes no system message, and no user message follows it to hold its text",
                fix="begin the conversation with a user message, or remove the system message",
            )
        text = f"{messages[0].content}\n\n{messages[1].content}"
        first = replace(messages[1], content=text, tools=messages[0].tools)
        return (first, *messages[2:])

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """Write the conversation as the template says; nothing is folded here.

        Raises:
            FinetuneError: the template refuses or fails, with its own words.
        """
        if not messages:
            raise FinetuneError("the conversation has no message")
        try:
            text = self._renderer.write(
                [self._written(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **({"tools": [dict(tool) for tool in messages[0].tools]} if messages[0].tools else {}),
            )
        # A template is a program by someone else: whatever it raises on a well-formed conversation is its own fault.
        except Exception as error:
            raise _refusal(error) from error
        given = sum(len(message.said) for message in messages) + sum(len(str(tool)) for tool in messages[0].tools)
        limit = 100_000 + 10 * given
        if len(text) > limit:
            raise FinetuneError(
                f"the chat template writes {len(text):,} characters for the conversation; {limit:,} are allowed",
                fix="check model.chat_template",
            )
        return text

    def lay_out(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Layout:
        """Render, and prove where each message's words went.

        The conversation is rendered a second time with two private-use characters in each content, directly before
        its first and directly after its last non-space character. If removing them gives the plain rendering, the
        template copied what lies between a pair from that message.

        Raises:
            FinetuneError: the template refuses or fails, or text is not valid Unicode.
        """
        text = self.render(messages, add_generation_prompt)
        check_unicode(text)
        if len(messages) > _MAX_MESSAGES or any(_SENTINEL.search(message.content) for message in messages):
            return Layout(text, None)
        try:
            marked = self.render(
                [_marked(message, number) for number, message in enumerate(messages)], add_generation_prompt
            )
        except FinetuneError:
            return Layout(text, None)
        if _SENTINEL.sub("", marked) != text:
            return Layout(text, None)
        return Layout(text, _paired(marked, len(messages)))

    def prompt_end(self, messages: Sequence[Message], answer: int, text: str) -> int | None:
        """Length of the prompt that message `answer` is given at inference, if `text` begins with it, else None."""
        try:
            prompt = self.render(messages[:answer], add_generation_prompt=True)
        except FinetuneError:
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _written(self, message: Message) -> dict[str, Any]:
        """The message as transformers hands it to templates."""
        more: dict[str, Any] = {"tool_calls": [dict(call) for call in message.tool_calls]} if message.tool_calls else {}
        if message.role == "tool":
            more |= {key: value for key in ("name", "tool_call_id") if (value := getattr(message, key))}
        return {"role": message.role, "content": self._content(message), **more}

    def _content(self, message: Message) -> Any:
        return [{"type": "text", "text": message.content}] if self._in_parts else message.content

    def _probe(self) -> tuple[tuple[Message, ...], Layout]:
        """Render a short conversation in the first form that the template takes with all its words."""
        refusals = []
        rendered: tuple[tuple[Message, ...], Layout] | None = None
        for messages in (_PROBE, _PROBE[:2]):
            for self._in_parts in (False, True):
                try:
                    layout = self.lay_out(messages)
                except FinetuneError as error:
                    refusals.append(error)
                    continue
                if all(layout.words(number) is not None for number in range(len(messages))):
                    return messages, layout
                if not self._in_parts and rendered is None:
                    rendered = (messages, layout)
        self._in_parts = False
        if rendered is None:
            raise refusals[0]
        if rendered[1].spans is not None:
            raise FinetuneError(
                "the chat template does not write each message of a plain conversation exactly once",
                fix="set model.chat_template to one that does",
            )
        return rendered

    def _lacks_system(self) -> bool:
        messages = (_PROBE_SYSTEM, *_PROBE[:2])
        try:
            layout = self.lay_out(messages)
        except FinetuneError:
            return True
        # Some templates show the system text only while the user has the last word; the answer would be learned
        # without it.
        return layout.spans is not None and not layout.spans[0]


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise FinetuneError(
            "the tokenizer has no chat template",
            fix="set model.chat_template, or use a base model that was trained for conversations",
        ) from error


def _refusal(error: Exception) -> FinetuneError:
    from jinja2 import TemplateError, TemplateSyntaxError

    if type(error) is TemplateError:
        return FinetuneError(f"the chat template refuses the conversation: {error}")
    if isinstance(error, TemplateSyntaxError):
        return FinetuneError(f"the chat template is not valid Jinja: {error}", fix="check model.chat_template")
    return FinetuneError(f"the chat template fails on the conversation: {type(error).__name__}: {error}")


def check_unicode(text: str) -> None:
    """Raise FinetuneError if the text holds half of a surrogate pair, which no tokenizer takes."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FinetuneError(
            f"the text holds {text[error.start]!r}, half of a surrogate pair, which is not valid Unicode",
            fix="repair the row; such characters come from cut UTF-16 escapes",
        ) from error


def _marked(message: Message, number: int) -> Message:
    content = message.content
    if not content and message.tool_calls:
        # Templates write such a turn otherwise once it has any text
        return message
    first = len(content) - len(content.lstrip())
    last = max(first, len(content.rstrip()))
    opening, closing = chr(_FIRST_SENTINEL + 2 * number), chr(_FIRST_SENTINEL + 2 * number + 1)
    return replace(message, content=f"{content[:first]}{opening}{content[first:last]}{closing}{content[last:]}")


def _paired(marked: str, messages: int) -> tuple[tuple[Span, ...], ...] | None:
    """Read the sentinels off a marked rendering; None unless each opening one is followed by its closing one."""
    spans: list[list[Span]] = [[] for _ in range(messages)]
    opened: Span | None = None
    for seen, match in enumerate(_SENTINEL.finditer(marked)):
        number, closing = divmod(ord(match[0]) - _FIRST_SENTINEL, 2)
        place = match.start() - seen
        if not closing and opened is None and number < messages:
            opened = (number, place)
        elif closing and opened is not None and opened[0] == number:
            spans[number].append((opened[1], place))
            opened = None
        else:
            return None
    return tuple(map(tuple, spans)) if opened is None else None
