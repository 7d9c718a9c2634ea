"""What a recipe says of how its files are read, from `data.train` to the rows that are learned and accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.data.corpus import Corpus, read_corpus
from finetune.data.starter import write_starter
from finetune.errors import FinetuneError, Problem
from finetune.recipe import load_recipe, recipe_from_dict
from finetune.recipe.rules import missing_files
from tests.small_runs import questions, write_lines


def corpus_of(folder: Path, train: Any, **data: Any) -> Corpus:
    split = {"validation": 0, "test": 0, "near_duplicates": "ignore"}
    values = {"model": {"base": str(folder)}, "data": {"train": train, "split": split, **data}}
    return read_corpus(recipe_from_dict(values))


def refused(folder: Path, train: Any, **data: Any) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        corpus_of(folder, train, **data)
    (problem,) = caught.value.problems
    return problem


def said(corpus: Corpus) -> list[str]:
    return [note.what for note in corpus.division.notes]


def prompts(corpus: Corpus) -> list[str]:
    return [example.messages[0].content for example in corpus.train]


PAIRS = "".join(f"what is number {number}?,answer {number},{'ab'[number % 2]}\n" for number in range(20))
COLUMNS = {"prompt": "column_1", "completion": "column_2"}


def test_header_false_makes_the_first_line_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nq1,a1\nq2,a2\n")
    train = str(tmp_path / "a.csv")
    assert prompts(corpus_of(tmp_path, train)) == ["q1", "q2"]
    corpus = corpus_of(tmp_path, train, header=False, format="prompt_completion", columns=COLUMNS)
    assert prompts(corpus) == ["question", "q1", "q2"]
    assert any("data.header says so" in what for what in said(corpus))


def test_header_auto_is_said_with_the_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(PAIRS)
    train = str(tmp_path / "a.csv")
    corpus = corpus_of(tmp_path, train, format="prompt_completion", columns=COLUMNS)
    assert len(corpus.train) == 20
    assert any("'a' in the first line occurs again below it, in column_3" in what for what in said(corpus))
    first = {"prompt": "what is number 0?", "completion": "answer 0"}
    assert len(corpus_of(tmp_path, train, header=True, format="prompt_completion", columns=first).train) == 19


def test_header_without_a_table_has_no_effect(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", questions(4))
    problem = refused(tmp_path, str(file), header=True)
    assert problem.what == "header has no effect: there is no CSV or TSV whose reading it would change"
    assert problem.fix == "remove it"


def test_header_of_one_source_of_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("foo,bar\nq1,a1\n")
    rows = write_lines(tmp_path / "b.jsonl", questions(4))
    source = {"path": str(tmp_path / "a.csv"), "header": False, "format": "prompt_completion", "columns": COLUMNS}
    corpus = corpus_of(tmp_path, [source, str(rows)])
    assert prompts(corpus)[:2] == ["foo", "q1"]
    assert len(corpus.train) == 6


def test_a_draw_is_accounted_for(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [*questions(40), "broken"])
    corpus = corpus_of(tmp_path, f"{file}#10", on_bad_row="drop")
    (part,) = corpus.parts
    assert (part.rows_read, len(corpus.train), part.left_out, len(corpus.dropped)) == (41, 10, 30, 1)
    assert "10 of 40 rows drawn at random (seed 0)" in said(corpus)
    assert prompts(corpus_of(tmp_path, f"{file}#10", on_bad_row="drop")) == prompts(corpus)


def test_a_path_inside_and_a_folder_and_an_archive(tmp_path: Path) -> None:
    import zipfile

    rows = questions(6)
    (tmp_path / "deep.json").write_text(json.dumps({"x": {"train": rows, "test": rows[:1]}}))
    assert len(corpus_of(tmp_path, f"{tmp_path / 'deep.json'}::/x/train").train) == 6
    write_lines(tmp_path / "folder" / "a.jsonl", rows[:3])
    write_lines(tmp_path / "folder" / "b" / "c.jsonl", rows[3:])
    (tmp_path / "folder" / "README.md").write_text("about")
    corpus = corpus_of(tmp_path, str(tmp_path / "folder"))
    assert len(corpus.train) == 6
    assert "1 file set aside (about the data): README.md" in said(corpus)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (tmp_path / "folder").rglob("*.jsonl"):
            archive.write(path, path.name)
    assert len(corpus_of(tmp_path, str(tmp_path / "all.zip")).train) == 6
    assert len(corpus_of(tmp_path, f"{tmp_path / 'all.zip'}!c.jsonl").train) == 3


def test_a_first_recipe_keeps_what_is_said_after_the_path(tmp_path: Path) -> None:
    rows = questions(30)
    (tmp_path / "deep.json").write_text(json.dumps({"x": {"train": rows, "test": rows[:1]}}))
    target = tmp_path / "recipes" / "recipe.yaml"
    target.parent.mkdir()
    write_starter(f"{tmp_path / 'deep.json'}::/x/train#20", "some/base", target)
    recipe = load_recipe(target)
    assert recipe.data.train == f"{tmp_path / 'deep.json'}::/x/train#20"
    assert len(read_corpus(recipe).parts[0].examples[""]) == 20


def test_a_missing_file_is_told_by_its_path_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {base: base}\ndata:\n  train: b.json::/x#5\n")
    (problem,) = (one for one in missing_files(load_recipe(recipe)) if "data.train" in one.what)
    assert problem.what == f"data.train does not exist: {str(tmp_path / 'b.json')!r}"
    assert problem.fix == "did you mean 'a.json'?"
