"""From a recipe's `data` to rows of tokens: read, recognise, understand, split, encode, certify.

`prepare(recipe, tokenizer)` is the data stage; everything it leaves out is counted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.certificate import Accounting, Certificate, certify
from finetune.data.chat import ChatEncoder, Encoded
from finetune.data.encoding import TOLD, Encoding
from finetune.data.formats import labels as labels_of
from finetune.data.formats import to_examples
from finetune.data.recognise import Recognition, recognise
from finetune.data.rows import Example, Rejected, TokenRow
from finetune.data.sources import Source, read_rows
from finetune.data.splits import Division, divide, load_test_ids, overlap, sample
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import PretrainObjective, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TestItem:
    """A held-out row: what is asked, as token ids, and what ought to be answered.

    `rows` hold prompt and answer together with the answer marked, for likelihoods: one, or the pieces of a raw text
    that is longer than the maximum length.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    example: Example
    prompt: tuple[int, ...]
    rows: tuple[TokenRow, ...]

    @property
    def row(self) -> TokenRow:
        """The row, or of a raw text the first piece."""
        return self.rows[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The corpus ready to be learned."""

    train: list[TokenRow]
    validation: list[TokenRow]
    test: list[TestItem]
    certificate: Certificate
    recognition: Recognition
    labels: tuple[str, ...] | None
    train_references: list[str]
    stop: tuple[int, ...]
    dropped: list[Rejected]
    raw_text: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows understood and divided, before any tokenizer has seen them."""

    division: Division
    train: list[Example]
    recognition: Recognition
    labels: tuple[str, ...] | None
    sources: tuple[Source, ...]
    dropped: list[Rejected]


def read_corpus(recipe: Recipe) -> Corpus:
    """Read, recognise, understand and divide the rows; needs no model.

    Raises:
        FinetuneError: unreadable files, unknown format, bad rows (unless `on_bad_row: drop`), an impossible split.
    """
    section = recipe.data
    source = read_rows(section.train, where=recipe.where("data.train"))
    require_rows(source.rows, source.rejected)
    recognition = recognise(source.rows, section, where=recipe.where("data.format"))
    _check_objective(recipe, recognition)
    examples, rejected = to_examples(source.rows, recognition, section, where=recipe.where("data"))
    labels = _known_labels(examples)
    sources, dropped = [source], [*source.rejected, *rejected]
    require_rows(examples, dropped)
    given: dict[str, list[Example]] = {}
    for name, spec in (("validation", section.validation), ("test", section.test)):
        if spec is not None:
            other = read_rows(spec, where=recipe.where(f"data.{name}"))
            more, bad = to_examples(other.rows, recognition, section, labels=labels)
            require_rows(more, [*other.rejected, *bad])
            given[name] = more
            sources.append(other)
            dropped += [*other.rejected, *bad]
    if section.on_bad_row == "error" and dropped:
        fix = "mend them, or set data.on_bad_row: drop to leave them out"
        raise FinetuneError.of(bad_row_problems(dropped, fix=fix))
    division = divide(
        examples,
        section.split,
        has_validation="validation" in given,
        has_test="test" in given,
        test_ids=load_test_ids(section.split.test_ids, where=recipe.where("data.split.test_ids"))
        if section.split.test_ids
        else None,
        where=recipe.where("data.split"),
    )
    notes = [*recognition.notes, *division.notes]
    if "test" in given:
        notes += overlap(division.train, given["test"], where=recipe.where("data.test"))
    division = replace(
        division,
        notes=tuple(notes),
        validation=given.get("validation", division.validation),
        test=given.get("test", division.test),
    )
    return Corpus(
        division,
        sample(division.train, section.sample, where=recipe.where("data.sample")),
        recognition,
        labels,
        tuple(sources),
        dropped,
    )


def _known_labels(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """Return the classes where every answer is one of them, else None."""
    known = tuple(labels_of(examples))
    return known if known and all(example.reference in known for example in examples) else None


def _check_objective(recipe: Recipe, recognition: Recognition) -> None:
    raw = recognition.format == "text"
    if raw and not isinstance(recipe.objective, PretrainObjective):
        raise FinetuneError(
            "these rows are raw text without question and answer",
            where=recipe.where("data.train"),
            fix="set objective: {kind: pretrain}, or say under data.columns which columns are prompt and completion",
        )
    if not raw and isinstance(recipe.objective, PretrainObjective):
        raise FinetuneError(
            f"objective pretrain learns raw text, and these rows are {recognition.format}",
            where=recipe.where("objective.kind"),
            fix="set objective: {kind: sft}, or data.format: text with data.columns: {text: COLUMN}",
        )


def require_rows(rows: Sequence[object], rejected: Sequence[Rejected]) -> None:
    """Refuse a file of which nothing can be used, whatever the recipe says of bad rows; say why nothing can.

    Raises:
        FinetuneError: there are no rows, only rejected ones.
    """
    if rejected and not rows:
        raise FinetuneError.of(bad_row_problems(rejected, fix="mend them: no other rows are left"))


def bad_row_problems(dropped: Sequence[Rejected], *, fix: str) -> list[Problem]:
    """Tell bad rows: the first few of each kind, then how many more there are; `fix` goes with the last."""
    kinds = Counter(bad.reason for bad in dropped)
    told: Counter[str] = Counter()
    problems = []
    for bad in dropped:
        told[bad.reason] += 1
        if told[bad.reason] <= TOLD:
            problems.append(Problem(str(bad.origin), f"{bad.reason}: {bad.detail}", bad.fix))
    for reason, count in kinds.items():
        if count > TOLD:
            problems.append(Problem("", f"and {count - TOLD:,} more rows: {reason}"))
    return [*problems[:-1], replace(problems[-1], fix=problems[-1].fix or fix)] if problems else []


def prepare(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, context_length: int | None) -> Prepared:
    """Do the whole data stage.

    Args:
        recipe: the recipe; its paths are absolute.
        tokenizer: of the base model, with its chat template.
        context_length: longest text the model takes, in tokens; None where it does not say.

    Raises:
        FinetuneError: all that `read_corpus` refuses; rows over the maximum length (`overlong: error`); a chat
            template that refuses rows.
    """
    section = recipe.data
    if context_length is not None and section.max_length > context_length:
        raise FinetuneError(
            f"max_length {section.max_length} is more than the model's context of {context_length} tokens",
            where=recipe.where("data.max_length"),
            fix=f"set data.max_length to {context_length} or less",
        )
    corpus = read_corpus(recipe)
    raw = corpus.recognition.format == "text"
    encoder = None if raw else ChatEncoder(tokenizer)
    room = Encoding(section, tokenizer, encoder, recipe.where("data.max_length"))
    train = room.encode(corpus.train)
    validation = room.encode(corpus.division.validation)
    test = room.encode(corpus.division.test)
    dropped = [*corpus.dropped, *room.dropped]
    room.raise_problems()
    stop = encoder.stop_token_ids if encoder else (int(tokenizer.eos_token_id),)
    notes = [*corpus.division.notes, *room.notes(encoder)]
    accounting = Accounting(
        format=corpus.recognition.format,
        why=corpus.recognition.why,
        files={path: digest for source in corpus.sources for path, digest in source.files.items()},
        rows_read=sum(len(source.rows) + len(source.rejected) for source in corpus.sources),
        dropped=dict(Counter(bad.reason for bad in dropped)),
        left_out_by_sampling=len(corpus.division.train) - len(corpus.train),
        splits={
            "train": len({example.id for example, _ in train}),
            "validation": len({example.id for example, _ in validation}),
            "test": len({example.id for example, _ in test}),
        },
        truncated=room.truncated,
    )
    certificate = certify(
        [encoded for _, encoded in train],
        accounting,
        where=recipe.where("data.train"),
        bos_token_id=tokenizer.bos_token_id,
        stop_tokens=[str(tokenizer.convert_ids_to_tokens(token)) for token in stop],
        template=str(tokenizer.chat_template) if encoder else "",
        notes=notes,
    )
    return Prepared(
        train=[_token_row(example, encoded) for example, encoded in train],
        validation=[_token_row(example, encoded) for example, encoded in validation],
        test=_test_items(test, encoder),
        certificate=certificate,
        recognition=corpus.recognition,
        labels=corpus.labels,
        train_references=[example.reference for example in corpus.train],
        stop=stop,
        dropped=dropped,
        raw_text=raw,
    )


def _token_row(example: Example, encoded: Encoded) -> TokenRow:
    return TokenRow(example.id, encoded.input_ids, encoded.trained)


def _test_items(test: Sequence[tuple[Example, Encoded]], encoder: ChatEncoder | None) -> list[TestItem]:
    if encoder is not None:
        return [_test_item(example, encoded, encoder) for example, encoded in test]
    pieces: dict[str, list[tuple[Example, Encoded]]] = {}
    for example, encoded in test:
        pieces.setdefault(example.id, []).append((example, encoded))
    return [TestItem(found[0][0], (), tuple(_token_row(*piece) for piece in found)) for found in pieces.values()]


def _test_item(example: Example, encoded: Encoded, encoder: ChatEncoder) -> TestItem:
    marks = np.zeros_like(encoded.trained)
    last = encoded.turns[-1]
    marks[last.first : last.end] = True
    row = TokenRow(example.id, encoded.input_ids, marks)
    return TestItem(example, tuple(encoder.prompt(example.context)), (row,))
