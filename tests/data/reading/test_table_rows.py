"""CSV and TSV: delimiters, quotes, line ends, and first lines that are no header."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetune.data.reading.sources import read_rows
from finetune.data.rows import Row
from finetune.errors import FinetuneError
from finetune.recipe.schema import Header

QUIZ = (
    'How many legs has a spider?,six,eight,B\n"A bird, with\ntwo wings",can fly,"can ""swim""",A\nAnd a fish?,0,2,A\n'
)


def written(folder: Path, text: str, name: str = "a.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return str(folder / name)


# ---------------------------------------------------------------------------------------------------------- header


def test_a_row_in_the_place_of_the_header_is_recognised_by_its_values(tmp_path: Path) -> None:
    text = QUIZ + "One more?,no,yes,B\n"
    file = written(tmp_path, text)
    source = read_rows(file)
    assert [list(row.fields) for row in source.rows] == [["column_1", "column_2", "column_3", "column_4"]] * 4
    assert [row.origin.line for row in source.rows] == [1, 2, 4, 5]
    assert source.rows[1].fields["column_1"] == "A bird, with\ntwo wings"
    assert source.container == "CSV without header"
    (note,) = source.notes
    assert note.what == (
        "read without a header, its columns called column_1 to column_4: 'B' in the first line occurs again below it, "
        "in column_4"
    )
    assert (note.where, note.severity) == (file, "note")
    assert note.fix == "set data.header: true if the first line does name the columns"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("text,label\nlabel,text\nx,label\n", ["text", "label"]),  # usual names are names
        ("foo,bar\nx,1\ny,2\n", ["foo", "bar"]),  # nothing occurs again
        ("foo,bar\nx,1\nfoo,bar\n", ["foo", "bar"]),  # the header is repeated
        (",foo\n0,\n1,\n", ["column_1", "foo"]),  # empty names occur again, and tell nothing
        ("foo,bar\nfoo\nfoo\nfoo,1\n", ["foo", "bar"]),  # most rows are not like it
    ],
)
def test_headers_stay_headers(tmp_path: Path, text: str, columns: list[str]) -> None:
    source = read_rows(written(tmp_path, text))
    assert list(source.rows[0].fields) == columns
    assert source.container == "CSV"


def test_the_user_says_it(tmp_path: Path) -> None:
    file = written(tmp_path, "foo,bar\nx,1\ny,2\n")
    source = read_rows(file, header=False)
    assert [tuple(row.fields.values()) for row in source.rows] == [("foo", "bar"), ("x", "1"), ("y", "2")]
    assert source.notes[0].what == (
        "read without a header, its columns called column_1 to column_2: data.header says so"
    )
    named = read_rows(written(tmp_path, QUIZ), header=True)
    assert list(named.rows[0].fields) == ["How many legs has a spider?", "six", "eight", "B"]
    assert (source.tables, named.tables) == (True, True)
    long = f"{'word ' * 20},b\n1,2\n"
    assert list(read_rows(written(tmp_path, long), header=True).rows[0].fields) == ["word " * 20, "b"]
    with pytest.raises(FinetuneError) as caught:
        read_rows(written(tmp_path, long))
    assert caught.value.problems[0].fix == (
        "put a line with the names of the columns first, or set data.header: false; where this line does name them, "
        "set data.header: true"
    )


def test_rows_of_another_width_without_header(tmp_path: Path) -> None:
    source = read_rows(written(tmp_path, "a,b\nc,b,d\n\ne,b\n"))
    assert [row.origin.line for row in source.rows] == [1, 4]
    assert [(bad.origin.line, bad.detail) for bad in source.rejected] == [
        (2, "3 fields where most rows have 2: 'c,b,d'")
    ]


# -------------------------------------------------------------------------------------------- how fields are written


@pytest.mark.parametrize(
    ("name", "text", "container"),
    [
        ("a.csv", "a,b\n1,2\n", "CSV"),
        ("a.csv", "a;b\n1;2\n", "CSV with semicolons"),
        ("a.csv", "a|b\n1|2\n", "CSV with bars"),
        ("a.psv", '"a"|"b"\n"1"|2\n', "CSV with bars"),
        ("a.csv", "a\tb\n1\t2\n", "TSV"),
        ("a.tab", "a\tb\n1\t2\n", "TSV"),
        ("a.csv", "a, b\n1, 2\n", "CSV with a space before each field"),
        ("a.csv", 'a, "b"\n1, "2"\n', "CSV with a space before each field"),
        ("a.csv", "a,b\r1,2\r", "CSV"),
        ("a.csv", "\ufeffa,b\r\n1,2\r\n", "CSV"),
        ("a.csv", "a,b\r\n1,2\n", "CSV"),
    ],
)
def test_ways_to_write_the_same_row(tmp_path: Path, name: str, text: str, container: str) -> None:
    source = read_rows(written(tmp_path, text, name))
    assert [row.fields for row in source.rows] == [{"a": "1", "b": "2"}]
    assert source.rows[0].origin.line == 2
    assert source.container == container
    odd = container.endswith("field")
    assert [note.what for note in source.notes] == ([f"read as {container}"] if odd else [])


def test_a_space_that_not_all_fields_have_is_part_of_the_text(tmp_path: Path) -> None:
    source = read_rows(written(tmp_path, "a, b\nx,y\n p, q\n"))
    assert [row.fields for row in source.rows] == [{"a": "x", " b": "y"}, {"a": " p", " b": " q"}]
    assert source.container == "CSV"


def test_quotes_written_with_backslashes(tmp_path: Path) -> None:
    source = read_rows(written(tmp_path, 'text,n\n"He said \\"yes\\", twice",1\n"plain",2\n'))
    assert [row.fields["text"] for row in source.rows] == ['He said "yes", twice', "plain"]
    assert source.container == 'CSV with quotes written \\"'
    # Where the plain reading works, a backslash is a backslash
    source = read_rows(written(tmp_path, 'text,n\n"C:\\""temp""",1\n'))
    assert (source.rows[0].fields["text"], source.container) == ('C:\\"temp"', "CSV")


def test_embedded_and_mixed_line_ends_count_as_an_editor_counts(tmp_path: Path) -> None:
    text = 'text,label\r\n"one\r\ntwo\nthree",x\n"four\rfive",y\r\nsix,x\r\n'
    source = read_rows(written(tmp_path, text))
    assert [(row.origin.line, row.fields["text"]) for row in source.rows] == [
        (2, "one\r\ntwo\nthree"),
        (5, "four\rfive"),
        (6, "six"),
    ]


def test_a_long_field_leaves_the_csv_module_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    source = read_rows(written(tmp_path, f"text,label\n{'x' * 300_000},a\ny,b\n"))
    assert [len(row.fields["text"]) for row in source.rows] == [300_000, 1]
    assert csv.field_size_limit() == before


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    header=st.sampled_from([True, False]),
)
def test_what_python_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    delimiter: str,
    line_end: str,
    header: Header,
) -> None:
    assume(rows[0][0][:1] != "\ufeff")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label", "note"), *rows])
    source = read_rows(written(tmp_path_factory.mktemp("csv"), text.getvalue()), header=header)
    expected = [*([] if header else [("text", "label", "note")]), *rows]
    assert all(isinstance(row, Row) for row in source.rows)
    assert [tuple(row.fields.values()) for row in source.rows] == expected
    assert source.rejected == []
