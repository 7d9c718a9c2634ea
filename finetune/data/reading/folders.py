"""Which files of a folder, an archive or a glob are rows, which are documents, and which are neither: `sort_out`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune.data.reading.json_rows import holds_lines
from finetune.data.reading.packed import Content, FileContent, extension_of
from finetune.errors import FinetuneError, Problem, nearest, some

TABLES = (".csv", ".tsv", ".tab", ".psv")
JSON = (".json", ".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")
ARCHIVE = ".zip"
EXTENSIONS = (*JSON, *TABLES, ".parquet", *ARROW, ".xml")
"""Extensions of files that hold rows, plain or packed."""

_ABOUT = re.compile(
    r"(licen[cs]e|readme)([_-].*)?|copying|notice|sources?|authors|citation|changelog|contributing|code_of_conduct|"
    r"(sha\d+|md5)(sums?)?|checksums?"
)
_ABOUT_TABLES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Files by what they are good for; `aside` are those that are not read, by the reason."""

    rows: tuple[Content, ...]
    documents: tuple[Content, ...]
    aside: dict[str, list[str]]

    def notes(self, where: str) -> tuple[Problem, ...]:
        """Say which files are not read, and why."""
        return tuple(
            Problem(where, f"{_count(names)} set aside ({reason}): {some(names)}", severity="note")
            for reason, names in self.aside.items()
        )


def sort_out(contents: Iterable[Content], links: Sequence[str], below: str) -> Sorted:
    """Sort the files of a folder or an archive.

    XML goes with the documents where there are any, and holds rows elsewhere.

    Args:
        contents: the files.
        links: links to other folders, which are set aside.
        below: the folder or archive, as it begins the names of all of them.

    Raises:
        FinetuneError: there are both rows and documents, or neither.
    """
    documents = document_extensions()
    sorted_: dict[str, list[Content]] = {"rows": [], "documents": [], "xml": []}
    aside: dict[str, list[str]] = {"links to folders are not followed": list(links)} if links else {}
    for content in contents:
        name = content.name[len(below) :].lstrip("/!")
        kind = _kind(content, name, documents)
        if kind in sorted_:
            sorted_[kind].append(content)
        else:
            aside.setdefault(kind, []).append(name)
    rows, texts, xml = sorted_["rows"], sorted_["documents"], sorted_["xml"]
    if texts and rows:
        raise FinetuneError(
            f"{below!r} holds both rows ({some(_short(rows, below))}) and documents ({some(_short(texts, below))})",
            fix=f"name one kind, e.g. {_pattern(rows[0], below)!r} or {_pattern(texts[0], below)!r}",
        )
    if not (rows or texts or xml):
        found = "; ".join(f"{some(names)}: {reason}" for reason, names in aside.items()) or "it is empty"
        fix = f"rows are read from {' '.join(EXTENSIONS)}, documents from {' '.join(sorted(documents))}"
        raise FinetuneError(f"{below!r} holds nothing to learn from ({found})", fix=fix)
    if texts:
        texts = sorted([*texts, *xml], key=lambda content: content.name)
    else:
        rows = sorted([*rows, *xml], key=lambda content: content.name)
    return Sorted(rows=tuple(rows), documents=tuple(texts), aside=aside)


def files_below(folder: str) -> tuple[list[Content], list[str]]:
    """Open the files of a folder and of the folders in it, sorted by path.

    Returns:
        the files, and the names of the links to other folders, which are not followed.

    Raises:
        FinetuneError: some cannot be opened; each is named.
    """
    top = Path(folder).expanduser()
    found: list[Content] = []
    links: list[str] = []
    problems: list[Problem] = []
    for place, inner, names in os.walk(top):
        inner.sort()
        below = os.path.relpath(place, top)
        links += [os.path.normpath(os.path.join(below, name)) for name in inner if Path(place, name).is_symlink()]
        for name in sorted(names):
            path = os.path.join(folder, "" if below == "." else below, name)
            try:
                found.append(FileContent(path))
            except FinetuneError as error:
                problems.extend(error.problems)
    if problems:
        raise FinetuneError.of(problems)
    return found, links


def document_extensions() -> frozenset[str]:
    """Return the extensions of files that are documents."""
    from finetune.data.documents import KINDS

    return frozenset(KINDS)


def is_document(content: Content) -> bool:
    """Tell whether a file named by itself is a document; XML holds rows, and a text file may be JSON Lines."""
    if content.extension == ".xml" or content.extension not in document_extensions():
        return False
    return content.extension != ".txt" or not holds_lines(content)


def file_advice(name: str) -> str:
    """Say what might be meant by a path that does not exist, or a glob that fits nothing."""
    path = Path(name)
    folder = path.expanduser().parent
    if any(mark in str(folder) for mark in "*?["):
        return "check the folder and the extension"
    if not folder.is_dir():
        return f"the folder {str(folder)!r} does not exist"
    found = sorted(entry.name for entry in folder.iterdir())
    near = nearest(path.name, found)
    if near:
        return f"did you mean {str(path.parent / near)!r}?"
    return f"the folder {str(folder)!r} holds {', '.join(found[:5])}{' ...' if found[5:] else ''}" if found else "empty"


def _kind(content: Content, name: str, documents: frozenset[str]) -> str:
    """Return `rows`, `documents` or `xml`, or why a file is none of these."""
    path = PurePosixPath(name.replace(os.sep, "/"))
    if any(part.startswith(".") or part in ("__MACOSX", "__pycache__") for part in path.parts):
        return "hidden"
    extension = extension_of(path.name)
    holds_rows = extension in EXTENSIONS or extension == ARCHIVE
    if path.name in _ABOUT_TABLES or (_ABOUT.fullmatch(path.name.lower().split(".")[0]) and not holds_rows):
        return "about the data"
    if extension == ARCHIVE:
        return "rows" if isinstance(content, FileContent) else "archives in an archive are not opened"
    if holds_rows:
        return "xml" if extension == ".xml" else "rows"
    if extension in documents and extension != ".txt":
        return "documents"
    if holds_lines(content):
        return "rows"
    return "documents" if extension in documents else "no known kind of data"


def _count(names: Sequence[str]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names):,} files"


def _short(contents: Sequence[Content], below: str) -> list[str]:
    return [content.name[len(below) :].lstrip("/!") for content in contents]


def _pattern(content: Content, below: str) -> str:
    """Return a glob for files like this one."""
    joint = "/**/*" if isinstance(content, FileContent) else "!*"
    return f"{below}{joint}{content.extension}"
