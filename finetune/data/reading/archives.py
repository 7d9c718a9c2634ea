"""The files inside a zip archive, read like files of their own: `archive_members(FileContent("a.zip"))`."""

from __future__ import annotations

import fnmatch
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath

from finetune.data.reading.packed import BOMB_BYTES, BOMB_RATIO, Content, FileContent
from finetune.errors import FinetuneError, Problem, nearest

_LISTED = 8


@contextmanager
def archive_members(file: FileContent, *, member: str = "") -> Iterator[tuple[Content, ...]]:
    """Open a zip archive for a while; give its files as contents called `ARCHIVE.zip!MEMBER`, sorted by name.

    Args:
        file: the archive.
        member: name or glob of the files that are wanted; empty takes all.

    Raises:
        FinetuneError: it is no zip archive, unpacks to far more than any real one does, holds no such member, or a
            member is encrypted, a link, or has a name that leads out of the archive; all such members are named.
    """
    with file.open_anywhere() as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise FinetuneError(f"not a readable zip archive: {error}", where=file.name) from None
        with archive:
            found = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
            _refuse(file, found)
            wanted = [info for info in found if not member or fnmatch.fnmatchcase(info.filename, member)]
            if not wanted:
                raise _nothing(file.name, member, [info.filename for info in found])
            # An empty member has no size to hold what it unpacks to against
            yield tuple(
                Content(f"{file.name}!{info.filename}", max(1, info.compress_size), partial(archive.open, info))
                for info in wanted
            )


def _refuse(file: FileContent, found: list[zipfile.ZipInfo]) -> None:
    size = sum(info.file_size for info in found)
    if size > BOMB_BYTES and size > BOMB_RATIO * file.size:
        raise FinetuneError(
            f"{file.size:,} bytes are to unpack to {size:,}, more than {BOMB_RATIO} times as many: like a zip bomb",
            where=file.name,
            fix="if the file is right, unpack it yourself and name the unpacked files",
        )
    problems = [Problem(f"{file.name}!{info.filename}", *fault) for info in found if (fault := _fault(info))]
    if problems:
        raise FinetuneError.of(problems)


def _fault(info: zipfile.ZipInfo) -> tuple[str, str] | None:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.orig_filename or ":" in info.filename:
        return "a name that leads out of the archive", "make the archive again, with plain names in it"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, not a file", "make the archive again, with the file itself in it"
    if info.flag_bits & 1:
        return "an encrypted member", "unpack the archive with its password and name the unpacked files"
    return None


def _nothing(name: str, member: str, names: list[str]) -> FinetuneError:
    if not names:
        return FinetuneError("no rows: the archive is empty", where=name)
    near = nearest(member, names)
    holds = ", ".join(map(repr, names[:_LISTED])) + (" ..." if len(names) > _LISTED else "")
    fix = f"did you mean {f'{name}!{near}'!r}?" if near else f"it holds {holds}"
    return FinetuneError(f"the archive has no member {member!r}", where=name, fix=fix)
