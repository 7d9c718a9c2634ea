"""The sources that a recipe names under `data`, each read and recognised on its own: `read_parts(recipe, "train")`.

A source is a file, a folder, several files of one kind, or an entry of a mixture. A benchmark's folder is a source too,
and brings its official splits.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePath
from typing import Literal

from finetune.data.benchmarks import BENCHMARKS, Found, adapt, find
from finetune.data.formats.examples import Change, known_labels, to_examples
from finetune.data.formats.examples import labels as labels_of
from finetune.data.formats.recognise import Recognition, recognise, recognise_benchmark
from finetune.data.reading.sources import read_rows
from finetune.data.rows import Example, Rejected, Row
from finetune.data.store import View
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection, Recipe, SourceSection

# How many rows of one kind of fault are told one by one
TOLD = 10

Key = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One source, understood.

    Attributes:
        name: what its rows are counted under.
        weight: how often its training rows enter.
        section: the recipe's `data` with what the source says laid over it.
        where: the recipe's position of the source.
        recognition: how its rows read.
        examples: rows by the official split they belong to; under "" those that have none.
        labels: the classes of its rows, which further files are read with; None where there are none.
        dropped: rows that cannot be used.
        rows_read: records found in its files.
        files: SHA-256 of each file's content.
        left_out: rows read and not drawn, where a name ends in `#500`.
        tables: whether there are CSV or TSV files among them.
    """

    name: str
    weight: float
    section: DataSection
    where: str
    recognition: Recognition
    examples: Mapping[Key | Literal[""], Sequence[Example]]
    labels: tuple[str, ...] | None
    dropped: list[Rejected]
    rows_read: int
    files: Mapping[str, str]
    left_out: int = 0
    tables: bool = False

    @property
    def benchmark(self) -> bool:
        return self.recognition.benchmark is not None


def is_mixture(section: DataSection, key: Key = "train") -> bool:
    """Tell whether a list under `data` names sources of their own rather than several files of one."""
    given = getattr(section, key)
    return isinstance(given, tuple) and any(isinstance(one, SourceSection) for one in given)


def read_parts(recipe: Recipe, key: Key, trained: Sequence[Part] = ()) -> list[Part]:
    """Read every source under `data.train`, `data.validation` or `data.test`.

    Args:
        recipe: the recipe.
        key: which of them.
        trained: the sources of the training rows, when further ones are read. Rows of a single source read as its
            training rows do; an entry of a mixture has the classes of the training source that reads as it does.

    Raises:
        FinetuneError: with the problems of all sources that cannot be read or recognised.
    """
    given = getattr(recipe.data, key)
    names = _names(recipe.data, key)
    parts: list[Part] = []
    problems: list[Problem] = []
    for number, name in enumerate(names):
        mixed = is_mixture(recipe.data, key)
        where = recipe.where(f"data.{key}.{number}" if mixed else f"data.{key}")
        entry = given[number] if mixed else given
        source = entry if isinstance(entry, SourceSection) else SourceSection(path=entry)
        single = trained[0] if len(trained) == 1 and not mixed and not is_mixture(recipe.data) else None
        try:
            place = _Place(recipe.data, where, recipe.where, mixed or is_mixture(recipe.data))
            parts.append(_read_part(place, source, name, trained, single))
        except FinetuneError as error:
            problems.extend(error.problems)
    if problems:
        raise FinetuneError.of(problems)
    return parts


def read_source(section: DataSection, *, where: str, like: Part | None = None, change: Change | None = None) -> Part:
    """Read the one source of a `data` section that no recipe holds.

    Args:
        section: the section.
        where: put before all problems.
        like: a source whose rows these read as, with its classes.
        change: makes another content of a row's fields and the one that its format makes.

    Raises:
        FinetuneError: the rows cannot be read or recognised.
    """
    place = _Place(section, where, lambda key: where, False, change)
    return _read_part(place, SourceSection(path=section.train), _names(section, "train")[0], (), like)


@dataclass(frozen=True, slots=True)
class _Place:
    """The recipe's `data`, the position of one source and of any setting, and whether the source is one of several.

    `change` makes another content of a row's fields and the one that its format makes.
    """

    data: DataSection
    where: str
    of: Callable[[str], str]
    mixture: bool
    change: Change | None = None


def _read_part(place: _Place, source: SourceSection, name: str, trained: Sequence[Part], single: Part | None) -> Part:
    section, where, mixture = _laid_over(place.data, source), place.where, place.mixture
    at = where if mixture else place.of("data.format")
    found = _benchmark(source.path, section, where, single)
    if found is not None:
        return _benchmark_part(found, section, name, place, source.weight, single)
    read = read_rows(source.path, where=where, header=section.header)
    require_rows(read.rows, read.rejected)
    found = adapt(read.rows, BENCHMARKS, wanted=_wanted(section, single), where=where) if _asks(section) else None
    if found is not None:
        found = replace(found, files=read.files, rejected=[*read.rejected, *found.rejected])
        found = replace(found, records=found.records + len(read.rejected) + read.left_out)
        found = replace(found, notes=(*read.notes, *found.notes))
        part = _benchmark_part(found, section, name, place, source.weight, single)
        return replace(part, left_out=read.left_out, tables=read.tables)
    section = _without_group(section, read.rows) if mixture else section
    recognition = single.recognition if single is not None else recognise(read.rows, section, where=at)
    told = () if single is not None else recognition.notes
    recognition = replace(recognition, notes=(*read.notes, *told))
    like = single or next((part for part in trained if _alike(part.recognition, recognition)), None)
    given = like.labels if like is not None else None
    at = where if mixture else place.of("data")
    examples, bad = to_examples(
        read.rows, recognition, section, labels=given, where=at, source=name, change=place.change
    )
    dropped = [*read.rejected, *bad]
    require_rows(examples, dropped)
    labels = given if given is not None else known_labels(read.rows, recognition) or all_labelled(examples)
    return Part(
        name=name,
        weight=source.weight,
        section=section,
        where=where,
        recognition=recognition,
        examples={"": examples},
        labels=labels,
        dropped=dropped,
        rows_read=len(read.rows) + len(read.rejected) + read.left_out,
        files=read.files,
        left_out=read.left_out,
        tables=read.tables,
    )


def _laid_over(data: DataSection, source: SourceSection) -> DataSection:
    """Return the recipe's `data` with what the source says itself."""
    said = {
        "format": source.format,
        "columns": source.columns,
        "template": source.template,
        "system": source.system,
        "instruction": source.instruction,
        "answer_is": source.answer_is,
        "header": source.header,
    }
    own = {name: value for name, value in said.items() if name in source.model_fields_set}
    return data.model_copy(update={"train": source.path, **own})


def _alike(one: Recognition, other: Recognition) -> bool:
    return (one.format, one.columns) == (other.format, other.columns)


def _without_group(section: DataSection, rows: Sequence[Row]) -> DataSection:
    """Leave out `group_by` where a source of a mixture has no such column; another one has it."""
    column = section.split.group_by
    if column is None or any(column in row.fields for row in rows):
        return section
    return section.model_copy(update={"split": section.split.model_copy(update={"group_by": None})})


def all_labelled(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """Return the classes where every answer is one of them, else None."""
    known = tuple(labels_of(examples))
    return known if known and all(example.reference in known for example in examples) else None


# ------------------------------------------------------------------------------------------------------- benchmarks


def _asks(section: DataSection) -> bool:
    """Whether benchmarks are to be looked for: not where the recipe says itself how rows read."""
    said = section.columns or section.template is not None or section.instruction is not None
    return _is_benchmark(section.format) or (section.format == "auto" and not said)


def _is_benchmark(name: str) -> bool:
    return any(benchmark.name == name for benchmark in BENCHMARKS)


def _wanted(section: DataSection, single: Part | None) -> str:
    if single is None:
        return section.format
    return single.recognition.format if single.benchmark else "none"


def _benchmark(path: str | tuple[str, ...], section: DataSection, where: str, single: Part | None) -> Found | None:
    if not _asks(section):
        return None
    return find(path, BENCHMARKS, wanted=_wanted(section, single), where=where)


def _benchmark_part(
    found: Found, section: DataSection, name: str, place: _Place, weight: float, single: Part | None
) -> Part:
    where = place.where
    recognition = recognise_benchmark(found.benchmark, found.why, found.notes, section, where)
    by_split: dict[Key | Literal[""], Sequence[Example]] = {}
    dropped = list(found.rejected)
    for split, rows in found.rows.items():
        examples, bad = to_examples(rows, recognition, section, where=where, source=name, change=place.change)
        by_split[split] = examples
        dropped += bad
    require_rows([examples for examples in by_split.values() if len(examples)], dropped)
    _tell_apart(by_split)
    labels = single.labels if single is not None else None
    return Part(
        name=name,
        weight=weight,
        section=section,
        where=where,
        recognition=recognition,
        examples=by_split,
        labels=labels or all_labelled(list(chain.from_iterable(by_split.values()))),
        dropped=dropped,
        rows_read=found.records,
        files=found.files,
    )


# ------------------------------------------------------------------------------------------------- names and problems


def _tell_apart(groups: dict[Key | Literal[""], Sequence[Example]]) -> None:
    """Put the split's name before the ids that several official splits have in common."""
    counts = Counter(identity for examples in groups.values() for identity in {example.id for example in examples})
    for split, examples in groups.items():
        if split and any(counts[example.id] > 1 for example in examples):
            groups[split] = _prefixed(split, examples)


def tell_sources_apart(parts: Sequence[Part]) -> list[Part]:
    """Put the source's name before the ids of sources that share some with another one."""
    ids = [{example.id for examples in part.examples.values() for example in examples} for part in parts]
    counts = Counter(identity for own in ids for identity in own)
    return [
        replace(part, examples={split: _prefixed(part.name, found) for split, found in part.examples.items()})
        if any(counts[identity] > 1 for identity in own)
        else part
        for part, own in zip(parts, ids, strict=True)
    ]


def _prefixed(name: str, examples: Sequence[Example]) -> Sequence[Example]:
    return View(examples, None, lambda example: replace(example, id=f"{name}/{example.id}"))


def _names(section: DataSection, key: Key) -> list[str]:
    """Name the sources by their files, each once."""
    given = getattr(section, key)
    entries = given if is_mixture(section, key) else [given]
    paths = [entry.path if isinstance(entry, SourceSection) else entry for entry in entries]
    names = [_short(path if isinstance(path, str) else path[0]) for path in paths]
    if key != "train":
        names = [f"{key}: {name}" for name in names]
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


def _short(path: str) -> str:
    if path.startswith("hub:"):
        return path.removeprefix("hub:")
    name = PurePath(path).name
    if glob.has_magic(name):
        return PurePath(path).parent.name or name
    return name.partition(".")[0] or name


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
