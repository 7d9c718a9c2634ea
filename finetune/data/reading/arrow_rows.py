"""Rows out of Parquet and Arrow files (IPC, stream, Feather), batch by batch: `read_parquet(content)`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from finetune.data.reading.json_values import checked_row
from finetune.data.reading.packed import Content
from finetune.data.reading.records import Records
from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 1000


def read_parquet(content: Content) -> Records:
    """Read the rows of a Parquet file; the line of a row is its number, counted from 1.

    Raises:
        FinetuneError: the bytes are no readable Parquet, hold no rows, or two columns have the same name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = _opened(content)
    try:
        file = pq.ParquetFile(stream)
        names, batches = file.schema_arrow.names, file.iter_batches(_BATCH)
    except (pa.ArrowException, OSError, ValueError) as error:
        stream.close()
        raise FinetuneError(f"not a readable Parquet file: {error}", where=content.name) from None
    return Records(container="Parquet", items=_rows(stream, names, batches, content.name))


def read_arrow(content: Content) -> Records:
    """Read the rows of an Arrow file, in the file or the stream format; see `read_parquet`.

    Raises:
        FinetuneError: as `read_parquet`.
    """
    import pyarrow as pa

    stream = _opened(content)
    start = stream.read(6)
    stream.seek(0)
    if start.startswith(b"FEA1"):
        stream.close()
        fix = "write it again as Feather version 2, Parquet or JSON Lines"
        raise FinetuneError("holds Feather version 1, which is no longer read", where=content.name, fix=fix)
    try:
        if start == b"ARROW1":
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            file = pa.ipc.open_stream(stream)
            batches = iter(file)
        names = file.schema.names
    except (pa.ArrowException, OSError, ValueError) as error:
        stream.close()
        raise FinetuneError(f"not a readable Arrow file: {error}", where=content.name) from None
    return Records(container="Arrow", items=_rows(stream, names, batches, content.name))


def _opened(content: Content) -> IO[bytes]:
    stream = content.open_anywhere()
    if not stream.read(1):
        stream.close()
        raise FinetuneError("the file is empty", where=content.name)
    stream.seek(0)
    return stream


def _rows(
    stream: IO[bytes], names: list[str], batches: Iterable[pa.RecordBatch], file: str
) -> Iterator[Row | Rejected]:
    with stream:
        if len(set(names)) < len(names):
            raise FinetuneError(f"columns with the same name among {names}", where=file)
        number = 0
        for fields in _records(batches, file):
            number += 1
            yield checked_row(Origin(file, number), fields)
        if not number:
            raise FinetuneError("no rows: the table is empty", where=file)


def _records(batches: Iterable[pa.RecordBatch], file: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield from batch.slice(start, _BATCH).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FinetuneError(f"broken table: {error}", where=file) from None
