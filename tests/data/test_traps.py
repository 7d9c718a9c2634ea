"""Files that other trainers read wrongly, crash on, or read without a word: each is named with file and line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from finetune.data.reading.sources import read_rows
from finetune.data.rows import Rejected
from finetune.errors import FinetuneError, Problem

GOOD = '{"prompt": "a", "completion": "b"}'


def written(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(folder / name)


def refused(file: str) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        read_rows(file)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.jsonl", "\n \n", "the file is empty"),
        ("a.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("a.json", "[]", "no rows: the list is empty"),
        ("a.json", "{}", "found an empty object where rows are expected"),
        ("a.csv", "prompt,completion\n", "no rows: there is only a header"),
        ("a.xml", "", "the file is empty"),
        ("a.parquet", b"", "the file is empty"),
    ],
)
def test_empty_files(tmp_path: Path, name: str, content: str | bytes, what: str) -> None:
    file = written(tmp_path, name, content)
    problem = refused(file)
    assert problem.what == what
    assert problem.where.startswith(file)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '{"prompt": "a", "completion": "b"',
            ("broken JSON", 'expecting \',\' delimiter at column 34: \'", "completion": "b"\'', ""),
        ),
        (
            '{"prompt": "a", "prompt": "b"}',
            ("duplicate key", "key 'prompt' occurs 2 times in one object", ""),
        ),
        (
            '{"prompt": {"x": 1, "x": 2}}',
            ("duplicate key", "key 'x' occurs 2 times in one object", ""),
        ),
        ('{"prompt": NaN}', ("not a finite number", "NaN is not JSON", "write null or a number")),
        ('{"prompt": -Infinity}', ("not a finite number", "-Infinity is not JSON", "write null or a number")),
        ('[{"prompt": "a"}]', ("not an object", 'found a list: \'[{"prompt": "a"}]\'', "")),
        ("null", ("not an object", "found null: 'null'", "")),
        (
            '{"prompt": "\\ud83d"}',
            ("lone surrogate", "\\ud83d at character 1 of a value", "half of a character pair is missing"),
        ),
        ('{"a": ["x", {"\\u0000": 1}]}', ("NUL character", "\\u0000 at character 1 of a value", "remove it")),
        (GOOD + GOOD, ("broken JSON", f"text after the end of the row at column 35: {(GOOD + GOOD)[14:54]!r}...", "")),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_a_bad_line_among_good_ones(tmp_path: Path, name: str, line: str, expected: tuple[str, str, str]) -> None:
    file = written(tmp_path, name, "\n".join([GOOD, GOOD, line, GOOD, ""]))
    source = read_rows(file)
    assert len(source.rows) == 3
    (bad,) = source.rejected
    assert (str(bad.origin), bad.reason, bad.detail, bad.fix) == (f"{file}:3", *expected)


def test_a_truncated_last_line_is_told_from_a_typing_error(tmp_path: Path) -> None:
    source = read_rows(written(tmp_path, "a.jsonl", f"{GOOD}\n{GOOD[:20]}"))
    assert len(source.rows) == 1
    assert isinstance(source.rejected[0], Rejected)
    assert source.rejected[0].fix == "the file ends inside this row: fetch or write it again"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16(tmp_path: Path, name: str, encoding: str) -> None:
    problem = refused(written(tmp_path, name, f"{GOOD}\n{GOOD}\n".encode(encoding)))
    assert problem.what in ("not UTF-8: it starts like UTF-16", "not UTF-8: it looks like UTF-16")
    assert problem.where.endswith(f"{name}:1")
    assert problem.fix == "save it as UTF-8, e.g. `iconv -f UTF-16 -t UTF-8 OLD > NEW`"


def test_what_is_no_fault_is_read(tmp_path: Path) -> None:
    odd = f'\ufeff{GOOD}\r\n\n  {{"prompt": 1, "extra": [true, null], "completion": {{}}}}\n{GOOD}'
    source = read_rows(written(tmp_path, "a.jsonl", odd))
    assert source.rejected == []
    assert [row.origin.line for row in source.rows] == [1, 3, 4]
    assert source.rows[1].fields == {"prompt": 1, "extra": [True, None], "completion": {}}
    assert len(read_rows(written(tmp_path, "b.jsonl", json.dumps([json.loads(GOOD)] * 3))).rows) == 3


def test_a_file_changed_in_place_is_read_anew_whatever_its_time_says(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "text,label\nold,x\n")
    before = os.stat(file)
    assert read_rows(file).rows[0].fields["text"] == "old"
    written(tmp_path, "a.csv", "text,label\nnew,x\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(file).st_size == before.st_size
    assert read_rows(file).rows[0].fields["text"] == "new"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.xml", "a.parquet"])
def test_a_row_of_ten_megabytes(tmp_path: Path, name: str) -> None:
    text = "word " * 2_000_000
    contents = {
        "a.jsonl": lambda: json.dumps({"text": text}),
        "a.json": lambda: json.dumps([{"text": text}], indent=1),
        "a.csv": lambda: f"text,label\n{text},x\n",
        "a.tsv": lambda: f'text\tlabel\n"{text}"\tx\n',
        "a.xml": lambda: f"<rows><row><text>{text}</text></row></rows>",
    }
    if name == "a.parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": [text]}), tmp_path / name)
    else:
        written(tmp_path, name, contents[name]())
    start = time.process_time()
    source = read_rows(str(tmp_path / name))
    assert time.process_time() - start < 2
    assert [len(row.fields["text"]) for row in source.rows] == [10_000_000]


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.pt", "a.pkl.gz"])
def test_nothing_that_runs_code_is_opened(tmp_path: Path, name: str) -> None:
    problem = refused(written(tmp_path, name, b"cos\nsystem\n(S'touch owned'\ntR."))
    assert problem.what.startswith(("unknown file type '.pkl'", "unknown file type '.p"))
    assert problem.fix == "a pickle runs code when it is opened; write the rows as JSON Lines"
    assert not Path("owned").exists()


def test_names_with_shell_marks_are_names(tmp_path: Path) -> None:
    file = written(tmp_path, "x; touch owned $(id) 'q'.csv", "text,label\na,b\n")
    assert read_rows(file).rows[0].origin.file == file
    assert read_rows([str(tmp_path / "x;*.csv")]).rows[0].origin.file == file
