"""The values that travel through the data room: raw rows, conversations, and tokens with their mask."""

from __future__ import annotations

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
    """One turn. `learn` is False for an assistant turn that is context only."""

    role: Role
    content: str
    learn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row understood: a conversation that ends in an assistant turn, or raw text.

    Exactly one of `messages` and `text` is filled. `id` is unique within the corpus and stable between runs.
    `label` is the class name in classification data. `metadata` keeps the row's other short columns.
    """

    id: str
    origin: Origin
    messages: tuple[Message, ...] = ()
    text: str | None = None
    label: str | None = None
    group: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The text that ought to be answered: the last assistant turn, or the whole text."""
        return self.text if self.text is not None else self.messages[-1].content

    @property
    def context(self) -> tuple[Message, ...]:
        """The turns before the last assistant turn."""
        return self.messages[:-1]

    def everything_said(self) -> str:
        """All the text of the row, for finding near-identical ones."""
        return self.text if self.text is not None else "\n".join(m.content for m in self.messages if m.role != "system")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, with the reason (few kinds, so that they can be counted) and the detail."""

    origin: Origin
    reason: str
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row ready to be learned: token ids (int32) and which of them are labels (bool), of equal length."""

    id: str
    input_ids: np.ndarray
    trained: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)
