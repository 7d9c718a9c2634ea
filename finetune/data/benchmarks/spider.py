"""Spider: questions put to databases, answered in SQL (Yu et al. 2018, arXiv:1809.08887), and its test Spider-DK.

The tables of a database are read from `tables.json` beside the questions. Where SQLite files lie beside them too, test
questions without one are refused, because their answer cannot be run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has, json_beside, repeats
from finetune.data.formats.contents import text_of
from finetune.data.reading.sources import Source, read_rows
from finetune.data.rows import Content, Rejected, Row

_TESTS = ("Spider-DK.json", "test.json")


def _read(file: str) -> Source:
    """Read the questions, each with the tables of its database and the SQLite file, where it is there."""
    source = read_rows(file)
    folder = Path(file).parent
    tables = folder / "tables.json"
    schemas = {}
    if tables.is_file():
        schemas = {schema["db_id"]: _tables(schema) for schema in json_beside(tables)}
    databases = {path.stem: str(path) for path in sorted(folder.glob("*database/*/*.sqlite"))}
    wanted = bool(databases) and Path(file).name in _TESTS
    rows = []
    for row in source.rows:
        name = str(row.fields.get("db_id"))
        about = {"tables": schemas.get(name, ""), "database": databases.get(name, ""), "runs": wanted}
        rows.append(replace(row, fields={**row.fields, **about}))
    return replace(source, rows=rows)


def _tables(schema: Mapping[str, Any]) -> str:
    """Write the tables of a database, one a line with its columns."""
    columns = defaultdict(list)
    for table, column in schema["column_names_original"]:
        columns[table].append(column)
    return "\n".join(
        f"{table}({', '.join(columns[number])})" for number, table in enumerate(schema["table_names_original"])
    )


def _rows(record: Row) -> Iterator[Row | Rejected]:
    """Refuse a test question whose answer cannot be run where others can."""
    if record.fields.get("runs") and not record.fields["database"]:
        detail = f"there is no SQLite file of {record.fields['db_id']!r}"
        yield Rejected(record.origin, "no database to run on", detail)
    else:
        yield record


def _content(fields: Fields) -> Content:
    database = fields.get("database", "")
    question = text_of(fields, "question", empty="empty prompt")
    tables = text_of(fields, "tables", empty="tables unknown")
    prompt = f"Tables of an SQLite database:\n{tables}\n\nQuestion: {question}\nAnswer with one SQL query only."
    return exchange(prompt, text_of(fields, "query", empty="empty answer"), database=database)


SPIDER = Benchmark(
    name="spider",
    what="questions put to a database, answered in SQL that is run",
    files={
        "train": ("**/train_spider.json", "**/train_others.json"),
        "validation": ("**/dev.json",),
        "test": tuple(f"**/{name}" for name in _TESTS),
    },
    fits=has("db_id", "query", "question"),
    content=_content,
    scorer="sql",
    hub="xlangai/spider",
    leak_fields=("query_toks", "query_toks_no_value", "sql"),
    group="db_id",
    rows=_rows,
    read=_read,
    check=repeats("question"),
)
