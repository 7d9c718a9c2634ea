"""Proof that a chat template writes the tools of a conversation and their calls: `check_tools(messages, text, ...)`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.data.rows import Message
from finetune.errors import FinetuneError

_FIX = "use a base model or a model.chat_template that writes tools, or write them into the contents of the row"


def check_tools(messages: Sequence[Message], text: str, control: re.Pattern[str]) -> None:
    """Look for every tool definition and every call in what the template wrote.

    Args:
        messages: the conversation; definitions stand on its first message.
        text: the conversation as the template writes it.
        control: what the tokenizer's control tokens look like.

    Raises:
        FinetuneError: the template leaves out a definition, a call, or an argument; or a control token stands in one
            of them, where its text cannot be told from the template's.
    """
    for tool in messages[0].tools if messages else ():
        function = tool["function"]
        told = [function["name"], *_described(function)]
        _check(told, f"the definition of tool {function['name']!r}", text, control)
    for number, message in enumerate(messages, 1):
        for call in message.tool_calls:
            function = call["function"]
            told = [function["name"], *_leaves(function["arguments"])]
            _check(told, f"the call of {function['name']!r} in message {number}", text, control)


def _described(function: Mapping[str, Any]) -> Iterator[str]:
    """The description of a tool and the names of its parameters."""
    if isinstance(function.get("description"), str):
        yield function["description"]
    parameters = function.get("parameters")
    if isinstance(parameters, Mapping) and isinstance(parameters.get("properties"), Mapping):
        yield from map(str, parameters["properties"])


def _leaves(value: Any) -> Iterator[str]:
    """The texts, numbers and keys of a value."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key)
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def _check(told: Sequence[str], what: str, text: str, control: re.Pattern[str]) -> None:
    for one in told:
        written = control.search(one)
        if written:
            fix = "remove the control token from the row"
            raise FinetuneError(f"{what} holds the control token {written[0]!r}", fix=fix)
        if not any(form in text for form in _forms(one)):
            raise FinetuneError(f"the chat template leaves out {what}: {one[:60]!r} is not written", fix=_FIX)


def _forms(one: str) -> tuple[str, ...]:
    """A text as it is, and as JSON writes it inside quotes, also as Jinja's `tojson` does."""
    plain = json.dumps(one, ensure_ascii=False)[1:-1]
    escaped = json.dumps(one)[1:-1]
    html = escaped
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        html = html.replace(sign, code)
    return one, one.strip(), plain, escaped, html
