"""JSON: which layout a file has, where its rows are, and what a path inside it leads to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.reading.packed import FileContent
from finetune.data.reading.sources import Source, read_rows
from finetune.errors import FinetuneError, Problem


def written(folder: Path, value: Any, name: str = "a.json") -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1), encoding="utf-8")
    return str(path)


def refused(spec: str) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        read_rows(spec)
    (problem,) = caught.value.problems
    return problem


def fields(source: Source) -> list[dict[str, Any]]:
    return [row.fields for row in source.rows]


# --------------------------------------------------------------------------------------------- lists inside objects


def test_the_only_list_of_objects_is_taken_and_said(tmp_path: Path) -> None:
    document = {"meta": {"version": 1}, "response": {"count": 2, "items": [{"q": 1}, {"q": 2}], "tags": ["a"]}}
    file = written(tmp_path, document)
    source = read_rows(file)
    assert fields(source) == [{"q": 1}, {"q": 2}]
    assert [row.origin.line for row in source.rows] == [8, 11]
    assert source.container == "JSON list at '/response/items' (nothing else is read)"
    (note,) = source.notes
    assert note.where == file
    assert note.what == f"read as {source.container}: it is the only list of objects in the file"
    assert note.fix == f"another place is named as {f'{file}::/PATH'!r}"
    assert note.severity == "note"


def test_several_lists_are_not_guessed_among(tmp_path: Path) -> None:
    file = written(tmp_path, {"data": {"train": [{"q": 1}], "test": [{"q": 2}]}, "v": 1})
    problem = refused(file)
    assert problem.what == "several lists of rows in one object: '/data/train', '/data/test'"
    assert problem.fix == f"say which one is meant, e.g. {f'{file}::/data/train'!r}, or keep one list a file"
    assert fields(read_rows(f"{file}::/data/test")) == [{"q": 2}]


def test_objects_of_lists_are_splits_and_objects_with_fields_are_rows(tmp_path: Path) -> None:
    problem = refused(written(tmp_path, {"train": {"rows": [{"q": 1}]}, "test": {"rows": [{"q": 2}]}}))
    assert problem.what == "several lists of rows in one object: '/train/rows', '/test/rows'"
    keyed = {"x": {"q": "a", "parts": [{"p": 1}]}, "y": {"q": "b", "parts": [{"p": 2}]}}
    source = read_rows(written(tmp_path, keyed))
    assert [row.key for row in source.rows] == ["x", "y"]
    talks = {
        "x": {"messages": [{"role": "user", "content": "a"}]},
        "y": {"messages": [{"role": "user", "content": ""}]},
    }
    assert len(read_rows(written(tmp_path, talks)).rows) == 2
    assert read_rows(written(tmp_path, {"x": {"q": 1}})).container == "JSON object keyed by id"


# ------------------------------------------------------------------------------------------------- a path inside


@pytest.mark.parametrize(
    ("inside", "expected", "container"),
    [
        ("/data/rows", [{"a": 1}, {"a": 2}], "JSON list at '/data/rows'"),
        ("/parts/1", [{"b": 2}], "JSON list at '/parts/1'"),
        ("/odd~1key/t~0", [{"c": 3}], "JSON list at '/odd~1key/t~0'"),
        ("/keyed", [{"d": 4}, {"d": 5}], "JSON object keyed by id at '/keyed'"),
    ],
)
def test_a_path_leads_to_rows(tmp_path: Path, inside: str, expected: list[dict[str, int]], container: str) -> None:
    document = {
        "data": {"rows": [{"a": 1}, {"a": 2}]},
        "parts": [[{"b": 1}], [{"b": 2}]],
        "odd/key": {"t~": [{"c": 3}]},
        "keyed": {"x": {"d": 4}, "y": {"d": 5}},
    }
    file = written(tmp_path, document)
    source = read_rows(f"{file}::{inside}")
    assert (fields(source), source.container, source.notes) == (expected, container, ())
    lines = Path(file).read_text().split("\n")
    for row in source.rows:
        key = next(iter(row.fields))
        assert f'"{key}": {row.fields[key]}' in lines[row.origin.line]
    assert len(read_rows(f"{file}::{inside}#1").rows) == 1


@pytest.mark.parametrize(
    ("inside", "line", "what", "fix"),
    [
        ("/dta", 1, "there is no 'dta' at '/': found an object with 'data', 'n', 'e'", "did you mean '/data'?"),
        ("/data/row", 2, "there is no 'row' at '/data': found an object with 'rows'", "did you mean '/data/rows'?"),
        ("/data/rows/7", 3, "there is no '7' at '/data/rows': found a list with '0'", ""),
        ("/n/x", 9, "there is no 'x' at '/n': found a number", ""),
        ("/n", 9, "found a number at '/n', where a list of rows is expected", ""),
        ("/e", 10, "found an empty list at '/e', where a list of rows is expected", ""),
    ],
)
def test_a_path_that_leads_to_none(tmp_path: Path, inside: str, line: int, what: str, fix: str) -> None:
    file = written(tmp_path, {"data": {"rows": [{"a": 1}]}, "n": 3, "e": []})
    problem = refused(f"{file}::{inside}")
    assert (problem.where, problem.what, problem.fix) == (f"{file}:{line}", what, fix)


def test_paths_that_are_none(tmp_path: Path) -> None:
    file = written(tmp_path, {"data": [{"a": 1}]})
    problem = refused(f"{file}::data")
    assert problem.what == "not a path inside a JSON document: 'data'"
    assert problem.fix == f"begin it with a slash: {f'{file}::/data'!r}"
    lines = written(tmp_path, '{"a": 1}\n{"a": 2}\n', "a.jsonl")
    assert refused(f"{lines}::/a").what == "JSON Lines have no path inside, and '/a' is asked for"
    table = written(tmp_path, "a,b\n1,2\n", "a.csv")
    assert refused(f"{table}::/a").what == "only JSON and XML have a path inside, and '/a' is asked for"


names = st.text(max_size=6).filter(lambda name: not name.endswith(tuple("#0123456789")))


@given(path=st.lists(names, min_size=1, max_size=4), rows=st.lists(st.integers(), min_size=1, max_size=3))
def test_any_key_can_be_named(tmp_path_factory: pytest.TempPathFactory, path: list[str], rows: list[int]) -> None:
    document: Any = [{"a": value} for value in rows]
    for name in reversed(path):
        document = {"other": 1, name: document}
    file = written(tmp_path_factory.mktemp("json"), document)
    inside = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path)
    if "\0" in inside:
        return
    from finetune.data.reading.json_rows import read_json

    found = list(read_json(FileContent(file), inside=inside).items)
    assert [row.fields["a"] for row in found] == rows  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------- JSON Lines whatever the name


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("dev.json", "JSON Lines"),
        ("rows.txt", "JSON Lines in a .txt file"),
        ("rows.log.gz", "JSON Lines in a .log file"),
        ("part-0001.data", "JSON Lines in a .data file"),
        ("part-0001", "JSON Lines in a file without extension"),
    ],
)
def test_lines_are_recognised_by_content(tmp_path: Path, name: str, container: str) -> None:
    import gzip

    text = b'\xef\xbb\xbf\n {"a": 1}\n\n{"a": 2}'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    source = read_rows(str(tmp_path / name))
    assert (fields(source), source.container) == ([{"a": 1}, {"a": 2}], container)
    assert [row.origin.line for row in source.rows] == [2, 4]
    said = [] if name == "dev.json" else [f"read as {container}: its first line is a JSON object"]
    assert [note.what for note in source.notes] == said


@pytest.mark.parametrize("text", ["{notes} about braces\n", "[1]\n", '"x"\n', "\x89PNG\n", "{" * 100_000])
def test_other_content_is_no_json_lines(tmp_path: Path, text: str) -> None:
    problem = refused(written(tmp_path, text, "rows.data"))
    assert problem.what.startswith("unknown file type '.data'")


# ------------------------------------------------------------------------------------------------------- streaming

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
rows_ = st.lists(st.dictionaries(st.sampled_from(["a", "b", "é"]), plain, min_size=1, max_size=3), min_size=2)


def clean(value: Any) -> bool:
    """Keys without NUL and surrogates, which no row may hold."""
    return not any(bad in json.dumps(value) for bad in ("\\u0000", "\\ud8", "\\ud9", "\\uda", "\\udb", "\\udc"))


@given(rows_.filter(clean), st.booleans())
def test_lines_and_lists_give_the_same_rows_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    for name, text in (
        ("a.jsonl", lines),
        ("a.json", lines),
        ("b.json", json.dumps(rows, ensure_ascii=ascii_only, indent=2)),
        ("c.json", json.dumps(rows, ensure_ascii=ascii_only)),
    ):
        source = read_rows(written(folder, text, name))
        assert fields(source) == rows
        assert source.rejected == []
        assert [row.origin.line for row in source.rows] == sorted(row.origin.line for row in source.rows)


def test_a_cut_off_last_line_is_named_as_that(tmp_path: Path) -> None:
    for cut in ('{"a": "tex', '{"a": 1', '{"a":', '{"a": [1, 2'):
        source = read_rows(written(tmp_path, '{"a": 1}\n{"a": 2}\n' + cut, "a.jsonl"))
        (bad,) = source.rejected
        assert (bad.origin.line, bad.reason) == (3, "broken JSON")
        assert bad.fix == "the file ends inside this row: fetch or write it again"
        assert read_rows(written(tmp_path, '{"a": 1}\n' + cut + '\n{"a": 2}', "b.jsonl")).rejected[0].fix == ""
