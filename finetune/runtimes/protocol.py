"""The protocol of a runtime. All texts go in and out as token ids of the tokenizer that the model was trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

# Called with the number of items done so far
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Generation:
    """A greedy answer: its tokens without the stop token, and whether a stop token ended it (else it was cut)."""

    token_ids: tuple[int, ...]
    text: str
    ended: bool


class Runtime(Protocol):
    """Something that continues text and scores it."""

    name: str

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, stop: Sequence[int], progress: Progress | None
    ) -> list[Generation]:
        """Answer each prompt greedily, in the order given."""
        ...

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        """Return, for each row of (token ids, which of them count), the summed log probability in nats."""
        ...

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return log p(next token) over the vocabulary at each position: float32 [length, vocabulary]."""
        ...

    def size_bytes(self) -> int:
        """Return the size of the weights in memory."""
        ...
