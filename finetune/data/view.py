"""Look at what will be learned: rows with their trained tokens in colour, for the terminal and the notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from finetune.data.rows import TokenRow

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

# The text's colour is named too: on a dark page it would be light on light green
STYLE = "background:#d7f5dd;color:#14331c;border-bottom:2px solid #2a8a43"
NOT_LEARNED = "color:#808890"


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens that are all learned or all not, as text."""

    text: str
    trained: bool


def pieces(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> list[Piece]:
    """Return a row's text, divided where learning begins and ends."""
    runs = groupby(zip(row.input_ids.tolist(), row.trained.tolist(), strict=True), key=lambda pair: pair[1])
    return [Piece(str(tokenizer.decode([token for token, _ in run])), trained) for trained, run in runs]


def tokens(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Return each token of a row with its id, its text and whether it is learned."""
    return [
        {"id": token, "text": str(tokenizer.decode([token])), "trained": trained}
        for token, trained in zip(row.input_ids.tolist(), row.trained.tolist(), strict=True)
    ]


def as_rich(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> Text:
    """Return a row for the terminal: what is learned on green."""
    return rich_text(pieces(row, tokenizer))


def rich_text(found: Iterable[Piece]) -> Text:
    """Return pieces for the terminal: what is learned on green."""
    from rich.text import Text

    text = Text()
    for piece in found:
        text.append(piece.text, style="black on green" if piece.trained else "dim")
    return text


def as_html(row: TokenRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as an HTML block: what is learned underlined in green; everything is escaped."""
    spans = "".join(
        f'<span style="{STYLE}">{html.escape(piece.text)}</span>'
        if piece.trained
        else f'<span style="{NOT_LEARNED}">{html.escape(piece.text)}</span>'
        for piece in pieces(row, tokenizer)
    )
    return f'<pre style="white-space:pre-wrap;text-align:left">{spans}</pre>'
