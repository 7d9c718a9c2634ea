"""Bytes to be read, unpacked as their name says and hashed on the way: `FileContent("rows.jsonl.gz").open()`."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 1 << 20
# What unpacks to more than this, and to so many times its size, was made to fill a disk
BOMB_BYTES = 256 * 1024**2
BOMB_RATIO = 200

PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""Extension -> name of a packing around one file."""


class Content:
    """Bytes under a name, to be opened as often as needed, and unpacked as the name says.

    Args:
        name: the file as the user wrote it, for origins and problems.
        size: bytes before they are unpacked.
        raw: opens those bytes.
    """

    def __init__(self, name: str, size: int, raw: Callable[[], IO[bytes]]) -> None:
        self.name = name
        self.size = size
        self._raw = raw

    @property
    def packing(self) -> str:
        """The name of the packing, empty for none."""
        return PACKINGS.get(Path(self.name.lower()).suffix, "")

    @property
    def extension(self) -> str:
        """The extension that says how the content reads, below that of a packing."""
        return extension_of(self.name)

    def open(self) -> io.BufferedReader:
        """Open the unpacked bytes at their start.

        Reading raises FinetuneError: the packing is broken, or unpacks to far more than any real file does.
        """
        return io.BufferedReader(_Unpacked(self._raw(), self), _BLOCK)

    def read(self) -> bytes:
        """Return all the unpacked bytes."""
        with self.open() as stream:
            return stream.read()

    def open_anywhere(self) -> IO[bytes]:
        """Open the unpacked bytes to be read in any order; what is packed, or in an archive, is held in memory."""
        return io.BytesIO(self.read())


class FileContent(Content):
    """A file on this machine.

    Args:
        name: its path.
        where: the recipe's position, put before problems with the name.
        advice: says of a path that does not exist what might be meant.

    Raises:
        FinetuneError: it cannot be opened.
    """

    def __init__(self, name: str, *, where: str = "", advice: Callable[[str], str] = lambda _: "") -> None:
        path = Path(name).expanduser()
        try:
            if path.exists() and not path.is_file():
                raise FinetuneError(f"{name!r} is no regular file", where=where, fix="name a file")
            with path.open("rb"):
                size = path.stat().st_size
        except (FileNotFoundError, ValueError):  # the latter of a name with a NUL in it
            raise FinetuneError(f"no such file: {name!r}", where=where, fix=advice(name)) from None
        except PermissionError:
            raise FinetuneError(f"no permission to read {name!r}", where=where, fix=f"chmod u+r {name}") from None
        except OSError as error:
            raise FinetuneError(f"{name!r} cannot be read: {error.strerror or error}", where=where) from None
        self._path = path
        self._last: _Hashing | None = None
        super().__init__(name, size, self._open)

    def _open(self) -> IO[bytes]:
        self._last = _Hashing(self._path)
        return self._last

    def open_anywhere(self) -> IO[bytes]:
        return super().open_anywhere() if self.packing else self._path.open("rb")

    def sha256(self) -> str:
        """Return the hash of the file's bytes as they were last read; what was left unread is read now."""
        if self._last is not None and self._last.in_order:
            return self._last.finish()
        with _Hashing(self._path) as file:
            return file.finish()


class _Hashing(io.FileIO):
    """A file that hashes what is read of it, as long as it is read from start to end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path = path
        self._digest = hashlib.sha256()
        self._hashed = 0
        self.in_order = True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        count = super().readinto(buffer)
        self._add(memoryview(buffer).cast("B")[: count or 0])
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        found = super().read(size) or b""
        self._add(found)
        return found

    def readall(self) -> bytes:
        found = super().readall() or b""
        self._add(found)
        return found

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        self.in_order = False
        return super().seek(position, whence)

    def _add(self, found: bytes | memoryview) -> None:
        self._digest.update(found)
        self._hashed += len(found)

    def finish(self) -> str:
        """Hash what is left, also after the file was closed."""
        with self._path.open("rb") as rest:
            rest.seek(self._hashed)
            while block := rest.read(_BLOCK):
                self._digest.update(block)
                self._hashed += len(block)
        return self._digest.hexdigest()


class _Unpacked(io.RawIOBase):
    """The bytes of a content, through whatever undoes its packing."""

    def __init__(self, raw: IO[bytes], content: Content) -> None:
        self._raw = raw
        self._content = content
        self._bytes = 0
        self._source: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        content = self._content
        try:
            if self._source is None:
                self._source = _undo(self._raw, content)
            found = self._source.read(len(view))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
            if not content.packing:
                raise FinetuneError(f"cannot be read: {error}", where=content.name) from None
            fix = "fetch or pack the file again"
            raise FinetuneError(f"broken {content.packing} data: {error}", where=content.name, fix=fix) from None
        view[: len(found)] = found
        self._bytes += len(found)
        if self._bytes > BOMB_BYTES and self._bytes > BOMB_RATIO * content.size:
            raise FinetuneError(
                f"{content.size:,} bytes unpack to more than {BOMB_RATIO} times as many: like a zip bomb",
                where=content.name,
                fix="if the file is right, unpack it yourself and name the unpacked file",
            )
        return len(found)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        self._raw.close()
        super().close()


def _undo(raw: IO[bytes], content: Content) -> IO[bytes]:
    if not content.size:
        return raw
    if content.packing == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if content.packing == "bzip2":
        return bz2.BZ2File(raw)
    if content.packing == "xz":
        return lzma.LZMAFile(raw)
    if content.packing == "zstd":
        import pyarrow as pa

        unpacked: IO[bytes] = pa.CompressedInputStream(raw, "zstd")
        return unpacked
    return raw


def extension_of(name: str) -> str:
    """Return the extension that says how a file reads, in lower case, below that of a packing."""
    path = Path(name.lower())
    return path.with_suffix("").suffix if path.suffix in PACKINGS else path.suffix
