"""Parquet and Arrow: rows by number, batch by batch, and tables that cannot be read."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from finetune.data.reading.sources import read_rows
from finetune.errors import FinetuneError

TABLE = pa.table({"text": [f"row {number}" for number in range(2_500)], "turns": [[{"role": "user"}], None] * 1_250})


def written(path: Path, table: pa.Table) -> str:
    if path.name.startswith("stream"):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path))
    elif path.suffix == ".gz":
        sink = io.BytesIO()
        pq.write_table(table, sink)
        path.write_bytes(gzip.compress(sink.getvalue()))
    else:
        pq.write_table(table, path, row_group_size=900)
    return str(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz", "file.arrow", "stream.arrow", "a.feather"])
def test_all_batches_are_read_in_order(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, TABLE)
    source = read_rows(file)
    assert [row.fields["text"] for row in source.rows] == TABLE["text"].to_pylist()
    assert [row.origin.line for row in source.rows] == list(range(1, 2_501))
    assert source.rows[0].fields["turns"] == [{"role": "user"}]
    assert source.container == ("Parquet" if "parquet" in name else "Arrow")
    assert source.files == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest()}


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_tables_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, TABLE)
    whole = Path(file).read_bytes()
    kind = "Parquet" if name == "a.parquet" else "Arrow"
    for content, what in ((b"", "the file is empty"), (b"text", f"not a readable {kind} file: ")):
        Path(file).write_bytes(content)
        with pytest.raises(FinetuneError) as caught:
            read_rows(file)
        assert caught.value.problems[0].where == file
        assert caught.value.problems[0].what.startswith(what)
    Path(file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FinetuneError, match=r"not a readable|broken table"):
        read_rows(file)
    written(tmp_path / name, TABLE.slice(0, 0))
    with pytest.raises(FinetuneError, match="no rows: the table is empty"):
        read_rows(file)


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(FinetuneError, match=r"columns with the same name among \['a', 'a'\]"):
        read_rows(written(tmp_path / "a.arrow", table))


def test_feather_of_the_first_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + b"\0" * 64)
    with pytest.raises(FinetuneError, match="holds Feather version 1, which is no longer read"):
        read_rows(str(tmp_path / "a.feather"))


def test_characters_that_no_text_may_hold(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b\0", "c"], "more": [["x"], ["y"], [None]]})
    source = read_rows(written(tmp_path / "a.parquet", table))
    assert [row.fields["text"] for row in source.rows] == ["a", "c"]
    (bad,) = source.rejected
    assert (bad.origin.line, bad.reason, bad.detail) == (2, "NUL character", "\\u0000 at character 2 of a value")
