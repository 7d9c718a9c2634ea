"""XML: which elements are rows, what their columns are called, and files made to do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.reading.sources import Source, read_rows
from finetune.errors import FinetuneError, Problem

QUIZ = """<?xml version="1.0"?>
<Document id="7" source="book">
<!-- no data -->
<Focus>Legs</Focus>
<About><CUI>C1</CUI><CUI>C2</CUI></About>
<Pairs>
  <Pair pid="1">
    <Question qid="7-1">How many &lt;legs&gt;?</Question>
    <Answer>Six.

 Or eight.</Answer>
  </Pair>
  <Pair pid="2"><Question qid="7-2">Why?</Question><Answer></Answer></Pair>
</Pairs>
</Document>
"""


def written(folder: Path, text: str | bytes, name: str = "a.xml") -> str:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder / name)


def refused(spec: str) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        read_rows(spec)
    (problem,) = caught.value.problems
    return problem


def fields(source: Source) -> list[dict[str, Any]]:
    return [row.fields for row in source.rows]


def test_attributes_inner_elements_and_ancestors_are_columns(tmp_path: Path) -> None:
    file = written(tmp_path, QUIZ)
    source = read_rows(file)
    assert fields(source)[0] == {
        "pid": "1",
        "Question.qid": "7-1",
        "Question": "How many <legs>?",
        "Answer": "Six.\n\n Or eight.",
        "Document.id": "7",
        "Document.source": "book",
        "Document.Focus": "Legs",
        "Document.About.CUI": ["C1", "C2"],
    }
    assert [row.fields["Answer"] for row in source.rows][1] == ""
    assert [row.origin.line for row in source.rows] == [7, 13]
    assert source.container == "XML, rows are <Pair>"
    (note,) = source.notes
    assert note.what == "read with /Document/Pairs/Pair as its rows: the first elements from the top that repeat"
    assert fields(read_rows(f"{file}::/Document/Pairs/Pair")) == fields(source)
    assert read_rows(f"{file}::/Document/Pairs/Pair").notes == ()


@pytest.mark.parametrize(
    ("text", "container", "expected"),
    [
        ("<Items><Item><a>1</a></Item></Items>", "XML, rows are <Item>", [{"a": "1"}]),
        ("<d><entries><entry><a>1</a></entry></entries></d>", "XML, rows are <entry>", [{"a": "1"}]),
        ("<d><a>1</a><b n='2'>x</b></d>", "XML, rows are <d>", [{"a": "1", "b.n": "2", "b": "x"}]),
        ("<d><a>1</a><a>2</a></d>", "XML, rows are <a>", [{"a": "1"}, {"a": "2"}]),
        ("<d>text</d>", "XML, rows are <d>", [{"d": "text"}]),
        (
            "<r><i><t>1</t><t>2</t></i><i><t>3</t></i></r>",
            "XML, rows are <i>",
            [{"t": ["1", "2"]}, {"t": ["3"]}],  # a list in all rows, not only where there are two
        ),
        (
            "<r><i k='1'><s><x>1</x></s><s><x>2</x></s></i><i k='2'><s><x>3</x></s></i></r>",
            "XML, rows are <i>",
            [{"k": "1", "s": [{"x": "1"}, {"x": "2"}]}, {"k": "2", "s": [{"x": "3"}]}],
        ),
        ("<r><i a='1'><a>2</a></i><i a='3'/></r>", "XML, rows are <i>", [{"@a": "1", "a": "2"}, {"a": "3", "i": ""}]),
        (
            "<f xmlns='urn:x' xmlns:y='urn:y'><e y:n='1'><y:t>x</y:t></e><e y:n='2'/></f>",
            "XML, rows are <e>",
            [{"n": "1", "t": "x"}, {"n": "2", "e": ""}],
        ),
    ],
)
def test_which_elements_are_rows(tmp_path: Path, text: str, container: str, expected: list[dict[str, Any]]) -> None:
    source = read_rows(written(tmp_path, text))
    assert (source.container, fields(source)) == (container, expected)


def test_running_text_keeps_its_words_and_says_that_marks_are_gone(tmp_path: Path) -> None:
    source = read_rows(written(tmp_path, "<r><i><p>Take <b>two</b> of <i>these</i>.</p></i><i><p>No.</p></i></r>"))
    assert fields(source) == [{"p": "Take two of these."}, {"p": "No."}]
    assert source.notes[1].what == "marks inside running text are read as their text alone: <b>, <i>"


def test_a_path_that_names_no_element(tmp_path: Path) -> None:
    file = written(tmp_path, QUIZ)
    problem = refused(f"{file}::/Document/Pairs/Piar")
    assert problem.what == "there is no element '/Document/Pairs/Piar'; the document begins with '/Document'"
    assert problem.fix == "did you mean '/Document/Pairs/Pair'?"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("<a>\n<b></a>", 2, "broken XML: mismatched tag at column 6"),
        ("<a>\n", 2, "broken XML: no element found at column 1"),
        (b"<a>\ncaf\xe9</a>", 2, "broken XML: not well-formed (invalid token) at column 4"),
        ("<a/>\n<b/>", 2, "broken XML: junk after document element at column 1"),
        ("<a>\n&nbsp;</a>", 2, "broken XML: undefined entity at column 1"),
        ("<!DOCTYPE a SYSTEM 'a.dtd'>\n<a>\n&nbsp;</a>", 3, "the entity &nbsp; is not defined in the file"),
        ("<a>" * 250 + "</a>" * 250, 1, "XML nested more than 200 deep"),
        (
            "<!DOCTYPE a [\n<!ENTITY x 'ha'><!ENTITY y '&x;&x;&x;'>]>\n<a>&y;</a>",
            2,
            "XML that declares entities of its own ('x') is not read: they can grow without bound or fetch files",
        ),
        (
            "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>\n<a>&x;</a>",
            1,
            "XML that declares entities of its own ('x') is not read: they can grow without bound or fetch files",
        ),
        (
            "<!DOCTYPE a [<!ENTITY % x SYSTEM 'http://localhost:1/x'> %x;]>\n<a/>",
            1,
            "XML that declares entities of its own ('x') is not read: they can grow without bound or fetch files",
        ),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, text: str | bytes, line: int, what: str) -> None:
    file = written(tmp_path, text)
    problem = refused(file)
    assert (problem.where, problem.what) == (f"{file}:{line}", what)
    assert refused(written(tmp_path, "", "empty.xml")).what == "the file is empty"


def test_other_encodings_that_the_file_declares(tmp_path: Path) -> None:
    text = "<?xml version='1.0' encoding='{}'?><r><i><t>Grüße</t></i><i><t>x</t></i></r>"
    for encoding in ("ISO-8859-1", "utf-16", "utf-8"):
        source = read_rows(written(tmp_path, text.format(encoding).encode(encoding)))
        assert fields(source) == [{"t": "Grüße"}, {"t": "x"}]


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), max_size=20)


@given(rows=st.lists(st.tuples(words, words), min_size=2, max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    from xml.sax.saxutils import escape, quoteattr

    inner = "".join(f"<row n={quoteattr(name)}><t>{escape(text)}</t></row>\n" for name, text in rows)
    file = written(tmp_path_factory.mktemp("xml"), f"<rows>\n{inner}</rows>")
    source = read_rows(file)
    assert [(row.fields["n"], row.fields["t"]) for row in source.rows] == rows
    assert [row.origin.line for row in source.rows] == list(range(2, len(rows) + 2))
