"""Read the rows a recipe names (files, folders, globs, hub data sets) with their lines: `read_rows(section.train)`.

What is wrong with a file as a whole is a FinetuneError that lists every such fault of every file; what is wrong with
one row is a `Rejected`, and the caller decides what becomes of it. Nothing here ever opens a pickle.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.reading.archives import archive_members
from finetune.data.reading.arrow_rows import read_arrow, read_parquet
from finetune.data.reading.draws import SEED, Draw
from finetune.data.reading.folders import (
    ARCHIVE,
    ARROW,
    EXTENSIONS,
    JSON,
    TABLES,
    Sorted,
    file_advice,
    files_below,
    is_document,
    sort_out,
)
from finetune.data.reading.hub_rows import read_hub
from finetune.data.reading.json_rows import holds_lines, read_json
from finetune.data.reading.packed import Content, FileContent
from finetune.data.reading.records import Records
from finetune.data.reading.table_rows import read_table
from finetune.data.reading.utf8 import decode
from finetune.data.reading.xml_rows import read_xml
from finetune.data.rows import Rejected, Row
from finetune.data.store import Store
from finetune.errors import FinetuneError, Problem
from finetune.recipe.data_names import DataName, split_name
from finetune.recipe.schema import Header

if TYPE_CHECKING:
    from finetune.data.documents import Documents

_PICKLE = "a pickle runs code when it is opened; write the rows as JSON Lines"
_ADVICE_BY_EXTENSION = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".pt": _PICKLE,
    ".tar": "unpack it",
    ".tgz": "unpack it",
    ".7z": "unpack it",
    ".rar": "unpack it",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What was read.

    Attributes:
        rows: in file order; large ones lie on disk.
        rejected: rows that cannot be read.
        files: sha256 of each file's bytes.
        container: what the files are, in words.
        notes: what was decided about them, and which were set aside.
        left_out: rows that were read and not drawn, where a name ends in `#500`.
        tables: whether there are CSV or TSV files among them, to which `header` applies.
    """

    rows: Sequence[Row]
    rejected: list[Rejected]
    files: dict[str, str]
    container: str
    notes: tuple[Problem, ...] = ()
    left_out: int = 0
    tables: bool = False


def read_rows(spec: str | Sequence[str], *, where: str = "", header: Header = "auto") -> Source:
    """Read all rows that `spec` names.

    A name is a path, a folder, a glob, `ARCHIVE.zip!MEMBER`, or `hub:OWNER/NAME` with optional `@config` and `:split`.
    `::/path` after it says where in a JSON or XML file the rows are, and `#500` at its end draws so many of them.

    Args:
        spec: a name, or several.
        where: the recipe's position, put before problems with the names themselves.
        header: whether the first line of a CSV or TSV names its columns.

    Raises:
        FinetuneError: with every file-level problem: a name that fits nothing, a file that is unreadable, empty,
            not UTF-8, or not what its name says.
    """
    entries, found = _resolve([spec] if isinstance(spec, str) else list(spec), where)
    problems = [problem for problem in found if problem.severity == "error"]
    reading = _Reading(where, header, problems, [note for note in found if note.severity == "note"])
    for name, files in entries:
        reading.entry(name, files)
    problems += reading.twice()
    if problems:
        raise FinetuneError.of(problems)
    return reading.source()


def first_rows(path: str, count: int) -> list[Row]:
    """Return the first rows of one file that holds rows, without reading the rest where its container allows.

    Raises:
        FinetuneError: the file is unreadable as far as it was read.
    """
    records = _records(FileContent(path, where="", advice=file_advice), None, "auto", "")
    return list(islice((item for item in records.items if isinstance(item, Row)), count))


def read_text(path: str, *, where: str = "") -> str:
    """Return the text of a UTF-8 file, without its byte order mark; `.gz`, `.bz2`, `.xz` and `.zst` are unpacked.

    Raises:
        FinetuneError: the file is missing, unreadable, empty, or not UTF-8; the problem says where and what.
    """
    content = FileContent(path, where=where, advice=file_advice)
    return decode(content.read(), path)


def _resolve(specs: Sequence[str], where: str) -> tuple[list[tuple[DataName, list[str]]], list[Problem]]:
    """Take the names apart and find the files that globs mean; say what is wrong or worth a note."""
    entries: list[tuple[DataName, list[str]]] = []
    problems: list[Problem] = []
    if not specs:
        problems.append(Problem(where, "no file is named", "give a path, a folder, a glob or hub:OWNER/NAME"))
    for spec in specs:
        name = split_name(spec)
        path = name.path
        if name.rows == 0:
            problems.append(Problem(where, f"a draw of no rows: {spec!r}", "write how many are drawn, e.g. #500"))
        if path.startswith("hub:") or not glob.has_magic(path) or os.path.exists(path):
            found = [path]
        else:
            pattern = str(Path(path).expanduser())
            matches = sorted(glob.glob(pattern, recursive=True))
            found = [one for one in matches if not Path(one).is_dir()]
            if len(found) < len(matches) and "**" not in path:
                count = len(matches) - len(found)
                fix = f"write {str(Path(path) / '**')!r} for what is in them too"
                what = f"the glob {path!r} matches folders ({count}), which it does not look into"
                problems.append(Problem(where, what, fix, "note"))
            if not found:
                problems.append(Problem(where, f"no file matches the glob {path!r}", file_advice(path)))
        entries.append((name, found))
    return entries, problems


class _Reading:
    """One reading of several names, and the account of what came of it."""

    def __init__(self, where: str, header: Header, problems: list[Problem], notes: list[Problem]) -> None:
        self._where = where
        self._header = header
        self._problems = problems
        self._rows: Store[Row] = Store()
        self._rejected: list[Rejected] = []
        self._files: dict[str, str] = {}
        self._containers: Counter[str] = Counter()
        self._notes = notes
        self._left_out = 0
        self._tables = False
        self._texts: list[Content] = []
        self._read_before: Counter[str] = Counter()

    def twice(self) -> list[Problem]:
        """Name the files that were named more than once, be it by themselves or with their folder."""
        return [
            Problem(self._where, f"{file!r} is named {count} times", "name each file once")
            for file, count in self._read_before.items()
            if count > 1
        ]

    def source(self) -> Source:
        """Return all that was read."""
        words = [f"{name} ({count} files)" if count > 1 else name for name, count in self._containers.items()]
        return Source(
            self._rows,
            self._rejected,
            self._files,
            ", ".join(words),
            notes=_told_once(self._notes),
            left_out=self._left_out,
            tables=self._tables,
        )

    def entry(self, name: DataName, files: Sequence[str]) -> None:
        """Read what one name means; what is wrong with its files is noted."""
        draw = Draw(name.rows) if name.rows else None
        take = self._rows.append if draw is None else draw.add
        for file in files:
            try:
                self._read(replace(name, path=file), take)
            except FinetuneError as error:
                self._problems.extend(error.problems)
        if self._texts:
            # All documents of a glob at once: what many of them repeat is no text of theirs
            texts, self._texts = self._texts, []
            try:
                if len(texts) < len(files):
                    shown = f"{texts[0].name!r} is a document"
                    fix = "name one kind of files, or each as a source of its own: {path: ...}"
                    raise FinetuneError(
                        f"{name.path!r} means both rows and documents: {shown}", where=self._where, fix=fix
                    )
                self._documents(texts, take)
            except FinetuneError as error:
                self._problems.extend(error.problems)
        if draw is None:
            return
        self._rows.extend(draw.rows())
        self._left_out += max(0, draw.seen - draw.asked)
        drawn = f"{draw.asked:,} of {draw.seen:,} rows drawn at random (seed {SEED})"
        few = f"{draw.asked:,} rows are asked for, and there are {draw.seen:,}"
        short = draw.seen < draw.asked
        self._notes.append(Problem(str(name), few if short else drawn, severity="warning" if short else "note"))

    def _read(self, name: DataName, take: Callable[[Row], None]) -> None:
        if name.path.startswith("hub:"):
            if name.inside is not None:
                raise _no_path(name.path, name.inside, self._where)
            records, fingerprint = read_hub(name.path)
            self._read_before[name.path] += 1
            self._collect(records, take)
            self._files[name.path] = fingerprint.sha256()
            return
        if os.path.isdir(os.path.expanduser(name.path)):
            found = self._placed(lambda: sort_out(*files_below(name.path), name.path))
            self._notes += found.notes(name.path)
            self._sorted(found, name.inside, take, folder=name.path)
            return
        self._file(FileContent(name.path, where=self._where, advice=file_advice), name, take)

    def _sorted(
        self, found: Sorted, inside: str | None, take: Callable[[Row], None], *, folder: str | None = None
    ) -> None:
        """Read the files of a folder or an archive."""
        problems: list[Problem] = []
        for content in found.rows:
            try:
                if isinstance(content, FileContent):
                    self._file(content, DataName(content.name, inside=inside), take)
                else:
                    self._collect(_records(content, inside, self._header, self._where), take)
            except FinetuneError as error:
                problems.extend(error.problems)
        if problems:
            raise FinetuneError.of(problems)
        if found.documents and inside is not None:
            raise _no_path(found.documents[0].name, inside, self._where)
        if found.documents:
            self._documents(found.documents, take, folder=folder)

    def _file(self, file: FileContent, name: DataName, take: Callable[[Row], None]) -> None:
        self._read_before[str(replace(name, path=str(Path(file.name).expanduser().resolve()), rows=None))] += 1
        if file.extension == ARCHIVE:
            with archive_members(file, member=name.member) as members:
                found = self._placed(lambda: sort_out(members, [], file.name))
                self._notes += found.notes(file.name)
                self._sorted(found, name.inside, take)
        elif name.inside is None and is_document(file):
            self._texts.append(file)
            return
        else:
            self._collect(_records(file, name.inside, self._header, self._where), take)
        self._files[file.name] = file.sha256()

    def _documents(
        self, contents: Iterable[Content], take: Callable[[Row], None], *, folder: str | None = None
    ) -> None:
        from finetune.data.documents import read_documents

        found: Documents = read_documents(list(contents), where=self._where, folder=folder)
        for row in found.rows:
            take(row)
        self._rejected += found.rejected
        self._files.update(found.files)
        self._containers[found.container] += 1
        self._notes += found.notes

    def _collect(self, records: Records, take: Callable[[Row], None]) -> None:
        for item in records.items:
            if isinstance(item, Row):
                take(item)
            else:
                self._rejected.append(item)
        self._containers[records.container] += 1
        self._notes += records.notes
        self._tables = self._tables or records.table

    def _placed(self, sort: Callable[[], Sorted]) -> Sorted:
        """Put the recipe's position before what is wrong with a folder as such."""
        try:
            return sort()
        except FinetuneError as error:
            raise FinetuneError.of([replace(one, where=one.where or self._where) for one in error.problems]) from None


def _records(content: Content, inside: str | None, header: Header, where: str) -> Records:
    """Read one file as its extension says, or as JSON Lines where it is that whatever the extension."""
    extension = content.extension
    if extension in JSON:
        return read_json(content, inside=inside)
    if extension == ".xml":
        return read_xml(content, inside=inside)
    if inside is not None:
        raise _no_path(content.name, inside, where)
    if extension in TABLES:
        return read_table(content, header=header)
    if extension == ".parquet":
        return read_parquet(content)
    if extension in ARROW:
        return read_arrow(content)
    if extension not in _ADVICE_BY_EXTENSION and holds_lines(content):
        words = "JSON Lines in " + (f"a {extension} file" if extension else "a file without extension")
        note = Problem(content.name, f"read as {words}: its first line is a JSON object", severity="note")
        return replace(read_json(content), container=words, notes=(note,))
    kind = f"unknown file type {extension!r}" if extension else "file without extension"
    raise FinetuneError(
        f"{kind}: {content.name!r}",
        where=where,
        fix=_ADVICE_BY_EXTENSION.get(extension, f"use one of {' '.join(EXTENSIONS)}, plain or .gz"),
    )


def _no_path(name: str, inside: str, where: str) -> FinetuneError:
    what = f"only JSON and XML have a path inside, and {inside!r} is asked for"
    return FinetuneError(what, where=where, fix=f"name it alone: {name!r}")


def _told_once(notes: Sequence[Problem]) -> tuple[Problem, ...]:
    """Tell what is the same of several files once, with the first of them and how many more there are."""
    found: dict[tuple[str, str, str], list[Problem]] = {}
    for note in notes:
        found.setdefault((note.what, note.fix, note.severity), []).append(note)
    return tuple(
        replace(same[0], where=f"{same[0].where} and {len(same) - 1:,} more files") if len(same) > 1 else same[0]
        for same in found.values()
    )
