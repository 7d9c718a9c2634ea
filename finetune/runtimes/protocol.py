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
    """A greedy answer: its tokens without the stop token, and whether it ended by itself (else it was cut).

    Where a stop text ended it, `text` ends before that text, and the tokens reach to where it was noticed.
    """

    token_ids: tuple[int, ...]
    text: str
    ended: bool

    @property
    def tokens(self) -> int:
        """How many tokens were generated."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Continuation:
    """How likely a continuation is: summed log probability in nats, and whether greedy decoding would say just that."""

    log_likelihood: float
    greedy: bool


class Runtime(Protocol):
    """Something that continues text and scores it."""

    name: str

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[int],
        until: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[Generation]:
        """Answer each prompt greedily, in the order given; a token of `stop` or a text of `until` ends an answer."""
        ...

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> list[float]:
        """Return, for each row of (token ids, which of them count), the summed log probability in nats."""
        ...

    def score_continuations(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[Continuation]]:
        """Return how likely each of a prompt's continuations is; prompts have a token or more, continuations too."""
        ...

    def choice_log_likelihoods(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """Return, for each prompt, the log probability in nats of each of its continuations."""
        ...

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return log p(next token) over the vocabulary at each position: float32 [length, vocabulary]."""
        ...

    def size_bytes(self) -> int:
        """Return the size of the weights in memory."""
        ...


def cut_at(text: str, stops: Sequence[str]) -> str | None:
    """Return what stands before the first of the stop texts, or None where there is none of them."""
    found = [place for place in (text.find(stop) for stop in stops if stop) if place >= 0]
    return text[: min(found)] if found else None
