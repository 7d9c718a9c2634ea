"""Turns of a row made into checked messages: `conversation(turns, system)`; what cannot be used is a `RowRefused`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from finetune.data.rows import Message, Role
from finetune.errors import nearest

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
_UNRENDERED = ("reasoning_content", "thinking", "refusal", "audio")
_AFTER: dict[str, tuple[Role, ...]] = {
    "": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


class RowRefused(Exception):
    """A row that cannot be used: one of few reasons, so that they can be counted, and the detail."""

    def __init__(self, reason: str, detail: str, fix: str = "") -> None:
        self.reason, self.detail, self.fix = reason, detail, fix
        super().__init__(detail)


def as_text(value: Any, what: str, *, empty: str) -> str:
    """Return a value as the text that is learned: strings untouched, numbers and truth values as JSON writes them.

    Args:
        value: what the row holds.
        what: its name in messages, e.g. "column 'answer'".
        empty: the reason given for null, an empty text, or one of white space only.

    Raises:
        RowRefused: empty, or neither text nor number.
    """
    if value is None:
        raise RowRefused(empty, f"{what} is null")
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise RowRefused("not text", f"{what} holds {shortened(value)}")
    if not value.strip():
        raise RowRefused(empty, f"{what} is {shortened(value)}")
    return value


def shortened(value: Any, length: int = 60) -> str:
    """Show the beginning of a value in a message."""
    text = repr(value[: length * 2] if isinstance(value, (str, list)) else value)
    return text if len(text) <= length else f"{text[:length]}..."


def is_turns(value: Any) -> bool:
    """Tell whether a value is a list of turns rather than any other list."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def turns_of(value: Any, what: str) -> list[Message]:
    """Read a list of turns, OpenAI's (role, content, tool_calls, weight) or ShareGPT's (from, value) and its kin.

    A turn is context only where `weight` is 0 or `train` is false.

    Raises:
        RowRefused: no list, an unknown role, content that is no text, or parts of a turn that cannot be rendered.
    """
    if value is None or value == []:
        raise RowRefused("empty prompt", f"{what} is {value!r}".replace("None", "null"))
    if not isinstance(value, list):
        raise RowRefused("not a list of turns", f"{what} holds {shortened(value)}")
    return [_turn(turn, f"turn {number} of {what}") for number, turn in enumerate(value, 1)]


def _turn(turn: Any, what: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RowRefused("not a list of turns", f"{what} is {shortened(turn)}")
    for part in _UNRENDERED:
        if turn.get(part):
            fix = "write it into the content, or drop the key"
            raise RowRefused("unsupported part of a turn", f"{what} has {part!r}: {shortened(turn[part])}", fix)
    role = _role(turn.get("role", turn.get("from")), what)
    content = next((turn[key] for key in ("content", "value", "text") if key in turn), None)
    calls = _tool_calls(turn, role, what)
    text = _joined_parts(content, what) if isinstance(content, list) else content
    if calls and text in (None, ""):
        text = ""
    elif role != "system" or not isinstance(text, str):
        text = as_text(text, what, empty="empty answer" if role == "assistant" else "empty prompt")
    name, identity = (str(turn.get(key) or "") if role == "tool" else "" for key in ("name", "tool_call_id"))
    return Message(role, text, _is_learned(turn, what), calls, name, identity)


def _is_learned(turn: Mapping[str, Any], what: str) -> bool:
    weight, train = turn.get("weight"), turn.get("train")
    if weight is not None and weight not in (0, 1):
        raise RowRefused("bad weight", f"{what} has weight {weight!r}", "use 0 (context only) or 1 (learned)")
    if train is not None and not isinstance(train, bool):
        raise RowRefused("bad weight", f"{what} has train {train!r}", "use false (context only) or true (learned)")
    return weight != 0 and train is not False


def _role(name: Any, what: str) -> Role:
    folded = name.strip().lower() if isinstance(name, str) else ""
    if folded not in _ROLES:
        near = nearest(folded, _ROLES)
        known = f"known roles: {', '.join(get_args(Role))}, human, gpt"
        raise RowRefused(
            "unknown role", f"{what} has role {name!r}", f"did you mean {near!r}? {known}" if near else known
        )
    return _ROLES[folded]


def _joined_parts(parts: Sequence[Any], what: str) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowRefused("not text", f"{what} has a part that is no text: {shortened(part)}")
        texts.append(part["text"])
    return "".join(texts)


# ------------------------------------------------------------------------------------------------------------ tools


def _tool_calls(turn: Mapping[str, Any], role: Role, what: str) -> tuple[dict[str, Any], ...]:
    """Return the calls of a turn, `function_call` among them, with their arguments as mappings."""
    calls = list(turn.get("tool_calls") or [])
    if turn.get("function_call"):
        calls.append({"function": turn["function_call"]})
    if calls and role != "assistant":
        raise RowRefused("bad tool call", f"{what} is of {role!r} and calls a tool")
    return tuple(_tool_call(call, f"call {number} of {what}") for number, call in enumerate(calls, 1))


def _tool_call(call: Any, what: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        fix = "write {type: function, function: {name: ..., arguments: {...}}}"
        raise RowRefused("bad tool call", f"{what} is {shortened(call)}", fix)
    arguments = _from_json(function.get("arguments", {}))
    if not isinstance(arguments, Mapping):
        raise RowRefused("bad tool call", f"{what} has arguments {shortened(arguments)}", "write a JSON object")
    identity = {"id": call["id"]} if call.get("id") else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}


def tools_of(value: Any, what: str) -> tuple[dict[str, Any], ...]:
    """Read the definitions of the tools that a conversation may call: OpenAI's, bare functions, or JSON text of these.

    Raises:
        RowRefused: something else than a list of definitions with names.
    """
    given = _from_json(value)
    if given in (None, "", [], {}):
        return ()
    tools = []
    for number, tool in enumerate(given if isinstance(given, list) else [given], 1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            fix = "write {type: function, function: {name: ..., description: ..., parameters: {...}}}"
            raise RowRefused("bad tool definition", f"tool {number} of {what} is {shortened(tool)}", fix)
        tools.append({"type": "function", "function": dict(function)})
    return tuple(tools)


def _from_json(value: Any) -> Any:
    """Return what a text says as JSON; what is no JSON, or no text, as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


# ------------------------------------------------------------------------------------------------------ transcripts

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?: |\Z|(?=\n))")


def is_transcript(value: Any) -> bool:
    """Tell whether a text is a conversation written as `Human: ...`, a blank line, `Assistant: ...`."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript_turns(text: str, what: str) -> list[Message]:
    """Read a transcript in which each turn begins with `Human:` or `Assistant:` after a blank line.

    Args:
        text: the transcript.
        what: its name in messages.

    Raises:
        RowRefused: a turn is empty.
    """
    marks = list(_SPEAKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    turns = []
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True), 1):
        role: Role = "user" if mark[1] == "Human" else "assistant"
        empty = "empty answer" if role == "assistant" else "empty prompt"
        turns.append(Message(role, as_text(text[mark.end() : end], f"turn {number} of {what}", empty=empty)))
    return turns


# ------------------------------------------------------------------------------------------------------------ order


def conversation(turns: Sequence[Message], system: str | None) -> tuple[Message, ...]:
    """Check the order of the turns and put `system` first where they have no system turn of their own.

    Raises:
        RowRefused: roles do not alternate, no answer at the end, or nothing in it is learned.
    """
    own = turns[:1] if turns and turns[0].role == "system" else []
    before = ""
    for number, turn in enumerate(turns[len(own) :], len(own) + 1):
        if turn.role not in _AFTER[before]:
            place = f"after {before!r}" if before else "as the first turn"
            raise RowRefused("roles do not alternate", f"turn {number} is {turn.role!r} {place}")
        before = turn.role
    if before != "assistant":
        raise RowRefused("no assistant answer", f"the last turn is {before or 'system'!r}")
    if not any(turn.learn for turn in turns if turn.role == "assistant"):
        raise RowRefused("nothing to learn", "every assistant turn has weight 0")
    if own or system is None:
        return tuple(turns)
    return Message("system", system), *turns
