"""Read the rows a recipe names (files, globs, hub data sets) with their exact lines: `read_rows(section.train)`.

What is wrong with a file as a whole is a FinetuneError that lists every such fault of every file; what is wrong with
one row is a `Rejected`, and the caller decides what becomes of it. Nothing here ever opens a pickle.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.json_rows import rows_from_json
from finetune.data.rows import Origin, Rejected, Row
from finetune.data.table_rows import rows_from_csv, rows_from_parquet
from finetune.errors import FinetuneError, Problem, nearest

if TYPE_CHECKING:
    from datasets import Dataset

EXTENSIONS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_HUB = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<config>[^:@]+))?(?::(?P<split>[^:@]+))?")
_ADVICE_BY_EXTENSION = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".pkl": "a pickle runs code when it is opened; write the rows as JSON Lines",
    ".pickle": "a pickle runs code when it is opened; write the rows as JSON Lines",
    ".pt": "a pickle runs code when it is opened; write the rows as JSON Lines",
    ".zip": "unpack it",
    ".tar": "unpack it",
}
_MAGIC = {
    b"\x1f\x8b": ("gzip data", "name the file with .gz at its end"),
    b"PAR1": ("Parquet data", "name the file with .parquet at its end"),
    b"PK\x03\x04": ("a zip archive (or an Office document)", "unpack it, or save it as CSV"),
}
_UTF16_ADVICE = "save it as UTF-8, e.g. `iconv -f UTF-16 -t UTF-8 OLD > NEW`"


@dataclass(frozen=True, slots=True)
class Source:
    """What was read: rows in file order, unreadable rows, sha256 of each file's bytes, and the container in words."""

    rows: list[Row]
    rejected: list[Rejected]
    files: dict[str, str]
    container: str


def read_rows(spec: str | Sequence[str], *, where: str = "") -> Source:
    """Read all rows that `spec` names.

    Args:
        spec: a path, a glob, `hub:OWNER/NAME` with optional `@config` and `:split`, or several of these.
        where: the recipe's position, put before problems with the names themselves.

    Raises:
        FinetuneError: with every file-level problem: a name that fits nothing, a file that is unreadable, empty,
            not UTF-8, or not what its name says.
    """
    entries = [spec] if isinstance(spec, str) else list(spec)
    names, problems = _resolve(entries, where)
    source = Source([], [], {}, "")
    containers: Counter[str] = Counter()
    for name in names:
        try:
            part = _read_hub(name) if name.startswith("hub:") else _read_file(name, where)
        except FinetuneError as error:
            problems.extend(error.problems)
            continue
        source.rows.extend(part.rows)
        source.rejected.extend(part.rejected)
        source.files.update(part.files)
        containers[part.container] += 1
    if problems:
        raise FinetuneError.of(problems)
    words = [f"{container} ({count} files)" if count > 1 else container for container, count in containers.items()]
    return Source(source.rows, source.rejected, source.files, ", ".join(words))


def read_text(path: str, *, where: str = "") -> str:
    """Return the text of a UTF-8 file, without its byte order mark; `.gz` files are unpacked.

    Raises:
        FinetuneError: the file is missing, unreadable, empty, or not UTF-8; the problem says where and what.
    """
    return _decode(_unpack(path, _read_bytes(path, where)), path)


def _resolve(entries: Sequence[str], where: str) -> tuple[list[str], list[Problem]]:
    names: list[str] = []
    problems: list[Problem] = []
    if not entries:
        problems.append(Problem(where, "no file is named", "give a path, a glob or hub:OWNER/NAME"))
    for entry in entries:
        if entry.startswith("hub:") or not glob.has_magic(entry) or Path(entry).exists():
            found = [entry]
        else:
            pattern = str(Path(entry).expanduser())
            found = sorted(name for name in glob.glob(pattern, recursive=True) if not Path(name).is_dir())
            if not found:
                problems.append(Problem(where, f"no file matches the glob {entry!r}", _folder_advice(Path(entry))))
        names.extend(found)
    by_file = Counter(name if name.startswith("hub:") else str(Path(name).expanduser().resolve()) for name in names)
    for file, count in by_file.items():
        if count > 1:
            problems.append(Problem(where, f"{file!r} is named {count} times", "name each file once"))
    return names, problems


def _folder_advice(path: Path) -> str:
    folder = path.expanduser().parent
    if glob.has_magic(str(folder)):
        return "check the folder and the extension"
    if not folder.is_dir():
        return f"the folder {str(folder)!r} does not exist"
    found = sorted(entry.name for entry in folder.iterdir())
    near = nearest(path.name, found)
    if near:
        return f"did you mean {str(path.parent / near)!r}?"
    return f"the folder {str(folder)!r} holds {', '.join(found[:5])}{' ...' if found[5:] else ''}" if found else "empty"


def _extension(name: str) -> str:
    """Return the extension that says how the content reads, below a `.gz`."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _read_bytes(name: str, where: str) -> bytes:
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            kinds = sorted({_extension(entry.name) for entry in path.iterdir()} & set(EXTENSIONS))
            pattern = str(Path(name) / f"*{kinds[0] if kinds else '.jsonl'}")
            raise FinetuneError(f"{name!r} is a folder", where=where, fix=f"name files, e.g. {pattern!r}")
        if path.exists() and not path.is_file():
            raise FinetuneError(f"{name!r} is no regular file", where=where, fix="name a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise FinetuneError(f"no such file: {name!r}", where=where, fix=_folder_advice(Path(name))) from None
    except PermissionError:
        raise FinetuneError(f"no permission to read {name!r}", where=where, fix=f"chmod u+r {name}") from None
    except OSError as error:
        raise FinetuneError(f"{name!r} cannot be read: {error.strerror or error}", where=where) from None


def _unpack(name: str, content: bytes) -> bytes:
    if not name.lower().endswith(".gz") or not content:
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FinetuneError(f"broken gzip data: {error}", where=name, fix="fetch or pack the file again") from None


def _read_file(name: str, where: str) -> Source:
    raw = _read_bytes(name, where)
    extension = _extension(name)
    if extension not in EXTENSIONS:
        raise FinetuneError(
            f"unknown file type {extension!r}: {name!r}" if extension else f"file without extension: {name!r}",
            where=where,
            fix=_ADVICE_BY_EXTENSION.get(extension, f"use one of {' '.join(EXTENSIONS)}, plain or .gz"),
        )
    content = _unpack(name, raw)
    files = {name: hashlib.sha256(raw).hexdigest()}
    if extension == ".parquet":
        if not content:
            raise FinetuneError("the file is empty", where=name)
        return Source(rows_from_parquet(content, name), [], files, "Parquet")
    text = _decode(content, name)
    if extension in (".csv", ".tsv"):
        rows, rejected, container = rows_from_csv(text, name, delimiter="\t" if extension == ".tsv" else None)
    else:
        rows, rejected, container = rows_from_json(text, name, lines=extension in (".jsonl", ".ndjson"))
    return Source(rows, rejected, files, container)


def _decode(content: bytes, name: str) -> str:
    if not content.strip():
        raise FinetuneError("the file is empty", where=name)
    for magic, (kind, advice) in _MAGIC.items():
        if content.startswith(magic):
            raise FinetuneError(f"holds {kind}, not text", where=name, fix=advice)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FinetuneError("not UTF-8: it starts like UTF-16", where=f"{name}:1", fix=_UTF16_ADVICE)
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        count = content.count(b"\0")
        if count * 3 > len(content):
            raise FinetuneError("not UTF-8: it looks like UTF-16", where=f"{name}:{line}", fix=_UTF16_ADVICE)
        raise FinetuneError(f"NUL byte at byte {nul} ({count} in the file)", where=f"{name}:{line}", fix="remove them")
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        return content[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(content, mark + error.start, name) from None


def _not_utf8(content: bytes, offset: int, name: str) -> FinetuneError:
    around = content[max(0, offset - 12) : offset + 12]
    try:
        guess, shown = "cp1252", around.decode("cp1252")
    except UnicodeDecodeError:
        guess, shown = "latin-1", around.decode("latin-1")
    line = content.count(b"\n", 0, offset) + 1
    return FinetuneError(
        f"not UTF-8: byte 0x{content[offset]:02x} at byte {offset}",
        where=f"{name}:{line}",
        fix=f"as {guess} it reads {shown!r}; if that is right: `iconv -f {guess} -t UTF-8 OLD > NEW`",
    )


def _read_hub(spec: str) -> Source:
    found = _HUB.fullmatch(spec)
    if found is None:
        raise FinetuneError(f"not a hub data set: {spec!r}", fix="write hub:OWNER/NAME, hub:OWNER/NAME@CONFIG:SPLIT")
    name, config, split = found.group("name", "config", "split")
    data, split = _load_hub(spec, name, config, split)
    digest = hashlib.sha256()
    rows = []
    for number, fields in enumerate(data, 1):
        digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
        rows.append(Row(Origin(spec, number), dict(fields)))
    if not rows:
        raise FinetuneError("no rows: the data set is empty", where=spec)
    return Source(rows, [], {spec: digest.hexdigest()}, f"hub data set, split {split!r}")


def _load_hub(spec: str, name: str, config: str | None, split: str | None) -> tuple[Dataset, str]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        splits = datasets.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FinetuneError(
            f"the hub data set cannot be loaded: {reason}",
            where=spec,
            fix="check the name and the network; without a network, download it first "
            f"(`hf download {name} --repo-type dataset --local-dir DIR`) and name its files",
        ) from None
    wanted = split or ("train" if "train" in splits or len(splits) > 1 else next(iter(splits)))
    if wanted not in splits:
        fix = f"its splits: {', '.join(map(str, splits))}; write one of them after the name, as in hub:{name}:SPLIT"
        raise FinetuneError(f"the hub data set has no split {wanted!r}", where=spec, fix=fix)
    return splits[wanted], wanted
