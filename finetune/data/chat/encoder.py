"""Conversations to token ids and an exact mask of what the model must say itself: `ChatEncoder(tokenizer).encode(...)`.

Nothing here knows a model family: the mask comes from what the chat template writes (see `templates` and `turns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.data.chat.templates import Template, check_unicode
from finetune.data.chat.tokens import TextCoder, Tokens
from finetune.data.chat.turns import Plan, Proof, Turn, TurnFinder, flat
from finetune.data.rows import Message, Piece
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TurnSpan:
    """The tokens of one learned turn: from `first` up to, not including, `end`.

    `prompt_parity`: the tokens before `first` are those of `ChatEncoder.prompt` for the same context. It holds for the
    last turn; it can fail for an earlier one whose beginning the template writes otherwise once it is history.
    """

    first: int
    end: int
    ends_with_stop: bool
    prompt_parity: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A row as the model sees it.

    Attributes:
        input_ids: the tokens.
        trained: True where the token is a label.
        turns: one for each learned assistant turn.
        neutralised: control tokens that people wrote, which became ordinary text.
        stop_appended: the template writes no end-of-turn after the last answer; the tokenizer's eos was put there.
        spliced: the template begins a given answer otherwise than its generation prompt does; the last answer was put
            after the generation prompt, as at inference.
        rewritten: messages that the template does not reproduce word for word.
        proof: how the mask was found: by marked contents, by prefixes of the conversation, or plain text.
        starts: first character of each token, of a raw text that is to be cut into pieces.
        piece: which part of a raw text this is.
    """

    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    turns: tuple[TurnSpan, ...]
    neutralised: int = 0
    stop_appended: bool = False
    spliced: bool = False
    rewritten: int = 0
    proof: Proof = "sentinel"
    starts: NDArray[np.int32] | None = None
    piece: Piece | None = None


class ChatEncoder:
    """Turns conversations into tokens with one tokenizer and chat template, for training and for inference alike.

    Attributes:
        template: the chat template, with what was found out about it.
        stop_token_ids: the tokens that end an answer: what the template writes after one, and the tokenizer's eos.
        system_folded: the template takes no system message; its text is joined to the first user message.
        stop_appended, spliced, proof: what `Encoded` says, for a plain conversation. A row may differ.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        self.template = Template(tokenizer, template)
        self._coder = TextCoder(tokenizer)
        eos = _eos(tokenizer)
        self._eos = np.array(eos, dtype=np.int32)
        self._finder = TurnFinder(self.template, self._coder.control_pattern, tokenizer.eos_token if eos else None)
        self._stop_ids = {self._coder.control_ids[stop] for stop in self._finder.stops}
        self.stop_token_ids = tuple(sorted(self._stop_ids.union(eos)))
        plan = self._finder.plan(self.template.probe[0])
        self.stop_appended, self.spliced, self.proof = plan.append_stop, plan.spliced, plan.proof

    @property
    def system_folded(self) -> bool:
        return self.template.folds_system

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The conversation as the template writes it; raises FinetuneError with the template's words if it refuses."""
        return self.template.render(self.template.fold(messages), add_generation_prompt)

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Encode one conversation.

        Raises:
            FinetuneError: the template refuses it, leaves a message out, or rewrites an answer beyond recognition.
        """
        encoded = self.encode_many([messages])[0]
        if isinstance(encoded, FinetuneError):
            raise encoded
        return encoded

    def encode_many(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded | FinetuneError]:
        """Encode conversations in one batch; one that cannot be encoded gives its error instead."""
        plans = [self._try_plan(messages) for messages in conversations]
        tokens = iter(self._coder.encode_many([plan.text for plan in plans if isinstance(plan, Plan)]))
        return [self._try_assemble(plan, next(tokens)) if isinstance(plan, Plan) else plan for plan in plans]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the context and the generation prompt: exactly what stands before a last answer in training.

        Raises:
            FinetuneError: the template refuses the context or leaves a message out.
        """
        messages = self.template.fold(messages)
        layout = self.template.lay_out(messages, add_generation_prompt=True)
        self._finder.check_complete(messages, layout)
        ends = self._finder.prompt_ends(messages, layout.text).values()
        tokens, _ = self._coder.encode(layout.text, flat(layout), [end for end in ends if end is not None])
        return [int(token) for token in tokens.ids]

    def _try_plan(self, messages: Sequence[Message]) -> Plan | FinetuneError:
        try:
            return self._finder.plan(self.template.fold(messages))
        except FinetuneError as error:
            return error

    def _try_assemble(self, plan: Plan, whole: Tokens) -> Encoded | FinetuneError:
        try:
            return self._assemble(plan, whole)
        except FinetuneError as error:
            return error

    def _assemble(self, plan: Plan, whole: Tokens) -> Encoded:
        tokens, lengths = self._coder.encode(plan.text, plan.spans, plan.cuts, whole)
        counts = iter(lengths)
        ids = np.concatenate([tokens.ids, self._eos]) if plan.append_stop else tokens.ids
        trained = np.zeros(len(ids), dtype=np.bool_)
        turns = []
        for turn in plan.turns:
            before = next(counts) if turn.cut is not None else None
            if turn.learn:
                turns.append(self._turn_span(turn, tokens, before))
        if plan.append_stop:
            turns[-1] = TurnSpan(turns[-1].first, len(ids), True, turns[-1].prompt_parity)
        for span in turns:
            trained[span.first : span.end] = True
        return Encoded(
            input_ids=ids,
            trained=trained,
            turns=tuple(turns),
            neutralised=tokens.neutralised,
            stop_appended=plan.append_stop,
            spliced=plan.spliced,
            rewritten=plan.rewritten,
            proof=plan.proof,
        )

    def _turn_span(self, turn: Turn, tokens: Tokens, before: int | None) -> TurnSpan:
        first = before if before is not None else int(np.searchsorted(tokens.ends, turn.words[0], side="right"))
        if turn.stop is not None:
            stop = int(np.searchsorted(tokens.ends, turn.stop, side="right"))
            if stop < len(tokens.ids) and int(tokens.ids[stop]) in self._stop_ids:
                return TurnSpan(first, stop + 1, True, before is not None)
        end = int(np.searchsorted(tokens.starts, turn.words[1], side="left"))
        return TurnSpan(first, max(first, end), False, before is not None)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, longest: int | None = None
) -> list[Encoded]:
    """Encode raw texts in one batch, every token learned.

    BOS stands first where the tokenizer adds one to plain text, eos last. Control tokens that a text holds become
    ordinary text and are counted. Those of more than `longest` tokens come with the place of each token, to be cut.

    Raises:
        FinetuneError: a text is not valid Unicode.
    """
    control_pattern = TextCoder(tokenizer).control_pattern
    for text in texts:
        check_unicode(text)
    if not texts:
        return []
    batch = tokenizer(
        list(texts), return_attention_mask=False, return_token_type_ids=False, split_special_tokens=True, verbose=False
    )
    eos = _eos(tokenizer)
    rows = []
    for place, (text, numbers) in enumerate(zip(texts, batch["input_ids"], strict=True)):
        ids = np.array(numbers, dtype=np.int32)
        if eos and (not len(ids) or ids[-1] != eos[0]):
            ids = np.append(ids, np.int32(eos[0]))
        starts = None
        if longest is not None and len(ids) > longest:
            starts = np.full(len(ids), len(text), dtype=np.int32)
            starts[: len(numbers)] = [start for start, _ in batch.encodings[place].offsets]
            # Tokens that the tokenizer adds at the end have no place in the text
            starts = np.maximum.accumulate(starts)
        rows.append(
            Encoded(
                input_ids=ids,
                trained=np.ones(len(ids), dtype=np.bool_),
                turns=(TurnSpan(0, len(ids), bool(eos)),),
                neutralised=sum(1 for _ in control_pattern.finditer(text)),
                proof="text",
                starts=starts,
            )
        )
    return rows


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> Encoded:
    """Encode one raw text; see `encode_texts`."""
    return encode_texts(tokenizer, [text])[0]


def _eos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The id of the end of text; none where the tokenizer names one that is not in its vocabulary."""
    number = tokenizer.eos_token_id
    if number is None or tokenizer.convert_ids_to_tokens(number) != tokenizer.eos_token:
        return ()
    return (int(number),)
