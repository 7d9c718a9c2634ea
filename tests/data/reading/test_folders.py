"""Folders: which files are rows, which are documents, and which are set aside and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.data.reading.sources import read_rows
from finetune.errors import FinetuneError, Problem

PAGE = "# Legs\n\n" + "A spider has eight legs, and nobody who counted them has ever found another number. " * 3


def filled(folder: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return str(folder)


def refused(spec: str | list[str]) -> tuple[Problem, ...]:
    with pytest.raises(FinetuneError) as caught:
        read_rows(spec, where="recipe.yaml:3")
    return caught.value.problems


ABOUT = {
    "README.md": "x", "readme.txt": "x", "LICENSE": "x", "LICENSE.md": "x", "LICENCE-data.txt": "x", "SOURCE.txt": "x",
    "SHA256SUMS": "x", "CITATION.cff": "x", "dataset_info.json": "{}", "state.json": "{}",
}  # fmt: skip


def test_rows_are_read_recursively_and_the_rest_is_named(tmp_path: Path) -> None:
    folder = filled(
        tmp_path,
        {
            **ABOUT,
            "b/2.csv": "text\nthree\n",
            "b/1.jsonl": '{"text": "two"}\n',
            "a.json": '[{"text": "one"}]',
            "c.log": '{"text": "four"}\n',
            "notes.txt": '{"text": "five"}\n',
            "sources.csv": "text\nsix\n",
            ".hidden/x.csv": "text\nno\n",
            "schema.sql": "select 1",
        },
    )
    source = read_rows(folder)
    found = [(Path(row.origin.file).relative_to(tmp_path).as_posix(), row.fields["text"]) for row in source.rows]
    assert found == [
        ("a.json", "one"),
        ("b/1.jsonl", "two"),
        ("b/2.csv", "three"),
        ("c.log", "four"),
        ("notes.txt", "five"),
        ("sources.csv", "six"),
    ]
    assert len(source.files) == 6
    set_aside = [note for note in source.notes if "set aside" in note.what]
    notes = {note.what.partition(": ")[0]: note.what.partition(": ")[2] for note in set_aside}
    assert notes == {
        "1 file set aside (hidden)": ".hidden/x.csv",
        "10 files set aside (about the data)": (
            "CITATION.cff, LICENCE-data.txt, LICENSE, LICENSE.md, README.md and 5 more"
        ),
        "1 file set aside (no known kind of data)": "schema.sql",
    }
    assert {note.where for note in set_aside} == {folder}
    assert [note.what for note in source.notes if note not in set_aside] == [
        "read as JSON Lines in a .log file: its first line is a JSON object",
        "read as JSON Lines in a .txt file: its first line is a JSON object",
    ]


def test_a_folder_of_documents_is_read_as_text(tmp_path: Path) -> None:
    folder = filled(tmp_path, {**ABOUT, "a/legs.md": PAGE, "b.txt": PAGE.replace("spider", "mite") * 2})
    source = read_rows(folder)
    assert [row.fields["document"] for row in source.rows] == ["a/legs.md", "b.txt"]
    assert all("eight legs" in row.fields["text"] for row in source.rows)
    assert any(note.what.startswith("10 files set aside (about the data)") for note in source.notes)
    one = read_rows(str(tmp_path / "a" / "legs.md"))
    assert [row.fields["text"] for row in one.rows] == [source.rows[0].fields["text"]]
    assert len(read_rows(f"{folder}#1").rows) == 1


def test_both_kinds_are_refused_with_what_to_name(tmp_path: Path) -> None:
    folder = filled(tmp_path, {"rows/a.csv": "text\nx\n", "pages/b.md": PAGE, "pages/c.md": PAGE})
    (problem,) = refused(folder)
    assert problem.where == "recipe.yaml:3"
    assert problem.what == f"{folder!r} holds both rows (rows/a.csv) and documents (pages/b.md, pages/c.md)"
    assert problem.fix == f"name one kind, e.g. {f'{folder}/**/*.csv'!r} or {f'{folder}/**/*.md'!r}"
    (problem,) = refused(f"{folder}/*/*")
    assert (
        problem.what == f"{f'{folder}/*/*'!r} means both rows and documents: {f'{folder}/pages/b.md'!r} is a document"
    )
    (problem,) = refused(f"{tmp_path / 'pages'}::/x")
    assert problem.what == "only JSON and XML have a path inside, and '/x' is asked for"
    (problem,) = refused("hub:a/b::/x")
    assert problem.fix == "name it alone: 'hub:a/b'"
    assert len(read_rows(f"{folder}/**/*.csv").rows) == 1
    assert len(read_rows(f"{folder}/**/*.md").rows) == 2


def test_xml_goes_with_what_is_beside_it(tmp_path: Path) -> None:
    rows = "<items><item><text>one</text></item><item><text>two</text></item></items>"
    folder = filled(tmp_path / "rows", {"a.xml": rows, "b.csv": "text\nthree\n"})
    assert [row.fields["text"] for row in read_rows(folder).rows] == ["one", "two", "three"]
    folder = filled(tmp_path / "pages", {"a.xml": f"<page><title>T</title><p>{PAGE}</p></page>", "b.md": PAGE * 2})
    assert [row.fields["document"] for row in read_rows(folder).rows] == ["a.xml", "b.md"]


def test_folders_with_nothing(tmp_path: Path) -> None:
    (problem,) = refused(str(tmp_path))
    assert problem.what == f"{str(tmp_path)!r} holds nothing to learn from (it is empty)"
    folder = filled(tmp_path, ABOUT)
    (problem,) = refused(folder)
    assert problem.what.endswith(" and 5 more: about the data)")


def test_all_faults_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    folder = filled(tmp_path, {"a.csv": "", "b.json": "[", "c.csv": "a\n1\n"})
    assert [Path(problem.where).name for problem in refused(folder)] == ["a.csv", "b.json:1"]
    os.mkfifo(tmp_path / "pipe.jsonl")
    (problem,) = refused(folder)
    assert problem.what == f"{str(tmp_path / 'pipe.jsonl')!r} is no regular file"


def test_a_file_and_its_folder_are_the_same_file_twice(tmp_path: Path) -> None:
    folder = filled(tmp_path, {"a.csv": "text\nx\n", "b.csv": "text\ny\n"})
    (problem,) = refused([folder, str(tmp_path / "a.csv")])
    assert problem.what == f"{str(tmp_path / 'a.csv')!r} is named 2 times"
    assert problem.fix == "name each file once"


def test_a_glob_says_which_folders_it_does_not_look_into(tmp_path: Path) -> None:
    folder = filled(tmp_path, {"a.csv": "text\nx\n", "b/c.csv": "text\ny\n"})
    source = read_rows(f"{folder}/*", where="recipe.yaml:3")
    assert len(source.rows) == 1
    (note,) = source.notes
    assert str(note) == (
        f"recipe.yaml:3: the glob {f'{folder}/*'!r} matches folders (1), which it does not look into\n"
        f"    -> write {f'{folder}/*/**'!r} for what is in them too"
    )
    both = read_rows(f"{folder}/**")
    assert (len(both.rows), both.notes) == (2, ())


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    (problem,) = refused(f"{tmp_path}/a\0b.csv")
    assert problem.what == f"no such file: {f'{tmp_path}/a{chr(0)}b.csv'!r}"
    (problem,) = refused(f"{tmp_path}/{'a' * 300}.csv")
    assert problem.what.endswith("cannot be read: File name too long")


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    folder = filled(tmp_path / "in", {"a.csv": "text\nx\n"})
    filled(tmp_path / "out", {"b.csv": "text\ny\n"})
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "out")
    source = read_rows(folder)
    assert len(source.rows) == 1
    assert source.notes[0].what == "2 files set aside (links to folders are not followed): loop, other"
