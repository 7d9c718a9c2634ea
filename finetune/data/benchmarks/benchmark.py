"""What a domain benchmark is: `Benchmark` says how its files look, which rows are its test, its prompt and its metric.

One file a benchmark beside this one; `docs/benchmarks.md` shows how to write another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from finetune.data.formats.conversations import RowRefused, conversation, shortened
from finetune.data.reading.sources import Source, read_text
from finetune.data.rows import Content, Message, Rejected, Row
from finetune.errors import FinetuneError
from finetune.recipe.schema import ScorerName

Split = Literal["train", "validation", "test"]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark: a format with a name, official splits, a prompt and a metric.

    Attributes:
        name: what `data.format` calls it.
        what: one sentence for people.
        files: split -> globs below the benchmark's folder, as its authors name the files; `""` for files whose rows
            are divided by `split`.
        fits: tells from the first records, as the container gives them, whether they are of this benchmark, in the
            original's columns or the hub's.
        content: turns one row's fields into what is learned; raises RowRefused.
        scorer: the metric, a name of `evaluate.scorer`.
        hub: the data set's name on the hub, empty where there is none.
        leak_fields: columns that tell the answer; they are taken out before `content` sees a row.
        group: column whose equal values belong on one side of any division, empty for none.
        split: the official split of a row that its file does not tell, or None; unset where only files tell.
        rows: makes rows of a record that is no row as it stands (a table with its questions), each with a key of its
            own; a record in which it misses something is rejected.
        read: reads a file that no common container describes, or that needs another one beside it.
        check: findings about the rows of all splits that a person ought to know, as sentences.
    """

    name: str
    what: str
    files: Mapping[Split | Literal[""], tuple[str, ...]]
    fits: Callable[[Sequence[Fields]], bool]
    content: Callable[[Fields], Content]
    scorer: ScorerName
    hub: str = ""
    leak_fields: tuple[str, ...] = ()
    group: str = ""
    split: Callable[[Row], Split | None] | None = None
    rows: Callable[[Row], Iterable[Row | Rejected]] | None = None
    read: Callable[[str], Source] | None = None
    check: Callable[[Mapping[Any, Sequence[Row]]], Iterable[str]] | None = None


def has(*columns: str, also: Callable[[Fields], bool] | None = None) -> Callable[[Sequence[Fields]], bool]:
    """Make a `fits`: every record has these columns and, where `also` is given, is what it says."""

    def fits(records: Sequence[Fields]) -> bool:
        return bool(records) and all(
            all(column in fields for column in columns) and (also is None or also(fields)) for fields in records
        )

    return fits


def either(*ways: Callable[[Sequence[Fields]], bool]) -> Callable[[Sequence[Fields]], bool]:
    """Make a `fits` of several: the original's columns or those of the hub's copy."""
    return lambda records: any(way(records) for way in ways)


def exchange(prompt: str, answer: str, *, label: str | None = None, **metadata: Any) -> Content:
    """Make the content of one question and its answer."""
    turns = conversation([Message("user", prompt), Message("assistant", answer)], None)
    return Content(messages=turns, label=label, metadata=metadata)


def repeats(*columns: str) -> Callable[[Mapping[Any, Sequence[Row]]], Iterator[str]]:
    """Make a `check`: rows whose text in these columns occurs more than once, and test rows that are trained on.

    White space and case are overlooked. Nothing is removed: the split is the authors'.
    """

    def key(row: Row) -> str:
        return "\n".join(" ".join(str(row.fields.get(column)).casefold().split()) for column in columns)

    def check(rows: Mapping[Any, Sequence[Row]]) -> Iterator[str]:
        keys = {part: [key(row) for row in found] for part, found in rows.items()}
        what = " and ".join(map(repr, columns))
        for part, found in keys.items():
            again = len(found) - len(set(found))
            if again:
                yield f"{again:,} of {len(found):,} {part or 'undivided'} rows repeat {what} of an earlier one"
        trained = set(keys.get("train", ()))
        leaked = sum(one in trained for one in keys.get("test", ()))
        if leaked:
            tested = len(keys["test"])
            yield f"{leaked:,} of {tested:,} test rows have {what} of a training row: the verdict counts them"

    return check


def json_beside(path: str | Path) -> Any:
    """Read a JSON file as it stands.

    Raises:
        FinetuneError: it is unreadable or no JSON.
    """
    try:
        return json.loads(read_text(str(path)))
    except ValueError as error:
        raise FinetuneError(f"broken JSON: {error}", where=str(path)) from None


def by_hash(key: str) -> Split:
    """Divide where there is no official split: about a fifth of the keys are test, by their SHA-1."""
    digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
    return "test" if int(digest, 16) % 5 == 0 else "train"


def choose(question: str, options: Sequence[str], right: object) -> Content:
    """Make the content of a multiple-choice question: one lettered option a line, the letter as answer.

    Args:
        question: the question.
        options: at most 26 texts.
        right: place of the right one, counted from 0.

    Raises:
        RowRefused: `right` is no such place.
    """
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
        detail = f"the answer is {shortened(right)}, counted from 0 in {len(options)} choices"
        raise RowRefused("no such choice", detail)
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    ask = f"Answer with the letter only (A to {ascii_uppercase[len(options) - 1]})."
    return exchange("\n".join([question, *lines, ask]), ascii_uppercase[right])
