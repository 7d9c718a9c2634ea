"""A corpus as a person looks at it: what it is, what is counted, what would be learned, and what the checks found.

`inspect_prepared` looks at rows of tokens, `inspect_corpus` at rows that no tokenizer has seen. An `Inspection` shows
itself in a notebook, writes a page (`page()`), and gives plain values (`as_dict()`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.data.checks import Finding, Material, check_corpus
from finetune.data.corpus import Corpus
from finetune.data.prepare import Prepared
from finetune.data.rows import Example
from finetune.data.view import Piece, pieces, tokens
from finetune.errors import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BARS = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """Rows of a range of lengths, from `first` up to and including `last` tokens."""

    first: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A row to look at. `tokens` is empty where no tokenizer has seen it; its turns are the pieces then."""

    id: str
    pieces: tuple[Piece, ...]
    tokens: tuple[dict[str, Any], ...] = ()

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return sum(bool(token["trained"]) for token in self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What `finetune data inspect` shows.

    Attributes:
        title: the recipe or the data.
        format: how rows read, and `why`.
        rows: rows `read`, `kept`, `dropped` by reason, and `left_out_by_sampling`.
        splits: rows of each split.
        sources: what became of the rows of each source.
        tokens: tokens of the training rows, `total` and `trained`; None where no base was given.
        lengths: shortest, median, 95th percentile and longest training row in tokens.
        histogram: training rows by length.
        examples: the first training rows.
        findings: what the checks found.
        problems: all that was noticed, findings included.
        certificate: the data certificate; None where no base was given.
    """

    title: str
    format: str
    why: str
    rows: Mapping[str, Any]
    splits: Mapping[str, int]
    sources: Mapping[str, Mapping[str, Any]]
    tokens: Mapping[str, int] | None
    lengths: Mapping[str, int] | None
    histogram: tuple[Bar, ...]
    examples: tuple[Shown, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    certificate: Mapping[str, Any] | None

    @property
    def passed(self) -> bool:
        """Whether nothing was found that refuses a run."""
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: what `finetune data inspect --json` prints."""
        return {
            "format": {"name": self.format, "why": self.why},
            "rows": dict(self.rows),
            "splits": dict(self.splits),
            "sources": {name: dict(counts) for name, counts in self.sources.items()},
            "tokens": None if self.tokens is None else dict(self.tokens),
            "lengths": None if self.lengths is None else dict(self.lengths),
            "histogram": [asdict(bar) for bar in self.histogram],
            "examples": [
                {
                    "id": shown.id,
                    "pieces": [asdict(piece) for piece in shown.pieces],
                    "tokens": list(shown.tokens) if shown.tokens else None,
                }
                for shown in self.examples
            ],
            "findings": [finding.as_dict() for finding in self.findings],
            "problems": [problem.as_dict() for problem in self.problems],
            "certificate": self.certificate and dict(self.certificate),
        }

    def facts(self) -> list[tuple[str, str]]:
        """Return what is counted, as rows of a table."""
        dropped = self.rows["dropped"]
        facts = [
            ("format", f"{self.format}: {self.why}"),
            ("rows", f"{self.rows['read']:,} read, {self.rows['kept']:,} kept, {sum(dropped.values()):,} dropped"),
            *(("", f"{count:,} {reason}") for reason, count in dropped.items()),
        ]
        if self.rows["left_out_by_sampling"]:
            facts.append(("", f"{self.rows['left_out_by_sampling']:,} left out by sampling"))
        facts.append(("splits", ", ".join(f"{count:,} {name}" for name, count in self.splits.items())))
        if self.tokens is None or self.lengths is None:
            return [*facts, ("tokens", "not counted: no base model was given")]
        total, trained = self.tokens["total"], self.tokens["trained"]
        share = trained / max(1, total)
        facts.append(("tokens", f"{total:,} in the training rows, {trained:,} learned ({share:.0%})"))
        return [*facts, ("lengths", ", ".join(f"{name} {count:,}" for name, count in self.lengths.items()))]

    def page(self) -> str:
        """Return one HTML page without scripts; everything from data is escaped, and nothing is loaded from outside."""
        return _rendered(self, whole=True)

    def _repr_html_(self) -> str:
        return _rendered(self, whole=False)


def _rendered(inspection: Inspection, *, whole: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    most = max((bar.rows for bar in inspection.histogram), default=1)
    order = ("error", "warning", "note")
    problems = sorted(inspection.problems, key=lambda problem: order.index(problem.severity))
    return environment.get_template("inspection.html.jinja").render(
        it=inspection, most=most, problems=problems, whole=whole
    )


def inspect_prepared(title: str, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, rows: int) -> Inspection:
    """Look at a corpus that is ready to be learned.

    Args:
        title: what is looked at.
        prepared: the corpus.
        tokenizer: the one that encoded it.
        rows: how many training rows to show.
    """
    certificate = prepared.certificate
    lengths = np.fromiter(map(len, prepared.train), dtype=np.int64)
    return Inspection(
        title=title,
        format=certificate.format,
        why=certificate.why,
        rows={
            "read": certificate.rows_read,
            "kept": certificate.rows_kept,
            "dropped": dict(certificate.dropped),
            "left_out_by_sampling": certificate.left_out_by_sampling,
        },
        splits=certificate.splits,
        sources=certificate.sources,
        tokens=certificate.tokens,
        lengths=certificate.lengths,
        histogram=histogram(lengths.tolist()),
        examples=tuple(
            Shown(row.id, tuple(pieces(row, tokenizer)), tuple(tokens(row, tokenizer)))
            for row in islice(prepared.train, rows)
        ),
        findings=certificate.findings,
        problems=certificate.problems,
        certificate=certificate.as_dict(),
    )


def inspect_corpus(title: str, corpus: Corpus, findings: Sequence[Finding], rows: int, *, where: str) -> Inspection:
    """Look at a corpus that no tokenizer has seen.

    Args:
        title: what is looked at.
        corpus: rows understood and divided.
        findings: what the checks found in it.
        rows: how many training rows to show.
        where: the place that problems name.
    """
    parts = {"train": corpus.train, "validation": corpus.division.validation, "test": corpus.division.test}
    splits = {name: len({example.id for example in examples}) for name, examples in parts.items()}
    kept = Counter(example.source for examples in parts.values() for example in _each_once(examples))
    return Inspection(
        title=title,
        format=corpus.recognition.format,
        why=corpus.recognition.why,
        rows={
            "read": sum(part.rows_read for part in corpus.parts),
            "kept": sum(splits.values()),
            "dropped": dict(Counter(bad.reason for bad in corpus.dropped)),
            "left_out_by_sampling": len(corpus.division.train)
            - splits["train"]
            + sum(part.left_out for part in corpus.parts),
        },
        splits=splits,
        sources={
            part.name: {"format": part.recognition.format, "read": part.rows_read, "kept": kept[part.name]}
            for part in corpus.parts
        },
        tokens=None,
        lengths=None,
        histogram=(),
        examples=tuple(Shown(example.id, tuple(_turns(example))) for example in islice(corpus.train, rows)),
        findings=tuple(findings),
        problems=(*corpus.division.notes, *(finding.problem(where) for finding in findings)),
        certificate=None,
    )


def check_unencoded(corpus: Corpus, section: Any) -> list[Finding]:
    """Look at a corpus that no tokenizer has seen for all that needs none.

    Args:
        corpus: rows understood and divided.
        section: the recipe's `data.checks`.
    """
    material = Material(train=corpus.train, validation=corpus.division.validation, test=corpus.division.test)
    return check_corpus(material, section, masked=corpus.masked)


def _each_once(examples: Iterable[Example]) -> Iterable[Example]:
    return {example.id: example for example in examples}.values()


def _turns(example: Example) -> list[Piece]:
    if example.text is not None:
        return [Piece(example.text, trained=True)]
    return [
        piece
        for turn in example.messages
        for piece in (
            Piece(f"{turn.role}: ", trained=False),
            Piece(f"{turn.said}\n", _is_learned(turn.role, turn.learn)),
        )
    ]


def _is_learned(role: str, learn: bool) -> bool:
    return role == "assistant" and learn


def histogram(lengths: Sequence[int]) -> tuple[Bar, ...]:
    """Count rows by length, in at most twelve ranges of 1, 2 or 5 times a power of ten tokens.

    Args:
        lengths: of each row, in tokens.
    """
    if not lengths:
        return ()
    widths = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    width = next(width for width in widths if (max(lengths) - 1) // width < _BARS)
    counts = Counter(max(0, length - 1) // width for length in lengths)
    return tuple(
        Bar(place * width + 1, (place + 1) * width, counts[place]) for place in range(min(counts), max(counts) + 1)
    )
