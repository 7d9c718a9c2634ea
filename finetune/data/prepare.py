"""From a recipe's `data` to rows of tokens: read, recognise, understand, split, encode, certify.

`prepare(recipe, tokenizer)` is the data stage; everything it leaves out is counted and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.certificate import Accounting, Certificate, certify
from finetune.data.chat.encoder import ChatEncoder
from finetune.data.checks import Finding, Material, check_corpus
from finetune.data.corpus import Corpus, read_corpus
from finetune.data.formats.recognise import Recognition
from finetune.data.rows import Example, Rejected, TokenRow
from finetune.data.store import Store, View
from finetune.data.tokenising.encoding import Encoding
from finetune.data.tokenising.token_cache import content_key
from finetune.data.tokenising.tokenised import Tally, TestItem, held_out, token_row, tokenise
from finetune.errors import FinetuneError
from finetune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The corpus ready to be learned; `cached` is the file that its tokens were taken from, if any.

    `train_examples` are the training rows as they were understood, `train_references` their answers.
    """

    train: Sequence[TokenRow]
    validation: Sequence[TokenRow]
    test: Sequence[TestItem]
    certificate: Certificate
    recognition: Recognition
    labels: tuple[str, ...] | None
    train_examples: Sequence[Example]
    train_references: Sequence[str]
    stop: tuple[int, ...]
    dropped: list[Rejected]
    raw_text: bool
    cached: Path | None


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
    _require_context(recipe, context_length)
    corpus = read_corpus(recipe)
    raw = corpus.raw_text
    encoder = None if raw else ChatEncoder(tokenizer)
    room = Encoding(recipe.data, tokenizer, encoder, recipe.where("data.max_length"))
    files = {path: digest for part in corpus.parts for path, digest in part.files.items()}
    tokens = tokenise(
        room,
        {"train": corpus.train, "validation": corpus.division.validation, "test": corpus.division.test},
        key=lambda: _key(recipe, files, tokenizer, encoder),
    )
    tallies = tokens.tallies
    dropped = [*corpus.dropped, *room.account.dropped]
    room.raise_problems()
    stop = encoder.stop_token_ids if encoder else (int(tokenizer.eos_token_id),)
    notes = [*corpus.division.notes, *room.notes(encoder)]
    accounting = Accounting(
        format=corpus.recognition.format,
        why=corpus.recognition.why,
        files=files,
        rows_read=sum(part.rows_read for part in corpus.parts),
        dropped=dict(Counter(bad.reason for bad in dropped)),
        left_out_by_sampling=_not_drawn(corpus),
        splits={split: tally.rows for split, tally in tallies.items()},
        truncated=room.account.truncated,
        sources=_by_source(corpus, tallies),
        masked=corpus.masked,
        pieces={split: tally.pieces for split, tally in tallies.items() if tally.pieces},
    )
    certificate = certify(
        (kept.encoded for kept in tokens.rows["train"]),
        accounting,
        where=recipe.where("data.train"),
        bos_token_id=tokenizer.bos_token_id,
        stop_tokens=[str(tokenizer.convert_ids_to_tokens(token)) for token in stop],
        template=str(tokenizer.chat_template) if encoder else "",
        notes=notes,
        findings=_findings(recipe, corpus, room, tallies["train"]),
    )
    return Prepared(
        train=View(tokens.rows["train"], None, token_row),
        validation=View(tokens.rows["validation"], None, token_row),
        test=Store(held_out(tokens.rows["test"], encoder)),
        certificate=certificate,
        recognition=corpus.recognition,
        labels=corpus.labels,
        train_examples=corpus.train,
        train_references=View(corpus.train, None, _reference),
        stop=stop,
        dropped=dropped,
        raw_text=raw,
        cached=tokens.cached,
    )


def _require_context(recipe: Recipe, context_length: int | None) -> None:
    if context_length is not None and recipe.data.max_length > context_length:
        raise FinetuneError(
            f"max_length {recipe.data.max_length} is more than the model's context of {context_length} tokens",
            where=recipe.where("data.max_length"),
            fix=f"set data.max_length to {context_length} or less",
        )


def _findings(recipe: Recipe, corpus: Corpus, room: Encoding, train: Tally) -> list[Finding]:
    material = Material(
        train=corpus.train,
        validation=corpus.division.validation,
        test=corpus.division.test,
        template=room.encoder.template.source if room.encoder else "",
        max_length=room.section.max_length,
        lengths=train.spread(),
        left_out=[bad for bad in room.account.dropped if bad.reason.startswith("longer than")],
        cut=room.account.cut,
    )
    return check_corpus(material, recipe.data.checks, masked=corpus.masked)


def _by_source(corpus: Corpus, tallies: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
    """Count for each source what became of its rows; `drawn` counts a row as often as its source's weight says."""
    drawn = Counter(example.source for example in corpus.train)
    learned = _distinct(corpus.train)
    divided = Counter(example.source for example in corpus.division.train)
    kept = sum((tally.kept for tally in tallies.values()), Counter[str]())
    told = {}
    for part in corpus.parts:
        left_out = divided[part.name] - learned[part.name] + part.left_out
        told[part.name] = {
            "format": part.recognition.format,
            "weight": part.weight,
            "read": part.rows_read,
            "kept": kept[part.name],
            "dropped": part.rows_read - kept[part.name] - left_out,
            "left_out": left_out,
            "drawn": drawn[part.name],
            "tokens": tallies["train"].tokens[part.name],
        }
    return told


def _not_drawn(corpus: Corpus) -> int:
    """Count the rows that `data.sample`, or a name such as `a.csv#500`, did not draw."""
    sampled = len(corpus.division.train) - sum(_distinct(corpus.train).values())
    return sampled + sum(part.left_out for part in corpus.parts)


def _distinct(examples: Iterable[Example]) -> Counter[str]:
    """Count the rows of each source; one that is taken several times stands there one after another."""
    runs = groupby(examples, key=lambda example: (example.source, example.id))
    return Counter(source for (source, _), _ in runs)


def _reference(example: Example) -> str:
    return example.reference


def _key(
    recipe: Recipe, files: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, encoder: ChatEncoder | None
) -> str:
    settings = {
        "data": recipe.data.model_dump(mode="json"),
        "objective": recipe.objective.model_dump(mode="json"),
    }
    template = encoder.template if encoder else None
    return content_key(
        settings,
        files,
        tokenizer,
        template.source if template else "",
        dated=template is not None and template.dated,
    )
