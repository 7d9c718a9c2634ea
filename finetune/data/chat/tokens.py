"""Text to token ids with character offsets, keeping written control tokens text: `TextCoder(tokenizer).encode(...)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
Ids = NDArray[np.int32]

# Text put before a piece that continues other text, so that SentencePiece adds no space of its own; the first one
# that does not melt into the piece is used.
_ANCHORS = ("\n", "a", ".", "0")
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids and the characters each stands for, `starts` inclusive and `ends` exclusive."""

    ids: Ids
    starts: Ids
    ends: Ids
    neutralised: int = 0

    def moved(self, characters: int, skip: int = 0) -> Tokens:
        """Without the first `skip` tokens, offsets moved by `characters`."""
        return Tokens(self.ids[skip:], self.starts[skip:] + characters, self.ends[skip:] + characters, self.neutralised)

    def begins_with(self, ids: Ids) -> bool:
        return bool(np.array_equal(self.ids[: len(ids)], ids))


class TextCoder:
    """Tokenises rendered conversations.

    `encode(text, spans, cuts)`: control tokens that stand inside `spans` (what people wrote) become ordinary text;
    the tokens before each of `cuts` are exactly those of the text before it tokenised alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise FinetuneError(
                "this tokenizer gives no character offsets, so that no mask can be computed",
                fix="use a model with a tokenizer.json",
            )
        self._tokenizer = tokenizer
        named = set(tokenizer.all_special_ids)
        controls = {
            number: token
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special or number in named
        }
        self.control_ids: dict[str, int] = {token.content: number for number, token in controls.items()}
        self._flags = {token.content: (token.lstrip, token.rstrip) for token in controls.values()}
        self._control_table = np.zeros(max(controls, default=0) + 2, dtype=np.bool_)
        self._control_table[list(controls)] = True
        longest_first = sorted(self.control_ids, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._prompt_ends: dict[str, Ids] = {}
        self._joins_plainly = self._agrees("\n")
        self._joins_controls_plainly = not longest_first or self._agrees(longest_first[-1])

    def encode_many(self, texts: Sequence[str], *, as_text: bool = False) -> list[Tokens]:
        """Tokenise whole texts in one batch; `as_text` lets no special token through."""
        if not texts:
            return []
        batch = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=as_text,
            verbose=False,
        )
        return [_tokens(ids, offsets) for ids, offsets in zip(batch["input_ids"], batch["offset_mapping"], strict=True)]

    def encode(
        self, text: str, spans: Sequence[Span], cuts: Sequence[int], whole: Tokens | None = None
    ) -> tuple[Tokens, list[int]]:
        """Tokenise `text`; also return the number of tokens before each of the ascending `cuts`.

        `whole` is `encode_many([text])[0]` where the caller has it. It is the answer unless a control token stands in
        `spans` or a token reaches over a cut. In the latter case the text before the cut is tokenised alone and the
        rest as its continuation, because that is what happens at inference.

        Raises:
            FinetuneError: the tokenizer makes a control token out of ordinary text.
        """
        whole = whole if whole is not None else self.encode_many([text])[0]
        if not self._written_controls(text, whole, spans):
            lengths = [self._prompt_length(text, whole, cut) for cut in cuts]
            if None not in lengths:
                return whole, [length for length in lengths if length is not None]
        done: Tokens | None = None
        done_at, counts = 0, []
        for cut in (*cuts, len(text)):
            tokens = self._encode_spans(text[:cut], _clipped(spans, cut))
            if done is not None and not tokens.begins_with(done.ids):
                rest = self._continue(text[done_at:cut], _clipped(spans, cut, done_at)).moved(done_at)
                tokens = _joined([done, rest])
            done, done_at = tokens, cut
            counts.append(len(tokens.ids))
        assert done is not None  # noqa: S101 - the loop runs at least once, for the whole text
        return done, counts[:-1]

    def _controls(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of the ids are control tokens; the table ends in False, which stands for all larger ids."""
        return self._control_table.take(ids, mode="clip")

    def _agrees(self, before: str) -> bool:
        """Whether text after `before` gets the tokens that it gets alone."""
        both, first, second = (tokens.ids for tokens in self.encode_many([f"{before}a", before, "a"]))
        return bool(np.array_equal(both, np.concatenate([first, second])))

    def _written_controls(self, text: str, whole: Tokens, spans: Sequence[Span]) -> int:
        """Count the control tokens of `whole` that stand, wholly or partly, inside `spans`."""
        found = 0
        for place in np.flatnonzero(self._controls(whole.ids)):
            start, end = int(whole.starts[place]), int(whole.ends[place])
            # Unknown characters become the unknown token, which is a control token without being written as one.
            if text[start:end].strip() in self.control_ids:
                found += any(start < last and end > first for first, last in spans)
        return found

    def _prompt_length(self, text: str, whole: Tokens, cut: int) -> int | None:
        """Number of tokens that `text[:cut]` has alone, if `whole` begins with exactly those, else None.

        Control tokens split a text into independent parts, so that the part from the last one to the cut decides. In
        most templates it is the same for all conversations.
        """
        before = int(np.searchsorted(whole.starts, cut, side="left"))
        controls = np.flatnonzero(self._controls(whole.ids[:before]))
        first = int(controls[-1]) if len(controls) else 0
        end = text[int(whole.starts[first]) if len(controls) else 0 : cut]
        ids = self._prompt_ends.get(end)
        if ids is None:
            ids = self.encode_many([end])[0].ids
            if len(self._prompt_ends) < _REMEMBERED:
                self._prompt_ends[end] = ids
        return first + len(ids) if np.array_equal(whole.ids[first : first + len(ids)], ids) else None

    def _encode_spans(self, text: str, spans: Sequence[Span]) -> Tokens:
        """Tokenise `text` with the control tokens inside `spans` as ordinary text."""
        whole = self.encode_many([text])[0]
        written = self._written_controls(text, whole, spans)
        if not written:
            return whole
        masked = list(text)
        for first, last in spans:
            masked[first:last] = "\0" * (last - first)
        pieces, place, strip = [], 0, False
        for match in self.control_pattern.finditer("".join(masked)):
            lstrip, rstrip = self._flags[match[0]]
            pieces.append(self._as_text(text, place, match.start(), strip, lstrip))
            control = np.array([self.control_ids[match[0]]], dtype=np.int32)
            pieces.append(Tokens(control, _one(match.start()), _one(match.end())))
            place, strip = match.end(), rstrip
        pieces.append(self._as_text(text, place, len(text), strip, False))
        joined = _joined(pieces)
        return Tokens(joined.ids, joined.starts, joined.ends, written)

    def _as_text(self, text: str, start: int, end: int, strip_left: bool, strip_right: bool) -> Tokens:
        """Tokenise `text[start:end]`, which stands between control tokens, without letting another one through."""
        piece = text[start:end]
        if strip_left:
            piece = piece.lstrip()
        start = end - len(piece)
        if strip_right:
            piece = piece.rstrip()
        if not piece:
            return _joined([])
        if start == 0 or self._joins_controls_plainly:
            tokens = self.encode_many([piece], as_text=True)[0]
        else:
            tokens = self._after_anchor(piece, (), as_text=True)
        for place in np.flatnonzero(self._controls(tokens.ids)):
            word = piece[int(tokens.starts[place]) : int(tokens.ends[place])].strip()
            if word in self.control_ids:
                raise FinetuneError(
                    f"the text holds {word!r}, which this tokenizer cannot write as ordinary text",
                    fix="remove it from the row",
                )
        return tokens.moved(start)

    def _continue(self, text: str, spans: Sequence[Span]) -> Tokens:
        """Tokenise text that follows other text."""
        if self._joins_plainly or not text:
            return self._encode_spans(text, spans)
        return self._after_anchor(text, spans, as_text=False)

    def _after_anchor(self, text: str, spans: Sequence[Span], *, as_text: bool) -> Tokens:
        for anchor in _ANCHORS:
            head = self.encode_many([anchor])[0].ids
            moved = [(first + len(anchor), last + len(anchor)) for first, last in spans]
            both = (
                self.encode_many([anchor + text], as_text=True)[0]
                if as_text
                else self._encode_spans(anchor + text, moved)
            )
            if both.begins_with(head) and (both.starts[len(head) :] >= len(anchor)).all():
                return both.moved(-len(anchor), skip=len(head))
        return self.encode_many([text], as_text=True)[0] if as_text else self._encode_spans(text, spans)


def _tokens(ids: Sequence[int], offsets: Sequence[Span]) -> Tokens:
    # Twice as fast as np.array of a list of pairs
    places = np.fromiter(chain.from_iterable(offsets), dtype=np.int32, count=2 * len(ids)).reshape(-1, 2)
    return Tokens(np.array(ids, dtype=np.int32), places[:, 0], places[:, 1])


def _one(value: int) -> Ids:
    return np.array([value], dtype=np.int32)


def _joined(pieces: Sequence[Tokens]) -> Tokens:
    if not pieces:
        return Tokens(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    return Tokens(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.starts for piece in pieces]),
        np.concatenate([piece.ends for piece in pieces]),
        sum(piece.neutralised for piece in pieces),
    )


def _clipped(spans: Iterable[Span], end: int, start: int = 0) -> list[Span]:
    """The parts of the spans between two places, counted from `start`."""
    return [
        (max(first, start) - start, min(last, end) - start) for first, last in spans if first < end and last > start
    ]
