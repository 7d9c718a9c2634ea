"""The values that travel through the data room: raw rows, conversations, and tokens with their mask."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row was read: file as the user wrote it, line counted from 1 (0 where lines mean nothing)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it stands in the file. `key` is its name in a keyed JSON object, or None."""

    origin: Origin
    fields: dict[str, Any]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `learn` is False for an assistant turn that is context only.

    `tool_calls` of an assistant turn are mappings as OpenAI writes them, with their arguments as a mapping; `name` and
    `tool_call_id` belong to a tool's turn. `tools` are the definitions that the whole conversation may call; they
    stand on its first turn.
    """

    role: Role
    content: str
    learn: bool = True
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str = ""
    tool_call_id: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def said(self) -> str:
        """The content, and below it the tool calls as compact JSON."""
        calls = [json.dumps(call["function"], ensure_ascii=False, separators=(",", ":")) for call in self.tool_calls]
        return "\n".join([self.content, *calls] if self.content else calls) if calls else self.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a row says, without its identity; `metadata` goes into the example's beside the row's short columns.

    What a scorer needs beside the reference (the database of a query, the tests of a program) travels in `metadata`
    and is never shown to the model. The other fields are those of `Example`.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None
    benchmark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row understood: a conversation that ends in an assistant turn, or raw text.

    Exactly one of `messages` and `text` is filled. `id` is unique within the corpus and stable between runs.
    `label` is the class name in classification data. `metadata` keeps the row's other short columns.
    `alternatives` are further right answers. `rejected` is the worse answer of a preference pair; `desirable` says of
    a single judged answer whether it is good. `source` names the part of a mixture that the row comes from,
    `benchmark` the benchmark it is of.
    """

    id: str
    origin: Origin
    messages: tuple[Message, ...] = ()
    text: str | None = None
    label: str | None = None
    group: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None
    source: str = ""
    benchmark: str = ""

    @property
    def reference(self) -> str:
        """The text that ought to be answered: the last assistant turn, or the whole text."""
        return self.text if self.text is not None else self.messages[-1].said

    @property
    def context(self) -> tuple[Message, ...]:
        """The turns before the last assistant turn."""
        return self.messages[:-1]

    def everything_said(self) -> str:
        """All the text of the row, for finding near-identical ones."""
        return self.text if self.text is not None else "\n".join(m.said for m in self.messages if m.role != "system")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, with the reason (few kinds, so that they can be counted) and the detail."""

    origin: Origin
    reason: str
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Where a piece of a long text comes from.

    Attributes:
        document: id of the text that was cut.
        number: its place among the text's pieces, counted from 1.
        tokens: which tokens of the text it holds, from the first up to, not including, the second number. Its first
            token is also the last one of the piece before it.
        characters: likewise which characters of the text; those of neighbours do not overlap.
    """

    document: str
    number: int
    tokens: tuple[int, int]
    characters: tuple[int, int]

    @property
    def id(self) -> str:
        return f"{self.document}#{self.number:04d}"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row ready to be learned: token ids (int32) and which of them are labels (bool), of equal length.

    `piece` says what part of a longer text it is; None where the text was not cut.
    """

    id: str
    input_ids: np.ndarray
    trained: np.ndarray
    piece: Piece | None = None

    @property
    def document(self) -> str:
        """The id of the row that was read, of which this may be a piece."""
        return self.piece.document if self.piece else self.id

    def __len__(self) -> int:
        return len(self.input_ids)
