"""UTF-8 text out of bytes, or what exactly is wrong with it and on which line: `decode`, `text_lines`, `head`."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import IO

from finetune.data.reading.packed import Content
from finetune.errors import FinetuneError

_BLOCK = 1 << 20
_AROUND = 12
_MAGIC = {
    b"\x1f\x8b": ("gzip data", "name the file with .gz at its end"),
    b"PAR1": ("Parquet data", "name the file with .parquet at its end"),
    b"ARROW1": ("Arrow data", "name the file with .arrow at its end"),
    b"PK\x03\x04": ("a zip archive (or an Office document)", "unpack it, or save it as CSV"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "name the file with .zst at its end"),
    b"BZh": ("bzip2 data", "name the file with .bz2 at its end"),
    b"\xfd7zXZ\0": ("xz data", "name the file with .xz at its end"),
}
_UTF16_ADVICE = "save it as UTF-8, e.g. `iconv -f UTF-16 -t UTF-8 OLD > NEW`"


def head(content: Content) -> str:
    """Return the first megabyte that is not blank, for looking at; what is not UTF-8 in it is replaced.

    Raises:
        FinetuneError: there is none, or the first bytes are those of another kind of file.
    """
    with content.open() as stream:
        block = stream.read(_BLOCK)
        _refuse_magic(block, content.name)
        block = block.removeprefix(codecs.BOM_UTF8)
        while not block.strip():
            block = stream.read(_BLOCK)
            if not block:
                raise FinetuneError("the file is empty", where=content.name)
    return block.decode("utf-8", "replace")


def decode(content: bytes, name: str) -> str:
    """Return the text without its byte order mark.

    Raises:
        FinetuneError: it is empty, not UTF-8, or holds NUL bytes; the problem says where and what.
    """
    if not content.removeprefix(codecs.BOM_UTF8).strip():
        raise FinetuneError("the file is empty", where=name)
    _refuse_magic(content, name)
    if b"\0" not in content:
        mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        try:
            return content[mark:].decode("utf-8")
        except UnicodeDecodeError:
            pass
    raise _fault(io.BytesIO(content), io.BytesIO(content), name)


def text_lines(content: Content) -> Iterator[str]:
    """Yield the lines of a text, read one after another and ended by a newline alone; the last may have none.

    Raises:
        FinetuneError: as `decode` has it; the whole file is looked at to say it.
    """
    with content.open() as stream:
        first = True
        for line in stream:
            try:
                text = line.decode("utf-8") if b"\0" not in line else None
            except UnicodeDecodeError:
                text = None
            if text is None:
                raise text_fault(content)
            yield text.removeprefix("\ufeff") if first else text
            first = False


def text_pieces(content: Content) -> Iterator[str]:
    r"""Yield the lines of a text with their ends as they are, be they `\n`, `\r\n` or `\r`.

    Raises:
        FinetuneError: as `decode` has it.
    """
    with content.open() as stream, io.TextIOWrapper(stream, "utf-8", newline="") as text:
        first = True
        try:
            for piece in text:
                if "\0" in piece:
                    raise text_fault(content)
                yield piece.removeprefix("\ufeff") if first else piece
                first = False
        except UnicodeDecodeError:
            raise text_fault(content) from None


def text_fault(content: Content) -> FinetuneError:
    """Look through a whole text that cannot be read for what is wrong: NUL bytes first, then what is not UTF-8."""
    with content.open() as stream, content.open() as again:
        return _fault(stream, again, content.name)


def _refuse_magic(start: bytes, name: str) -> None:
    for magic, (kind, advice) in _MAGIC.items():
        if start.startswith(magic):
            raise FinetuneError(f"holds {kind}, not text", where=name, fix=advice)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FinetuneError("not UTF-8: it starts like UTF-16", where=f"{name}:1", fix=_UTF16_ADVICE)


def _fault(stream: IO[bytes], again: IO[bytes], name: str) -> FinetuneError:
    size = nuls = nul_line = lines = 0
    nul = bad = -1
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := stream.read(_BLOCK):
        if nul < 0 and (found := block.find(b"\0")) >= 0:
            nul, nul_line = size + found, lines + block.count(b"\n", 0, found) + 1
        nuls += block.count(b"\0")
        if bad < 0:
            bad = _first_bad(decoder, block, size)
        size += len(block)
        lines += block.count(b"\n")
    if bad < 0:
        bad = _first_bad(decoder, b"", size)
    if nuls * 3 > size:
        return FinetuneError("not UTF-8: it looks like UTF-16", where=f"{name}:{nul_line}", fix=_UTF16_ADVICE)
    if nul >= 0:
        return FinetuneError(
            f"NUL byte at byte {nul} ({nuls} in the file)", where=f"{name}:{nul_line}", fix="remove them"
        )
    return _not_utf8(again, bad, name)


def _first_bad(decoder: codecs.IncrementalDecoder, block: bytes, start: int) -> int:
    """Return where in the text the first byte is that cannot be UTF-8, or -1; `start` is where the block begins."""
    pending = len(decoder.getstate()[0])
    try:
        decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        return start - pending + error.start
    return -1


def _not_utf8(stream: IO[bytes], offset: int, name: str) -> FinetuneError:
    line, position, before = 1, 0, b""
    while position + _BLOCK <= offset - _AROUND:
        block = stream.read(_BLOCK)
        line += block.count(b"\n")
        position += len(block)
    before = stream.read(offset - position)
    line += before.count(b"\n")
    after = stream.read(_AROUND)
    around = before[-_AROUND:] + after
    try:
        guess, shown = "cp1252", around.decode("cp1252")
    except UnicodeDecodeError:
        guess, shown = "latin-1", around.decode("latin-1")
    return FinetuneError(
        f"not UTF-8: byte 0x{after[0]:02x} at byte {offset}",
        where=f"{name}:{line}",
        fix=f"as {guess} it reads {shown!r}; if that is right: `iconv -f {guess} -t UTF-8 OLD > NEW`",
    )
