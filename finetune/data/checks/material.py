"""What checks look at: the divided rows, and what the encoding said of their lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from finetune.data.near_duplicates import normalise
from finetune.data.rows import Example, Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A corpus to be checked. Its parts are only iterated, indexed and counted, so they may lie on disk.

    Attributes:
        train: training rows, drawn as the recipe says.
        validation: rows for choosing the best checkpoint.
        test: rows for the verdict.
        template: the base's chat template; empty for raw text, or where there is no base.
        max_length: longest row in tokens; None where nothing has been encoded.
        lengths: shortest, median, 95th percentile and longest training row in tokens, after cutting.
        left_out: rows that were left out for their length.
        cut: rows whose prompt was cut.
    """

    train: Sequence[Example]
    validation: Sequence[Example] = ()
    test: Sequence[Example] = ()
    template: str = ""
    max_length: int | None = None
    lengths: dict[str, int] | None = None
    left_out: Sequence[Rejected] = ()
    cut: Sequence[Example] = ()

    def everything(self) -> Iterator[Example]:
        """Yield the rows of all parts; one that a mixture takes several times in succession comes once."""
        last = None
        for example in chain(self.train, self.validation, self.test):
            if example.id != last:
                yield example
            last = example.id


def texts_of(example: Example) -> list[str]:
    """Return all texts of a row: its raw text, or what each turn says, the worse answer of a pair too."""
    if example.text is not None:
        return [example.text]
    return [turn.content for turn in (*example.messages, *example.rejected)]


def answers_of(example: Example) -> list[str]:
    """Return what the assistant is to learn in a conversation; nothing for raw text."""
    return [turn.content for turn in example.messages if turn.role == "assistant" and turn.learn]


def digest(text: str) -> bytes:
    """Return a short name of a text, the same for texts that differ in case and punctuation alone."""
    plain = normalise(text, fold_digits=False)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def prompt_of(example: Example) -> str:
    """Return what stands before the last answer, without system turns; a raw text whole."""
    if example.text is not None:
        return example.text
    return "\n".join(turn.content for turn in example.context if turn.role != "system")


def has_classes(examples: Sequence[Example]) -> bool:
    """Tell whether every row has a class."""
    return bool(examples) and all(example.label is not None for example in examples)
