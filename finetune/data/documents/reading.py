"""Documents to rows of text, one row each: `read_documents(["handbook/a.md", "handbook/b.pdf"], where="data.train")`.

What is no text of the document (front matter, navigation, page headers, blocks that many documents repeat) is left out
and counted; a document without text is rejected with the reason. A row's key is the document's path below the folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.documents.boilerplate import clean_markdown, repeated_blocks, without_blocks
from finetune.data.documents.converted import LARGEST, Converted, Unreadable
from finetune.data.documents.markup import convert_docx, convert_html, convert_rst, convert_xml
from finetune.data.documents.pdf import convert_pdf
from finetune.data.reading.packed import Content, FileContent
from finetune.data.reading.utf8 import decode
from finetune.data.rows import Origin, Rejected, Row
from finetune.data.store import Store
from finetune.errors import FinetuneError, Problem

KINDS = {
    ".md": "Markdown",
    ".markdown": "Markdown",
    ".txt": "plain text",
    ".html": "HTML",
    ".htm": "HTML",
    ".xhtml": "HTML",
    ".rst": "reStructuredText",
    ".xml": "XML",
    ".docx": "Word",
    ".pdf": "PDF",
}
"""Extension -> kind of document."""

STUB = 100
"""Characters below which a document is no more than its title: nothing to learn from."""

_NAMED = 3
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What was read: a row for each document, the rejected ones, sha256 of each file, the container in words, notes.

    Fields of a row: `text`, `document` (its path below the folder, also the row's key), `title`, `kind`.
    """

    rows: Sequence[Row]
    rejected: list[Rejected]
    files: dict[str, str]
    container: str
    notes: tuple[Problem, ...]


def read_documents(paths: Sequence[str | Content], *, where: str = "", folder: str | None = None) -> Documents:
    """Read documents: Markdown, HTML, PDF, Word, plain text, XML and reStructuredText.

    Args:
        paths: files, or contents of an archive; their extensions say how they read.
        where: the recipe's position, put before problems with the names themselves.
        folder: documents are named by their paths below it; unset means the deepest one that holds them all.

    Raises:
        FinetuneError: with every fault of files as such: missing, unreadable, not UTF-8, an extra that is not
            installed. What is wrong inside of PDF, Word and XML documents makes them rejected instead.
    """
    reading = _Reading(where)
    contents = list(reading.opened(paths))
    names = _identities([content.name for content in contents], folder)
    converted = Store(reading.converted(contents, names))
    if reading.problems:
        raise FinetuneError.of(list({str(problem): problem for problem in reading.problems}.values()))
    repeated = repeated_blocks(str(row.fields["text"]) for row in converted)
    rows = Store(reading.kept(converted, repeated))
    words = [f"{count:,} {kind} document{'s' if count > 1 else ''}" for kind, count in reading.kinds.items()]
    return Documents(
        rows=rows,
        rejected=reading.rejected,
        files=reading.files,
        container=", ".join(words),
        notes=reading.notes(),
    )


class _Reading:
    """One reading of documents, and the account of what happened to them."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[Problem] = []
        self.rejected: list[Rejected] = []
        self.files: dict[str, str] = {}
        self.kinds: Counter[str] = Counter()
        self._stripped: Counter[str] = Counter()
        self._touched: Counter[str] = Counter()
        self._blocks: Counter[str] = Counter()

    def opened(self, paths: Iterable[str | Content]) -> Iterator[Content]:
        for path in paths:
            try:
                yield path if isinstance(path, Content) else FileContent(path, where=self.where)
            except FinetuneError as error:
                self.problems.extend(error.problems)

    def converted(self, contents: Sequence[Content], names: Sequence[str]) -> Iterator[Row]:
        """Give a row for each document that has text, with what the document's own markup says of it."""
        for content, name in zip(contents, names, strict=True):
            try:
                found = _convert(content)
                kind = KINDS[content.extension]
            except Unreadable as fault:
                self._reject(Origin(content.name, 1), fault.reason, fault.detail, fault.fix)
                continue
            except FinetuneError as error:
                self.problems.extend(error.problems)
                continue
            finally:
                if isinstance(content, FileContent):
                    self.files[content.name] = content.sha256()
            self.kinds[kind] += 1
            self._count(found.stripped)
            title = found.title or Path(name).stem
            fields = {"text": found.text, "document": name, "title": title, "kind": kind}
            yield Row(Origin(content.name, 1), fields, key=name)

    def kept(self, rows: Iterable[Row], repeated: frozenset[bytes]) -> Iterator[Row]:
        """Give the rows without the blocks that many repeat; reject those of which too little is left."""
        for row in rows:
            text, blocks = without_blocks(row.fields["text"], repeated)
            if blocks:
                self._count({"blocks that many documents repeat": len(blocks)})
                self._blocks.update(" ".join(block.split()) for block in blocks)
            size = len(text.strip())
            if size < STUB:
                detail = f"{size} characters of text, at least {STUB} are needed"
                self._reject(row.origin, "stub", detail)
                continue
            yield Row(row.origin, {**row.fields, "text": text}, row.key)

    def _count(self, stripped: dict[str, int] | Counter[str]) -> None:
        self._stripped.update(stripped)
        self._touched.update(stripped.keys())

    def _reject(self, origin: Origin, reason: str, detail: str, fix: str = "") -> None:
        self.rejected.append(Rejected(origin, reason, detail, fix))

    def notes(self) -> tuple[Problem, ...]:
        """Say what was left out of how many documents."""
        notes = []
        for kind, count in self._stripped.items():
            documents = self._touched[kind]
            what = f"{count:,} {kind} were left out of {documents:,} document{'s' if documents > 1 else ''}"
            if kind == "blocks that many documents repeat":
                shown = [f"{block[:_SHOWN]!r} ({times:,})" for block, times in self._blocks.most_common(_NAMED)]
                what += f": {', '.join(shown)}" + (" ..." if len(self._blocks) > _NAMED else "")
            notes.append(Problem(self.where, what, severity="note"))
        return tuple(notes)


def _convert(content: Content) -> Converted:
    extension = content.extension
    if extension not in KINDS:
        raise FinetuneError(f"no document: {content.name!r}", fix=f"use one of {' '.join(KINDS)}")
    if content.size > LARGEST:
        raise Unreadable("too large", f"{content.size:,} bytes, at most {LARGEST:,}", "divide it")
    data = content.read()
    if len(data) > LARGEST:
        raise Unreadable("too large", f"{len(data):,} bytes unpacked, at most {LARGEST:,}", "divide it")
    if not data.strip():
        raise Unreadable("stub", "the file is empty")
    return _CONVERTERS[KINDS[extension]](data, content.name)


def _convert_markdown(data: bytes, name: str) -> Converted:
    return clean_markdown(decode(data, name))


def _convert_text(data: bytes, name: str) -> Converted:
    return Converted(decode(data, name))


_CONVERTERS: dict[str, Callable[[bytes, str], Converted]] = {
    "Markdown": _convert_markdown,
    "plain text": _convert_text,
    "HTML": convert_html,
    "reStructuredText": convert_rst,
    "XML": convert_xml,
    "Word": convert_docx,
    "PDF": convert_pdf,
}


def _identities(names: Sequence[str], folder: str | None) -> list[str]:
    """Name each document by its path below a folder, or below the deepest one that holds them all."""
    if not names:
        return []
    if folder is None:
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names])
    return [Path(os.path.relpath(os.path.abspath(name), folder)).as_posix() for name in names]
