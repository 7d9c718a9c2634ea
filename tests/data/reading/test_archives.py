"""Zip archives: members read as files of their own, and archives that are not opened."""

from __future__ import annotations

import gzip
import hashlib
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from finetune.data.reading.sources import read_rows
from finetune.errors import FinetuneError, Problem


def packed(path: Path, members: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def refused(spec: str) -> tuple[Problem, ...]:
    with pytest.raises(FinetuneError) as caught:
        read_rows(spec, where="recipe.yaml:3")
    return caught.value.problems


MEMBERS: dict[str, str | bytes] = {
    "b/rows.csv": "text,n\nx,1\ny,2\n",
    "a.jsonl": '{"text": "z"}\n',
    "c.jsonl.gz": gzip.compress(b'{"text": "w"}\n'),
    "README.md": "about",
    "b/": "",
    "__MACOSX/._a.jsonl": "junk",
    "b/photo.png": b"\x89PNG",
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_files(tmp_path: Path, method: int) -> None:
    file = packed(tmp_path / "corpus.zip", MEMBERS, method)
    source = read_rows(file)
    assert [(str(row.origin), row.fields["text"]) for row in source.rows] == [
        (f"{file}!a.jsonl:1", "z"),
        (f"{file}!b/rows.csv:2", "x"),
        (f"{file}!b/rows.csv:3", "y"),
        (f"{file}!c.jsonl.gz:1", "w"),
    ]
    assert source.container == "JSON Lines (2 files), CSV"
    assert source.files == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    assert [(note.where, note.what, note.severity) for note in source.notes] == [
        (file, "1 file set aside (about the data): README.md", "note"),
        (file, "1 file set aside (hidden): __MACOSX/._a.jsonl", "note"),
        (file, "1 file set aside (no known kind of data): b/photo.png", "note"),
    ]


def test_one_member_can_be_named(tmp_path: Path) -> None:
    file = packed(tmp_path / "corpus.zip", {**MEMBERS, "d.json": '{"x": {"rows": [{"text": "v"}]}, "y": [{"b": 1}]}'})
    assert [row.fields["text"] for row in read_rows(f"{file}!b/rows.csv").rows] == ["x", "y"]
    assert [row.fields["text"] for row in read_rows(f"{file}!*.jsonl").rows] == ["z"]
    assert [row.fields["text"] for row in read_rows(f"{file}!d.json::/x/rows").rows] == ["v"]
    assert len(read_rows([f"{file}!b/rows.csv#1", f"{file}!a.jsonl"]).rows) == 2
    (problem,) = refused(f"{file}!b/row.csv")
    assert (problem.where, problem.what) == (file, "the archive has no member 'b/row.csv'")
    assert problem.fix == f"did you mean {f'{file}!b/rows.csv'!r}?"
    (problem,) = refused(f"{file}!zzz")
    assert problem.fix.startswith("it holds 'README.md', '__MACOSX/._a.jsonl', 'a.jsonl', ")


def test_documents_in_an_archive(tmp_path: Path) -> None:
    page = "# Legs\n\n" + "A spider has eight legs, and nobody who counted them has ever found another number. " * 3
    file = packed(tmp_path / "pages.zip", {"a/legs.md": page, "b.txt": page.replace("spider", "mite"), "LICENSE": "x"})
    source = read_rows(file)
    assert [str(row.origin) for row in source.rows] == [f"{file}!a/legs.md:1", f"{file}!b.txt:1"]
    assert source.files == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest()}
    assert [row.origin.file for row in read_rows(f"{file}!*.md").rows] == [f"{file}!a/legs.md"]
    mixed = packed(tmp_path / "mixed.zip", {"a.md": page, "b.csv": "text\nx\n"})
    (problem,) = refused(mixed)
    assert problem.what == f"{mixed!r} holds both rows (b.csv) and documents (a.md)"
    assert problem.fix == f"name one kind, e.g. {f'{mixed}!*.csv'!r} or {f'{mixed}!*.md'!r}"


def test_what_is_wrong_inside_is_told_with_member_and_line(tmp_path: Path) -> None:
    file = packed(
        tmp_path / "corpus.zip", {"a.csv": b"text\ncaf\xe9\n", "b.jsonl": "", "c.jsonl": '{"a": 1}\n{"a": \n'}
    )
    assert [(problem.where, problem.what) for problem in refused(file)] == [
        (f"{file}!a.csv:2", "not UTF-8: byte 0xe9 at byte 8"),
        (f"{file}!b.jsonl", "the file is empty"),
    ]
    (bad,) = read_rows(f"{file}!c.jsonl").rejected
    assert str(bad.origin) == f"{file}!c.jsonl:2"


@pytest.mark.parametrize("name", ["../evil.csv", "/etc/evil.csv", "a/../../evil.csv", "C:/evil.csv", "a\\..\\evil.csv"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    file = packed(tmp_path / "a.zip", {"good.csv": "a\n1\n", name: "a\n1\n", "link": "x"})
    (problem,) = refused(file)
    assert problem.where == f"{file}!{name}"
    assert problem.what == "a name that leads out of the archive"
    assert not list(tmp_path.rglob("*evil*"))


def test_links_and_encrypted_members_are_refused_all_at_once(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret.csv", "a\n1\n")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    place = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<H", raw, place + 8, 1)
    (tmp_path / "a.zip").write_bytes(raw)
    assert [problem.what for problem in refused(str(tmp_path / "a.zip"))] == [
        "a link, not a file",
        "an encrypted member",
    ]


def test_bombs_are_refused(tmp_path: Path) -> None:
    file = packed(tmp_path / "bomb.zip", {"a.csv": b"a\n" + b"\n" * 300_000_000})
    (problem,) = refused(file)
    size = f"{Path(file).stat().st_size:,}"
    assert problem.what == (f"{size} bytes are to unpack to 300,000,002, more than 200 times as many: like a zip bomb")
    # One that lies about its size is stopped while it unpacks
    raw = bytearray(Path(file).read_bytes())
    struct.pack_into("<I", raw, raw.rindex(b"PK\x01\x02") + 24, 1_000)
    Path(file).write_bytes(raw)
    (problem,) = refused(file)
    assert problem.where == f"{file}!a.csv"


def test_archives_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("text")
    assert refused(str(tmp_path / "text.zip"))[0].what == "not a readable zip archive: File is not a zip file"
    assert refused(packed(tmp_path / "empty.zip", {}))[0].what == "no rows: the archive is empty"
    inner = packed(tmp_path / "inner.zip", {"a.csv": "a\n1\n"})
    outer = packed(tmp_path / "outer.zip", {"inner.zip": Path(inner).read_bytes()})
    (problem,) = refused(outer)
    assert problem.where == "recipe.yaml:3"
    assert problem.what == (f"{outer!r} holds nothing to learn from (inner.zip: archives in an archive are not opened)")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    file = packed(tmp_path / "a.zip", {"a.csv": "text\n" + "x\n" * 50}, zipfile.ZIP_STORED)
    raw = bytearray(Path(file).read_bytes())
    raw[raw.index(b"x\n") + 20] ^= 1
    Path(file).write_bytes(raw)
    (problem,) = refused(file)
    assert (problem.where, problem.what) == (f"{file}!a.csv", "cannot be read: Bad CRC-32 for file 'a.csv'")
