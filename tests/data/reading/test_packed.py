"""Packed files: what comes out, what is hashed, what is broken, and what is a bomb."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from finetune.data.reading.packed import Content, FileContent, extension_of
from finetune.data.reading.sources import read_rows
from finetune.errors import FinetuneError

TEXT = "".join(f'{{"a": {number}}}\n' for number in range(3_000)).encode()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}
NAMES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_rows_are_read_and_the_packed_bytes_hashed(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"rows.jsonl.{kind}"
    file.write_bytes(PACKERS[kind](TEXT))
    source = read_rows(str(file))
    assert [row.fields["a"] for row in source.rows] == list(range(3_000))
    assert source.container == "JSON Lines"
    assert source.files == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.mark.parametrize("kind", PACKERS)
def test_frames_one_after_another_are_one_text(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"rows.jsonl.{kind}"
    file.write_bytes(PACKERS[kind](TEXT) + PACKERS[kind](b'{"a": "last"}\n'))
    assert [len(read_rows(str(file)).rows), read_rows(str(file)).rows[-1].fields] == [3_001, {"a": "last"}]


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_broken_packings_are_named(tmp_path: Path, kind: str, damage: str) -> None:
    file = tmp_path / f"rows.jsonl.{kind}"
    file.write_bytes(PACKERS[kind](TEXT)[:-6] if damage == "cut" else TEXT)
    with pytest.raises(FinetuneError) as caught:
        read_rows(str(file))
    (problem,) = caught.value.problems
    assert problem.where == str(file)
    assert problem.what.startswith(f"broken {NAMES[kind]} data: ")
    assert problem.fix == "fetch or pack the file again"


@pytest.mark.parametrize("kind", PACKERS)
def test_an_empty_packing_is_empty(tmp_path: Path, kind: str) -> None:
    for content in (b"", PACKERS[kind](b""), PACKERS[kind](b" \n")):
        file = tmp_path / f"rows.jsonl.{kind}"
        file.write_bytes(content)
        with pytest.raises(FinetuneError, match="the file is empty"):
            read_rows(str(file))


def test_a_bomb_is_refused_before_it_fills_anything(tmp_path: Path) -> None:
    file = tmp_path / "bomb.jsonl.gz"
    file.write_bytes(gzip.compress(b" " * 300_000_000, compresslevel=1))
    with pytest.raises(FinetuneError) as caught:
        read_rows(str(file))
    size = f"{file.stat().st_size:,}"
    assert caught.value.problems[0].what == f"{size} bytes unpack to more than 200 times as many: like a zip bomb"


@pytest.mark.parametrize("opened", [1, 3])
def test_the_hash_is_that_of_the_file_however_often_and_far_it_was_read(tmp_path: Path, opened: int) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(TEXT * 100)
    expected = hashlib.sha256(TEXT * 100).hexdigest()
    content = FileContent(str(file))
    assert content.sha256() == expected
    for number in range(opened):
        with content.open() as stream:
            stream.read(number * 1_000)
    assert content.sha256() == expected
    with content.open_anywhere() as anywhere:
        anywhere.seek(100)
        anywhere.read()
    assert content.sha256() == expected


def test_extensions_below_a_packing() -> None:
    names = ["a.JSON", "a.csv.gz", "a.tar.bz2", "a.b.jsonl.ZST", "noext", "x.gz"]
    assert [extension_of(name) for name in names] == [".json", ".csv", ".tar", ".jsonl", "", ""]
    assert [Content(name, 1, lambda: None).packing for name in names] == ["", "gzip", "bzip2", "zstd", "", "gzip"]  # type: ignore[arg-type, return-value]
