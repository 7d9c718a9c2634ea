"""Examples to tokens within the maximum length; what does not fit is cut, left out or refused, and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from finetune.data.chat.encoder import ChatEncoder, Encoded, TurnSpan, encode_texts
from finetune.data.rows import Example, Message, Origin, Piece, Rejected
from finetune.data.store import Lazy, portions
from finetune.data.tokenising.pieces import cut
from finetune.data.tokenising.workers import available, in_order
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# How many rows of one kind of fault are told one by one
TOLD = 10


# Rows and bytes that are encoded at once, and how much text is worth starting processes for
_ROWS, _BYTES, _DIVIDED = 256, 1 << 20, 8 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A row as it is learned: whose it is and its tokens; `example` is the row itself, cut if it was, where asked."""

    id: str
    source: str
    encoded: Encoded
    example: Example | None = None


@dataclass(slots=True)
class Account:
    """What became of rows that could not be kept as they are.

    `cut` are the rows whose prompt was cut. Of rows that refuse the run the first are kept, and how many there are.
    """

    dropped: list[Rejected] = field(default_factory=list)
    cut: list[Example] = field(default_factory=list)
    truncated: int = 0
    overlong: int = 0
    longest: int = 0
    overlong_first: list[str] = field(default_factory=list)
    refused: int = 0
    refused_first: list[Problem] = field(default_factory=list)

    def add(self, other: Account) -> None:
        """Take in the account of the rows that follow."""
        self.dropped += other.dropped
        self.cut += other.cut
        self.truncated += other.truncated
        self.overlong += other.overlong
        self.longest = max(self.longest, other.longest)
        self.overlong_first = [*self.overlong_first, *other.overlong_first][:3]
        self.refused += other.refused
        self.refused_first = [*self.refused_first, *other.refused_first][:TOLD]


# What travels from process to process and into files, in the order that gives each its number
WRITTEN = (Kept, Account, Encoded, TurnSpan, Piece, Example, Message, Origin, Rejected, Problem)


class Encoding:
    """Encodes examples within the maximum length, and keeps account of what does not fit."""

    def __init__(
        self, section: DataSection, tokenizer: PreTrainedTokenizerBase, encoder: ChatEncoder | None, where: str
    ) -> None:
        self.section = section
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.where = where
        self.account = Account()

    def stream(
        self, examples: Sequence[Example], *, whole: bool = False, processes: int | None = None
    ) -> Iterator[Kept]:
        """Encode what fits, or can be made to fit as the recipe says, some rows at a time.

        Args:
            examples: the rows.
            whole: give the example with its tokens.
            processes: how many to divide the work among; unset takes this one for small corpora, else one for each
                core. The results are the same in the same order.
        """
        runs = portions(examples, most=_ROWS, size=_BYTES)

        def work(number: int) -> tuple[list[Kept], Account]:
            run = Encoding(self.section, self.tokenizer, self.encoder, self.where)
            return run.encode(examples[runs[number].start : runs[number].stop], whole=whole), run.account

        if processes is None:
            sizes = examples.sizes() if isinstance(examples, Lazy) else None
            processes = available() if sizes is not None and sizes.sum() >= _DIVIDED else 1
        for kept, account in in_order(work, len(runs), processes=processes, classes=WRITTEN):
            self.account.add(account)
            yield from kept

    def encode(self, examples: Sequence[Example], *, whole: bool = False) -> list[Kept]:
        """Encode some rows at once; see `stream`."""
        kept = []
        for raw, run in groupby(examples, key=lambda example: example.text is not None):
            batch = list(run)
            found = self._pieces(batch) if raw else self._conversations(batch)
            kept += [Kept(example.id, example.source, made, example if whole else None) for example, made in found]
        return kept

    def _conversations(self, examples: Sequence[Example]) -> Iterator[tuple[Example, Encoded]]:
        assert self.encoder is not None  # noqa: S101 - a corpus without one has raw texts only
        results = self.encoder.encode_many([example.messages for example in examples])
        for example, result in zip(examples, results, strict=True):
            if isinstance(result, FinetuneError):
                self._refuse(example, result)
            elif len(result.input_ids) <= self.section.max_length:
                yield example, result
            elif self.section.overlong == "truncate_prompt":
                yield from self._shorten(example, result)
            else:
                self._leave_out(example, len(result.input_ids))

    def _refuse(self, example: Example, error: FinetuneError) -> None:
        problem = error.problems[0]
        if self.section.on_bad_row == "drop":
            reason = "refused by the chat template"
            self.account.dropped.append(Rejected(example.origin, reason, problem.what, problem.fix))
            return
        self.account.refused += 1
        if len(self.account.refused_first) < TOLD:
            what = f"this row cannot be written in chat form: {problem.what}"
            self.account.refused_first.append(Problem(str(example.origin), what, ""))

    def _leave_out(self, example: Example, length: int) -> None:
        if self.section.overlong == "drop":
            detail = f"{length:,} tokens, at most {self.section.max_length:,}"
            self.account.dropped.append(Rejected(example.origin, "longer than max_length", detail))
            return
        self.account.overlong += 1
        self.account.longest = max(self.account.longest, length)
        if len(self.account.overlong_first) < 3:
            self.account.overlong_first.append(f"{example.origin} ({length:,})")

    def _pieces(self, examples: Sequence[Example]) -> Iterator[tuple[Example, Encoded]]:
        """Cut long texts into consecutive pieces; nothing of them is lost."""
        texts = [example.text or "" for example in examples]
        encoded = encode_texts(self.tokenizer, texts, longest=self.section.max_length)
        for example, text, whole in zip(examples, texts, encoded, strict=True):
            if whole.starts is None:
                yield example, whole
                continue
            self.account.truncated += 1
            for piece in cut(example.id, text, whole.starts, self.section.max_length):
                yield example, _piece(whole, piece)

    def _shorten(self, example: Example, encoded: Encoded) -> list[tuple[Example, Encoded]]:
        """Cut the longest user turn from its start until the row fits; the answer is never cut."""
        assert self.encoder is not None  # noqa: S101 - only conversations have prompts
        messages = list(example.messages)
        excess = len(encoded.input_ids) - self.section.max_length
        for _ in range(8):
            users = [index for index, message in enumerate(messages[:-1]) if message.role == "user"]
            if not users:
                break
            longest = max(users, key=lambda index: len(messages[index].content))
            shorter = _without_start(messages[longest], excess, self.tokenizer)
            if not shorter.content.strip():
                break
            messages[longest] = shorter
            result = self.encoder.encode_many([messages])[0]
            if isinstance(result, FinetuneError):
                break
            if len(result.input_ids) <= self.section.max_length:
                self.account.truncated += 1
                self.account.cut.append(example)
                return [(replace(example, messages=tuple(messages)), result)]
            excess = len(result.input_ids) - self.section.max_length
        reason = "longer than max_length without its prompt"
        self.account.dropped.append(Rejected(example.origin, reason, f"{len(encoded.input_ids):,} tokens"))
        return []

    def raise_problems(self) -> None:
        """Refuse rows that do not fit or that the template refuses, all of them at once.

        Raises:
            FinetuneError: there are such rows and the recipe does not say to drop them.
        """
        account, limit = self.account, self.section.max_length
        problems = list(account.refused_first)
        if account.refused > TOLD:
            problems.append(Problem("", f"and {account.refused - TOLD:,} more rows that the template refuses"))
        if account.overlong:
            examples = ", ".join(account.overlong_first)
            what = f"{account.overlong:,} rows are longer than max_length {limit:,}: {examples}"
            fix = f"set data.max_length to {account.longest} or more, or data.overlong to truncate_prompt or drop"
            problems.append(Problem(self.where, what, fix))
        if problems:
            raise FinetuneError.of(problems)

    def notes(self, encoder: ChatEncoder | None) -> list[Problem]:
        """Say what the encoding changed."""
        notes = []
        shortened = len(self.account.cut)
        for count, how in (
            (self.account.truncated - shortened, "raw texts were cut into pieces"),
            (shortened, "rows had their prompt cut from its start"),
        ):
            if count:
                notes.append(Problem(self.where, f"{count:,} {how} to fit max_length", "", "note"))
        if encoder is not None and encoder.system_folded:
            what = "the chat template takes no system message; it was put before the first user message"
            notes.append(Problem("model.chat_template", what, "", "note"))
        if encoder is not None and encoder.template.dated:
            what = "the chat template writes today's date, so a run resumed on another day learns from other tokens"
            notes.append(Problem("model.chat_template", what, "set model.chat_template to one without it", "warning"))
        return notes


def _piece(whole: Encoded, piece: Piece) -> Encoded:
    first, end = piece.tokens
    return replace(
        whole,
        input_ids=whole.input_ids[first:end],
        trained=whole.trained[first:end],
        turns=(),
        neutralised=whole.neutralised if piece.number == 1 else 0,
        starts=None,
        piece=piece,
    )


def _without_start(message: Message, tokens: int, tokenizer: PreTrainedTokenizerBase) -> Message:
    """Return a message without its first `tokens` tokens, cut between characters."""
    offsets = tokenizer(message.content, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    cut = offsets[tokens][0] if tokens < len(offsets) else len(message.content)
    return replace(message, content=message.content[cut:])
