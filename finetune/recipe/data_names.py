"""How a recipe names data: `PATH`, `ARCHIVE.zip!MEMBER`, `FILE.json::/path/inside`, and `#500` for a draw of rows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_NAME = re.compile(r"(?P<path>.+?)(?:::(?P<inside>.*?))?(?:#(?P<rows>\d+))?", re.DOTALL)
_MEMBER = re.compile(r"(?P<path>.+?\.zip)!(?P<member>.+)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DataName:
    """One name of data, taken apart.

    Attributes:
        path: file, folder, glob, or `hub:` name.
        member: the file meant inside an archive; empty means all of them.
        inside: where in the document the rows are: a JSON pointer (RFC 6901) or the path of XML elements.
        rows: how many rows are drawn; None takes all.
    """

    path: str
    member: str = ""
    inside: str | None = None
    rows: int | None = None

    def __str__(self) -> str:
        member = f"!{self.member}" if self.member else ""
        inside = "" if self.inside is None else f"::{self.inside}"
        return f"{self.path}{member}{inside}" + ("" if self.rows is None else f"#{self.rows}")


def split_name(value: str, *, folder: str = "") -> DataName:
    """Take a name of data apart; what exists under the whole name, in `folder`, is that file and nothing else."""
    if not value.startswith("hub:") and "\0" not in value:
        whole = os.path.join(folder, os.path.expanduser(value))
        if os.path.lexists(whole):
            return DataName(value)
    found = _NAME.fullmatch(value)
    if found is None:
        return DataName(value)
    path, inside, rows = found.group("path", "inside", "rows")
    in_archive = _MEMBER.fullmatch(path)
    member = ""
    if in_archive is not None:
        path, member = in_archive.group("path", "member")
    return DataName(path, member, inside, None if rows is None else int(rows))
