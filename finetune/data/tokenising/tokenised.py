"""Every row of a corpus as tokens, on disk where there are many: `tokenise(room, splits, key=...)`.

A large corpus is tokenised once: its rows are taken from the cache until a byte of the files, the recipe's data
section, the tokenizer, the template or this package's code changes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from finetune.data.chat.encoder import ChatEncoder, Encoded
from finetune.data.rows import Example, Message, TokenRow
from finetune.data.store import MEMORY, Lazy, Store
from finetune.data.tokenising.encoding import WRITTEN, Encoding, Kept
from finetune.data.tokenising.token_cache import TokenCache
from finetune.hardware import cache_folder


@dataclass(slots=True)
class Tally:
    """What is counted over the rows of a split.

    `rows` are those that were read, `pieces` what raw texts became; `lengths` are tokens of each row that is learned.
    """

    rows: int = 0
    pieces: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    lengths: array[int] = field(default_factory=lambda: array("q"))

    def over(self, rows: Iterable[Kept]) -> Iterator[Kept]:
        """Count rows as they pass. Pieces of a text, and a row taken several times, stand one after another."""
        last = None
        for row in rows:
            if (row.source, row.id) != last:
                last = row.source, row.id
                self.rows += 1
                self.kept[row.source] += 1
            length = len(row.encoded.input_ids)
            self.pieces += row.encoded.proof == "text"
            self.tokens[row.source] += length
            self.lengths.append(length)
            yield row

    def spread(self) -> dict[str, int]:
        """Return median, 95th percentile and longest row, in tokens."""
        lengths = np.array(self.lengths if self.lengths else [0])
        return {
            "median": int(np.median(lengths)),
            "p95": int(np.percentile(lengths, 95)),
            "longest": int(lengths.max()),
        }


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The rows of each split with what was counted over them; `cached` is the file they were taken from, if any."""

    rows: Mapping[str, Store[Kept]]
    tallies: Mapping[str, Tally]
    cached: Path | None


def tokenise(room: Encoding, splits: Mapping[str, Sequence[Example]], *, key: Callable[[], str]) -> Tokenised:
    """Encode the rows of each split; those of `test` come with their example.

    Args:
        room: how rows are encoded; its account is complete afterwards.
        splits: rows by split.
        key: names what the tokens depend on; asked where the corpus is large enough for keeping them.
    """
    tallies = {split: Tally() for split in splits}
    large = sum(_bytes(examples) for examples in splits.values()) > MEMORY
    cache = TokenCache(cache_folder() / "tokens", WRITTEN)
    name = key() if large else ""
    found = cache.find(name) if large else None
    if found is not None:
        stores, account = found
        room.account.add(account)
        for split, store in stores.items():
            for _ in tallies[split].over(store):
                pass
        return Tokenised(stores, tallies, cache.path(name))
    made: dict[str, Store[Kept]] = {}
    for split, examples in splits.items():
        made[split] = Store(tallies[split].over(room.stream(examples, whole=split == "test")), classes=WRITTEN)
    account = room.account
    if large and not (account.refused or account.overlong):
        cache.keep(name, made, account)
    return Tokenised(made, tallies, None)


def _bytes(examples: Sequence[Example]) -> int:
    sizes = examples.sizes() if isinstance(examples, Lazy) else None
    return 0 if sizes is None else int(sizes.sum())


def token_row(kept: Kept) -> TokenRow:
    """Return a row as it is learned, without what else is known of it."""
    piece = kept.encoded.piece
    return TokenRow(piece.id if piece else kept.id, kept.encoded.input_ids, kept.encoded.trained, piece)


@dataclass(frozen=True, slots=True)
class TestItem:
    """A held-out row: what is asked, as token ids, and what ought to be answered.

    `rows` hold prompt and answer together with the answer marked, for likelihoods: one, or the pieces of a raw text
    that is longer than the maximum length, or one for each choice of an item that is answered by likelihood. `shots`
    are the turns of other rows that stand in the prompt as examples.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    example: Example
    prompt: tuple[int, ...]
    rows: tuple[TokenRow, ...]
    shots: tuple[Message, ...] = ()

    @property
    def row(self) -> TokenRow:
        """The row, or of a raw text the first piece, or of choices the first one."""
        return self.rows[0]

    @property
    def asked(self) -> tuple[Message, ...]:
        """The turns that are asked, as text: what `prompt` says in tokens."""
        return with_shots(self.example.context, self.shots)


def with_shots(context: Sequence[Message], shots: Sequence[Message]) -> tuple[Message, ...]:
    """Put example turns before a question, after its system message where it has one."""
    first = 1 if context and context[0].role == "system" else 0
    return (*context[:first], *shots, *context[first:])


def held_out(rows: Iterable[Kept], encoder: ChatEncoder | None) -> Iterator[TestItem]:
    """Make an item of each test row, and one of all the pieces of a raw text."""
    for _, run in groupby(rows, key=lambda kept: (kept.source, kept.id)):
        first, *others = run
        assert first.example is not None  # noqa: S101 - test rows are encoded with their example
        if first.encoded.proof == "text":
            yield TestItem(first.example, (), tuple(map(token_row, [first, *others])))
        else:
            assert encoder is not None  # noqa: S101 - conversations are encoded by one
            yield ask(first.example, first.encoded, encoder)


def ask(example: Example, encoded: Encoded, encoder: ChatEncoder, shots: Sequence[Message] = ()) -> TestItem:
    """Make an item of a conversation that was encoded with these example turns before its question."""
    last = encoded.turns[-1]
    marks = np.zeros_like(encoded.trained)
    marks[last.first : last.end] = True
    prompt = (
        encoded.input_ids[: last.first].tolist()
        if last.prompt_parity
        else encoder.prompt(with_shots(example.context, shots))
    )
    return TestItem(example, tuple(prompt), (TokenRow(example.id, encoded.input_ids, marks),), tuple(shots))


def ask_choices(
    example: Example, encoded: Sequence[Encoded], encoder: ChatEncoder, shots: Sequence[Message] = ()
) -> TestItem:
    """Make an item whose answer is the likeliest of several choices, each encoded as the answer.

    A row is the prompt and the choice, without the end-of-turn that the template writes after an answer: a choice is
    marked as far as the model has to choose it.
    """
    prompt = ask(example, encoded[0], encoder, shots).prompt
    rows = []
    for one in encoded:
        last = one.turns[-1]
        words = one.input_ids[last.first : last.end - last.ends_with_stop]
        marks = np.zeros(len(prompt) + len(words), dtype=np.bool_)
        marks[len(prompt) :] = True
        rows.append(TokenRow(example.id, np.concatenate([np.array(prompt, dtype=np.int32), words]), marks))
    return TestItem(example, prompt, tuple(rows), tuple(shots))
