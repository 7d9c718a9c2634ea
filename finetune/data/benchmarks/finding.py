"""Which benchmark a folder, files or rows belong to: `find(section.train)` for names, `adapt(rows)` for rows read.

`find` reads a benchmark's official splits out of its folder; `adapt` takes rows that anyone has read, such as the
hub's. Both give a `Found`, or None where nothing fits.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from finetune.data.benchmarks.benchmark import Benchmark, Split
from finetune.data.reading.sources import Source, first_rows, read_rows
from finetune.data.rows import Rejected, Row
from finetune.errors import FinetuneError, Problem, some

Part = Split | Literal[""]
_PARTS: tuple[Part, ...] = ("train", "validation", "test", "")
_PEEKED = 100
_DATA = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xml", ".gz"})
# How `hf download` and `datasets` name the files of the hub's copies.
_HUB_FILES: Mapping[Part, tuple[str, ...]] = {
    "train": ("**/train-*.parquet",),
    "validation": ("**/validation-*.parquet",),
    "test": ("**/test-*.parquet",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A benchmark and its rows: those of each official split, and under `""` those that have none.

    The rows are ready for `benchmark.content(row.fields)`: expanded, and without the fields that tell the answer.
    `rejected` are the records that no row could be made of. `records` counts both, and says so where a record of the
    files made several rows.
    """

    benchmark: Benchmark
    why: str
    rows: Mapping[Part, list[Row]]
    rejected: list[Rejected]
    records: int
    files: Mapping[str, str]
    container: str
    notes: tuple[Problem, ...] = ()


def find(
    spec: str | Sequence[str], benchmarks: Sequence[Benchmark], *, wanted: str = "auto", where: str = ""
) -> Found | None:
    """Read a benchmark out of its folder, or out of files that bear its names.

    Args:
        spec: a folder, or files and globs; names on the hub are left to `adapt`.
        benchmarks: those to try, in this order.
        wanted: the recipe's `data.format`: a benchmark's name, `auto` for all, anything else for none.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: the recipe names a benchmark whose files the folder does not hold, or a file is unreadable.
    """
    candidates = [benchmark for benchmark in benchmarks if wanted in ("auto", benchmark.name)]
    folder, files = _named(spec)
    for benchmark in candidates:
        parts = _parts(benchmark, folder, files)
        first = next((file for part in _PARTS for file in parts.get(part, ())), None)
        if first is not None and benchmark.fits(_peek(benchmark, first)):
            return _read(benchmark, parts, folder, where)
    if wanted != "auto" and candidates and folder is not None:
        names = " or ".join(repr(name) for globs in candidates[0].files.values() for name in globs)
        raise FinetuneError(
            f"the folder {str(folder)!r} holds no files of {wanted!r}",
            where=where,
            fix=f"its authors name them {names}; name the files themselves under data.train otherwise",
        )
    return None


def adapt(
    rows: Sequence[Row], benchmarks: Sequence[Benchmark], *, wanted: str = "auto", where: str = ""
) -> Found | None:
    """Take rows as a container or the hub gave them for those of a benchmark, where they are.

    Raises:
        FinetuneError: the recipe names a benchmark, and the rows are not in its columns.
    """
    sample = [row.fields for row in rows[:_PEEKED]]
    for benchmark in benchmarks:
        if wanted in ("auto", benchmark.name) and benchmark.fits(sample):
            parts: dict[Part, list[Row]] = {part: [] for part in _PARTS}
            rejected = _sort(benchmark, rows, "", parts)
            filled = {part: found for part, found in parts.items() if found}
            return Found(
                benchmark=benchmark,
                why=f"columns of the benchmark {benchmark.name!r}",
                rows=filled,
                rejected=rejected,
                records=_count(filled) + len(rejected),
                files={},
                container="",
                notes=_notes(benchmark, filled, len(rows) - len(rejected), where),
            )
    if wanted in {benchmark.name for benchmark in benchmarks}:
        columns = ", ".join(map(repr, sample[0])) if sample else "none"
        raise FinetuneError(
            f"the rows are not those of the benchmark {wanted!r}: their columns are {columns}",
            where=where,
            fix="write `format: auto`, or name the benchmark's own files",
        )
    return None


def _named(spec: str | Sequence[str]) -> tuple[Path | None, list[Path]]:
    """Return the folder that `spec` is, or the files that it names; neither where it names the hub."""
    entries = [spec] if isinstance(spec, str) else list(spec)
    if any(entry.startswith("hub:") for entry in entries):
        return None, []
    if len(entries) == 1 and Path(entries[0]).expanduser().is_dir():
        return Path(entries[0]).expanduser(), []
    found = [
        Path(name)
        for entry in entries
        for name in (sorted(glob.glob(entry, recursive=True)) if glob.has_magic(entry) else [entry])
    ]
    return None, [path for path in found if path.expanduser().is_file()] if all_files(found) else []


def all_files(paths: Iterable[Path]) -> bool:
    """Tell whether every path is a file."""
    return all(path.expanduser().is_file() for path in paths)


def _parts(benchmark: Benchmark, folder: Path | None, files: Sequence[Path]) -> dict[Part, list[str]]:
    """Return the benchmark's files by split; of files named one by one, only where every one is the benchmark's."""
    for patterns in (benchmark.files, _HUB_FILES if benchmark.hub else {}):
        parts: dict[Part, list[str]] = {}
        taken: set[str] = set()
        for part in _PARTS:
            for pattern in patterns.get(part, ()):
                matches = (
                    sorted(folder.glob(pattern))
                    if folder is not None
                    else [file for file in files if PurePath(file).match(pattern)]
                )
                names = [str(path) for path in matches if path.is_file() and str(path) not in taken]
                taken.update(names)
                parts.setdefault(part, []).extend(names)
        if taken and (folder is not None or len(taken) == len(files)):
            return parts
    return {}


def _peek(benchmark: Benchmark, file: str) -> list[Mapping[str, Any]]:
    """Return the first records of a file, or none where it cannot be read as this benchmark's."""
    try:
        rows = benchmark.read(file).rows if benchmark.read is not None else first_rows(file, _PEEKED)
    except FinetuneError:
        return []
    return [row.fields for row in rows[:_PEEKED]]


def _read(benchmark: Benchmark, parts: Mapping[Part, Sequence[str]], folder: Path | None, where: str) -> Found:
    rows: dict[Part, list[Row]] = {part: [] for part in _PARTS}
    rejected: list[Rejected] = []
    files: dict[str, str] = {}
    containers: list[str] = []
    read = 0
    roles, told = _roles(benchmark, parts, folder)
    notes = [Problem(where, sentence, severity="note") for sentence in told]
    for part, names in parts.items():
        if not names:
            continue
        source = _source(benchmark, names, where)
        notes += source.notes
        read += len(source.rows)
        rejected += [*source.rejected, *_sort(benchmark, source.rows, roles[part], rows)]
        files.update(source.files)
        containers.append(source.container)
    filled = {part: found for part, found in rows.items() if found}
    return Found(
        benchmark=benchmark,
        why=f"files and columns of the benchmark {benchmark.name!r}: {_some(list(files), folder)}",
        rows=filled,
        rejected=rejected,
        records=_count(filled) + len(rejected),
        files=files,
        container=", ".join(dict.fromkeys(containers)),
        notes=(*notes, *_unread(folder, files, where), *_notes(benchmark, filled, read, where)),
    )


def _roles(
    benchmark: Benchmark, parts: Mapping[Part, Sequence[str]], folder: Path | None
) -> tuple[dict[Part, Part], list[str]]:
    """Say what each part is used as, which is another thing where a folder lacks the file to train on."""
    filled = {part for part, names in parts.items() if names}
    roles: dict[Part, Part] = {part: part for part in _PARTS}
    if folder is None or filled & {"train", ""}:
        return roles, []
    if len(filled) == 1 and benchmark.split is not None:
        (only,) = filled
        roles[only] = ""
        return roles, [f"the folder has the {only} file only, which is divided by the SHA-1 of its keys"]
    if filled == {"validation", "test"}:
        roles["validation"] = "train"
        return roles, ["the folder has no file to train on; the validation file's rows take its place"]
    return roles, []


def _source(benchmark: Benchmark, names: Sequence[str], where: str) -> Source:
    """Read files by their extension, or in the benchmark's own way."""
    if benchmark.read is None:
        return read_rows(list(names), where=where)
    sources = [benchmark.read(name) for name in names]
    return Source(
        [row for source in sources for row in source.rows],
        [bad for source in sources for bad in source.rejected],
        {name: digest for source in sources for name, digest in source.files.items()},
        ", ".join(dict.fromkeys(source.container for source in sources)),
        notes=tuple(note for source in sources for note in source.notes),
    )


def _sort(benchmark: Benchmark, records: Sequence[Row], part: Part, into: Mapping[Part, list[Row]]) -> list[Rejected]:
    """Put rows, without the fields that tell the answer, where they belong; return the records that make none."""
    rejected = []
    for row in itertools.chain.from_iterable(_rows_of(benchmark, record) for record in records):
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        own = benchmark.split(row) if benchmark.split is not None and not part else None
        fields = {name: value for name, value in row.fields.items() if name not in benchmark.leak_fields}
        into[own or part].append(replace(row, fields=fields))
    return rejected


def _rows_of(benchmark: Benchmark, record: Row) -> Sequence[Row | Rejected]:
    if benchmark.rows is None:
        return (record,)
    try:
        return list(benchmark.rows(record))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        detail = f"as a record of {benchmark.name}, {type(error).__name__}: {error}"
        return (Rejected(record.origin, "broken record", detail),)


def _count(rows: Mapping[Part, Sequence[Row]]) -> int:
    return sum(map(len, rows.values()))


def _notes(benchmark: Benchmark, rows: Mapping[Part, Sequence[Row]], read: int, where: str) -> tuple[Problem, ...]:
    """Say what a person ought to know of the rows: how many a record made, and what the benchmark's check found."""
    made = _count(rows)
    several = made > read and benchmark.rows is not None
    what = f"{read:,} records of the files hold {made:,} rows"
    notes = (Problem(where, what, severity="note"),) if several else ()
    found = benchmark.check(rows) if benchmark.check is not None else ()
    return (*notes, *(Problem(where, sentence, severity="warning") for sentence in found))


def _unread(folder: Path | None, files: Mapping[str, str], where: str) -> tuple[Problem, ...]:
    """Name the data files of the folder that are no part of the benchmark's rows."""
    if folder is None:
        return ()
    found = sorted(str(path) for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in _DATA)
    others = [name for name in found if name not in files]
    if not others:
        return ()
    what = f"{len(others):,} other data files of the folder hold no rows of the benchmark: {_some(others, folder)}"
    return (Problem(where, what, severity="note"),)


def _some(names: Sequence[str], folder: Path | None) -> str:
    short = [str(PurePath(name).relative_to(folder)) if folder is not None else name for name in names]
    return some(short)
