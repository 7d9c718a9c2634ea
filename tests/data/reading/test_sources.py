"""Reading: exact lines, every bad row named, every bad file named at once."""

import gc
import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from finetune.data.reading.sources import Source, read_rows, read_text
from finetune.data.rows import Rejected
from finetune.data.store import Store
from finetune.errors import FinetuneError, Problem

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets"


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return path


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(spec: str | list[str], where: str = "") -> tuple[Problem, ...]:
    with pytest.raises(FinetuneError) as caught:
        read_rows(spec, where=where)
    return caught.value.problems


def lines_of(source: Source) -> list[int]:
    return [row.origin.line for row in source.rows]


def said(rejected: list[Rejected]) -> list[tuple[int, str, str]]:
    return [(bad.origin.line, bad.reason, bad.detail) for bad in rejected]


# --------------------------------------------------------------------------------------------------------- JSON


def test_json_lines_keep_line_numbers_over_blank_lines_and_other_line_ends(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '\ufeff{"a": "x\u2028y"}\r\n\r\n  {"a": 2}\n{"a": null}')
    source = read_rows(file)
    assert lines_of(source) == [1, 3, 4]
    assert [row.fields for row in source.rows] == [{"a": "x\u2028y"}, {"a": 2}, {"a": None}]
    assert source.container == "JSON Lines"
    assert source.rejected == []


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson", "rows.JSON"])
def test_content_decides_between_list_and_lines(tmp_path: Path, name: str) -> None:
    listed = read_rows(write(tmp_path / name, '[\n {"a": 1},\n\n {"a":\n 2}\n]\n'))
    assert (lines_of(listed), listed.container) == ([2, 4], "JSON list")
    lines = read_rows(write(tmp_path / name, '{"a": 1}\n{"a": 2}\n'))
    assert (lines_of(lines), lines.container) == ([1, 2], "JSON Lines")


def test_object_keyed_by_id(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.json", '{\n "x1": {"q": 1},\n "x2": {\n "q": 2},\n "x1": {"q": 3}\n}'))
    assert [(row.key, row.origin.line, row.fields) for row in source.rows] == [("x1", 2, {"q": 1}), ("x2", 3, {"q": 2})]
    assert said(source.rejected) == [(5, "duplicate key", "key 'x1' names an earlier row too")]
    assert source.container == "JSON object keyed by id"


def test_list_under_one_key(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.json", '{"version": "1.0",\n "data": [\n{"q": 1},\n{"q": 2}]}'))
    assert lines_of(source) == [3, 4]
    assert source.container == "JSON list under 'data' (other keys not read: version)"
    (problem,) = refused(write(tmp_path / "b.json", '{"train": [{"q": 1}], "test": [{"q": 2}]}'))
    assert problem.what == "several lists of rows in one object: 'train', 'test'"


@pytest.mark.parametrize("name", ["one.json", "one.jsonl"])
def test_one_conversation_is_one_row(tmp_path: Path, name: str) -> None:
    source = read_rows(write(tmp_path / name, '{"messages": [{"role": "user", "content": "hi"}]}'))
    assert [set(row.fields) for row in source.rows] == [{"messages"}]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    bad = [
        '{"a": 1}',
        '{"a": "cut',
        "[1, 2]",
        "null",
        '{"a": 1, "b": 2, "a": 3}',
        '{"a": NaN}',
        '{"a": {"b": -Infinity}}',
        '{"a": 1e999}',
        r'{"a": ["\ud800"]}',
        r'{"a": "x\u0000"}',
        r'{"a": "\ud83d\ude00"}',
        '{"a": 1},',
        "{'a': 1}",
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        '"text"',
    ]
    source = read_rows(write(tmp_path / "a.jsonl", "\n".join(bad)))
    assert lines_of(source) == [1, 11]
    assert source.rows[1].fields == {"a": "😀"}
    found = said(source.rejected)
    assert found[:-2] == [
        (2, "broken JSON", 'unterminated string starting at at column 7: \'{"a": "cut\''),
        (3, "not an object", "found a list: '[1, 2]'"),
        (4, "not an object", "found null: 'null'"),
        (5, "duplicate key", "key 'a' occurs 2 times in one object"),
        (6, "not a finite number", "NaN is not JSON"),
        (7, "not a finite number", "-Infinity is not JSON"),
        (8, "not a finite number", "1e999 is too large for a float"),
        (9, "lone surrogate", "\\ud800 at character 1 of a value"),
        (10, "NUL character", "\\u0000 at character 2 of a value"),
        (12, "broken JSON", "text after the end of the row at column 9: '{\"a\": 1},'"),
        (13, "broken JSON", "expecting property name enclosed in double quotes at column 2: \"{'a': 1}\""),
        (14, "broken JSON", "nested too deeply to read"),
    ]
    assert found[-2][:2] == (15, "broken JSON")
    assert found[-1] == (16, "not an object", "found a string: '\"text\"'")


def test_bad_members_of_a_list_do_not_hide_the_others(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.json", '[{"a": 1},\n{"a": NaN},\n{"a": 1, "a": 2},\n7,\n{"a": 5}]'))
    assert lines_of(source) == [1, 5]
    assert [bad.origin.line for bad in source.rejected] == [2, 3, 4]


def test_broken_documents_are_refused_where_they_break(tmp_path: Path) -> None:
    (problem,) = refused(write(tmp_path / "a.json", '[\n{"a": 1},\n{"a" 2}\n]'))
    assert problem.where.endswith("a.json:3")
    assert problem.what.startswith("broken JSON: expecting ':' delimiter at column 6: ")
    (problem,) = refused(write(tmp_path / "b.json", '{\n"a": 1}\n{\n"a": 2}'))
    assert problem.what.startswith("JSON values written over several lines")
    (problem,) = refused(write(tmp_path / "c.json", "3"))
    assert problem.what == "found a number where rows are expected"
    (problem,) = refused(write(tmp_path / "d.json", "[]"))
    assert problem.what == "no rows: the list is empty"


def test_a_json_file_whose_first_line_is_cut_is_still_read_by_lines(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.json", '{"a": 1\n{"a": 2}\n{"a": 3}\n'))
    assert lines_of(source) == [2, 3]
    assert [(line, reason) for line, reason, _ in said(source.rejected)] == [(1, "broken JSON")]


def test_a_ten_megabyte_row_is_read_at_once(tmp_path: Path) -> None:
    text = "word " * 2_000_000
    names = [
        write(tmp_path / "a.jsonl", json.dumps({"text": text})),
        write(tmp_path / "b.json", json.dumps([{"text": text}])),
        write(tmp_path / "c.csv", f"text,label\n{text},x\n"),
    ]
    start = time.monotonic()
    assert [len(row.fields["text"]) for row in read_rows(names).rows] == [10_000_000] * 3
    assert time.monotonic() - start < 6


# ---------------------------------------------------------------------------------------------------------- CSV


def test_csv_with_mark_line_ends_quotes_and_embedded_lines(tmp_path: Path) -> None:
    content = '\ufefftext,label\r\n"a\r\nb, ""c""",x\r\n\r\n"",y\r\nsaid "so",z\r\n'
    source = read_rows(write(tmp_path / "a.csv", content))
    assert lines_of(source) == [2, 5, 6]
    assert [row.fields["text"] for row in source.rows] == ['a\r\nb, "c"', "", 'said "so"']
    assert source.container == "CSV"


def test_csv_rows_with_other_numbers_of_fields(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.csv", 'a,b\n1,2\n"x\ny",3,4\n5\n"x"y,6\n7,8\n'))
    assert lines_of(source) == [2, 7]
    assert said(source.rejected) == [
        (3, "wrong number of fields", "3 fields where the header has 2: 'x\\ny,3,4'"),
        (5, "wrong number of fields", "1 field where the header has 2: '5'"),
        (6, "broken CSV", "',' expected after '\"'"),
    ]


def test_semicolons_tabs_and_literal_quotes(tmp_path: Path) -> None:
    source = read_rows(write(tmp_path / "a.csv", '"x,y";b\n1;2\n'))
    assert (source.rows[0].fields, source.container) == ({"x,y": "1", "b": "2"}, "CSV with semicolons")
    source = read_rows(write(tmp_path / "a.tsv", 'a\tb\n"x" y\t2\n'))
    assert (source.rows[0].fields, source.container) == ({"a": '"x" y', "b": "2"}, "TSV with literal quotes")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("a,b\n", "no rows: there is only a header"),
        ("a,b,a\n1,2,3\n", "columns with the same name: 'a'"),
        ('a,b\n1,"2\n3,4\n', "a quoted field in this row is never closed and takes in the rest of the file"),
        (f"{'long ' * 20},b\n1,2\n", "the first line does not name columns: it holds " + repr("long " * 12) + "..."),
    ],
)
def test_unusable_tables(tmp_path: Path, content: str, what: str) -> None:
    (problem,) = refused(write(tmp_path / "a.csv", content))
    assert problem.what == what


def test_unnamed_columns_are_counted(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / "a.csv", ",text\n0,hi\n")).rows[0].fields == {"column_1": "0", "text": "hi"}


# ------------------------------------------------------------------------------------------------ Parquet, gzip


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    turns = [[{"role": "user", "content": "hi"}], None]
    pq.write_table(pa.table({"a": ["x", "y"], "messages": turns}), tmp_path / "a.parquet")
    source = read_rows(str(tmp_path / "a.parquet"))
    assert [(row.origin.line, row.fields["a"], row.fields["messages"]) for row in source.rows] == [
        (1, "x", turns[0]),
        (2, "y", None),
    ]
    assert source.container == "Parquet"
    (problem,) = refused(write(tmp_path / "b.parquet", "PAR1 no"))
    assert problem.what.startswith("not a readable Parquet file: ")


def test_gzip_and_fingerprints_follow_content_not_time(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a": 1}\n', mtime=0)
    file = write(tmp_path / "a.jsonl.gz", packed)
    assert read_rows(file).files == {file: hashlib.sha256(packed).hexdigest()}
    (problem,) = refused(write(tmp_path / "cut.jsonl.gz", packed[:-4]))
    assert problem.what.startswith("broken gzip data: ")
    plain = write(tmp_path / "b.jsonl", '{"a": 1}')
    before = os.stat(plain)
    first = read_rows(plain)
    write(tmp_path / "b.jsonl", '{"a": 2}')
    os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = read_rows(plain)
    assert second.rows[0].fields == {"a": 2}
    assert first.files != second.files


# -------------------------------------------------------------------------------------------- names and encodings


def test_globs_lists_and_containers(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        write(tmp_path / name, '{"a": 1}\n')
    other = write(tmp_path / "c.csv", "a\n1\n")
    source = read_rows([str(tmp_path / "*.jsonl"), other])
    assert [Path(row.origin.file).name for row in source.rows] == ["a.jsonl", "b.jsonl", "c.csv"]
    assert source.container == "JSON Lines (2 files), CSV"
    (problem,) = refused([str(tmp_path / "*.csv"), other], "recipe.yaml:3")
    assert (problem.where, problem.what) == ("recipe.yaml:3", f"{other!r} is named 2 times")


def test_all_file_problems_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "x.png", b"\x89PNG")
    write(tmp_path / "train.jsonl", '{"a": 1}\n')
    os.mkfifo(tmp_path / "pipe.jsonl")
    names = {
        "trian.jsonl": "no such file: ",
        "none/x.jsonl": "no such file: ",
        "folder": "holds nothing to learn from (x.png: no known kind of data)",
        "pipe.jsonl": "is no regular file",
        write(tmp_path / "empty.jsonl", " \n"): "the file is empty",
        write(tmp_path / "empty.parquet", ""): "the file is empty",
        write(tmp_path / "a.pkl", "x"): "unknown file type '.pkl'",
        write(tmp_path / "noext", "x"): "file without extension",
        "*.tsv": "no file matches the glob",
    }
    problems = refused([str(tmp_path / name) for name in names], "recipe.yaml:3")
    assert len(problems) == len(names)
    by_glob_first = ["*.tsv", *[name for name in names if name != "*.tsv"]]
    for name, problem in zip(by_glob_first, problems, strict=True):
        assert names[name] in problem.what
    fixes = {Path(name).name: problem.fix for name, problem in zip(by_glob_first, problems, strict=True)}
    assert fixes["trian.jsonl"] == f"did you mean {str(tmp_path / 'train.jsonl')!r}?"
    assert fixes["x.jsonl"] == f"the folder {str(tmp_path / 'none')!r} does not exist"
    assert fixes["folder"].startswith("rows are read from .json .jsonl .ndjson .csv")
    assert fixes["a.pkl"] == "a pickle runs code when it is opened; write the rows as JSON Lines"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "{}")
    os.chmod(file, 0)
    (problem,) = refused(file)
    assert problem.what == f"no permission to read {file!r}"


@pytest.mark.parametrize(
    ("content", "line", "what", "fix"),
    [
        ("a\ncaf\xe9 €\n".encode("cp1252"), 2, "not UTF-8: byte 0xe9 at byte 5", "as cp1252 it reads 'a\\ncafé €\\n'"),
        ("a\nb\n".encode("utf-16"), 1, "not UTF-8: it starts like UTF-16", "save it as UTF-8, e.g. `iconv"),
        ("a\nb\n".encode("utf-16-le"), 1, "not UTF-8: it looks like UTF-16", "save it as UTF-8, e.g. `iconv"),
        (b"text\nabcdef\nx\0y\n", 3, "NUL byte at byte 13 (1 in the file)", "remove them"),
        (gzip.compress(b"a"), 0, "holds gzip data, not text", "name the file with .gz at its end"),
        (b"PK\x03\x04rest", 0, "holds a zip archive (or an Office document), not text", "unpack it, or save it as CSV"),
        (b"\xef\xbb\xbfa\n\xff\n", 2, "not UTF-8: byte 0xff at byte 5", "as cp1252 it reads"),
    ],
)
def test_other_encodings(tmp_path: Path, content: bytes, line: int, what: str, fix: str) -> None:
    file = write(tmp_path / "a.csv", content)
    (problem,) = refused(file)
    assert problem.where == (f"{file}:{line}" if line else file)
    assert problem.what == what
    assert problem.fix.startswith(fix)


def test_read_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path / "a.txt", "\ufeffx\ny")) == "x\ny"


@pytest.mark.slow
def test_hub_data_sets_say_what_to_do_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (problem,) = refused("hub:finetune-tests/no-such-set@en:train")
    assert problem.where == "hub:finetune-tests/no-such-set@en:train"
    assert problem.what.startswith("the hub data set cannot be loaded: ")
    assert "hf download finetune-tests/no-such-set --repo-type dataset" in problem.fix


def test_malformed_hub_name() -> None:
    (problem,) = refused("hub:a/b/c")
    assert problem.what == "not a hub data set: 'hub:a/b/c'"


# ------------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize(
    ("name", "count", "container", "last"),
    [
        ("banking77/train.csv", 10_003, "CSV", 10_017),
        ("gsm8k/train.jsonl", 7_473, "JSON Lines", 7_473),
        ("medmcqa/dev.json", 4_183, "JSON Lines", 4_183),
        ("pubmedqa/ori_pqal.json", 1_000, "JSON object keyed by id", 35_140),
        ("tatqa/tatqa_dataset_dev.json", 278, "JSON list", 49_484),
        ("mts_dialog/MTS-Dialog-TrainingSet.csv", 1_201, "CSV", 11_452),
        ("legalbench/abercrombie/test.tsv", 95, "TSV", 96),
        ("humaneval/HumanEval.jsonl.gz", 164, "JSON Lines", 164),
    ],
)
def test_real_files(name: str, count: int, container: str, last: int) -> None:
    source = read_rows(str(shared(name)))
    assert (len(source.rows), source.rejected, source.container) == (count, [], container)
    assert source.rows[-1].origin.line == last


def test_lines_of_real_rows_are_where_their_text_begins() -> None:
    file = shared("banking77/train.csv")
    lines = file.read_text(encoding="utf-8").split("\n")
    source = read_rows(str(file))
    for row in source.rows:
        begin = row.fields["text"].split("\n")[0].strip("\r").replace('"', '""')
        assert lines[row.origin.line - 1].removeprefix('"').startswith(begin), row.origin
    keyed = shared("pubmedqa/ori_pqal.json")
    lines = keyed.read_text(encoding="utf-8").split("\n")
    assert all(lines[row.origin.line - 1].strip() == f'"{row.key}": {{' for row in read_rows(str(keyed)).rows)


# --------------------------------------------------------------------------------------------------------- draws


def test_a_draw_is_said_and_counted(tmp_path: Path) -> None:
    text = "".join(f'{{"a": {number}}}\n' for number in range(100)) + "{bad\n"
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, text)
    source = read_rows(f"{tmp_path / 'a.jsonl'}#10")
    again = read_rows(f"{tmp_path / 'a.jsonl'}#10")
    assert (len(source.rows), source.left_out, len(source.rejected)) == (10, 90, 1)
    assert [row.fields for row in source.rows] == [row.fields for row in again.rows]
    assert lines_of(source) == sorted(lines_of(source))
    (note,) = source.notes
    assert str(note) == f"{tmp_path / 'a.jsonl'}#10: 10 of 100 rows drawn at random (seed 0)"
    larger = read_rows(f"{tmp_path / 'a.jsonl'}#20")
    assert set(lines_of(source)) < set(lines_of(larger))
    over_all = read_rows(f"{tmp_path / '*.jsonl'}#10")
    assert (len(over_all.rows), over_all.left_out) == (10, 190)
    assert {Path(row.origin.file).name for row in over_all.rows} == {"a.jsonl", "b.jsonl"}
    both = read_rows([f"{tmp_path / 'a.jsonl'}#10", str(tmp_path / "b.jsonl")])
    assert (len(both.rows), both.left_out) == (110, 90)


def test_draws_of_too_few_and_of_none(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}\n')
    source = read_rows(f"{file}#5")
    assert (len(source.rows), source.left_out) == (2, 0)
    assert [(note.what, note.severity) for note in source.notes] == [
        ("5 rows are asked for, and there are 2", "warning")
    ]
    (problem,) = refused(f"{file}#0", "recipe.yaml:3")
    assert (problem.where, problem.what) == ("recipe.yaml:3", f"a draw of no rows: {f'{file}#0'!r}")
    (problem,) = refused(f"{tmp_path / 'b.jsonl'}#5")
    assert problem.what == f"no such file: {str(tmp_path / 'b.jsonl')!r}"


def test_what_many_files_have_in_common_is_said_once(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.xml", "<rows><row><a>1</a></row><row><a>2</a></row></rows>")
    source = read_rows(str(tmp_path / "*.xml"))
    assert len(source.rows) == 10
    assert source.container == "XML, rows are <row> (5 files)"
    (note,) = source.notes
    assert note.where == f"{tmp_path / '0.xml'} and 4 more files"


def test_large_files_do_not_stay_in_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "".join(f'{{"text": "{"word " * 200}", "n": {n}}}\n' for n in range(30_000)))
    source = read_rows(file)
    assert len(source.rows) == 30_000
    assert source.rows[29_999].fields["n"] == 29_999
    assert isinstance(source.rows, Store)
    assert source.rows.on_disk


MEASURED = """
import resource, sys
from finetune.data.reading.sources import read_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = read_rows(sys.argv[1]).rows
print(len(rows), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz"])
def test_lines_and_tables_are_read_as_streams(tmp_path: Path, name: str) -> None:
    texts = [f"{number} " + "word " * 200 for number in range(120_000)]
    lines = (f'{{"text": "{text}"}}\n' for text in texts) if "jsonl" in name else (f"{text},x\n" for text in texts)
    content = ("" if "jsonl" in name else "text,label\n").encode() + "".join(lines).encode()
    assert len(content) > 120_000_000
    write(tmp_path / name, gzip.compress(content, 1) if name.endswith(".gz") else content)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 120_000
    assert grown < 64 * 1024**2


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet", "a.zip", "a.xml"])
def test_reading_closes_what_it_opens(tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder) -> None:
    rows = {"a.jsonl": '{"a": 1}\n{"a": 2}\n', "a.csv": "a,b\n1,2\n", "a.xml": "<r><i><a>1</a></i><i><a>2</a></i></r>"}
    if name == "a.parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [1]}), tmp_path / name)
    elif name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a.csv", rows["a.csv"])
    else:
        content = rows[name.removesuffix(".gz")].encode()
        write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert len(read_rows(str(tmp_path / name)).rows) >= 1
    gc.collect()
    assert [str(warning.message) for warning in recwarn.list if warning.category is ResourceWarning] == []
