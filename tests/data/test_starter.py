"""A first recipe: it loads, says what was recognised, and stands wherever it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.data.corpus import read_corpus
from finetune.data.starter import write_starter
from finetune.errors import FinetuneError
from finetune.recipe import PretrainObjective, load_recipe, problems
from tests.small_runs import questions, texts, tickets, write_lines


def test_a_recipe_is_written_with_reasons(tmp_path: Path) -> None:
    write_lines(tmp_path / "questions.jsonl", questions(20))
    target = tmp_path / "recipe.yaml"
    said = write_starter(str(tmp_path / "questions.jsonl"), "OWNER/MODEL", target)
    assert said == "20 rows read as prompt_completion (columns 'prompt' and 'completion' over 20 rows)"
    assert target.read_text(encoding="utf-8") == (
        "# 20 rows of questions.jsonl, read as prompt_completion: columns 'prompt' and 'completion' over 20 rows\n"
        "model:\n"
        "  base: OWNER/MODEL\n"
        "data:\n"
        "  train: questions.jsonl\n"
        "  format: prompt_completion\n"
        "  columns: {completion: completion, prompt: prompt}\n"
        "  max_length: 256  # the longest row has about 22 tokens\n"
        "method: {kind: lora}  # small files, little memory; qlora where the base does not fit, full with much data\n"
        "train:\n"
        "  epochs: 2  # with a validation split the best checkpoint is kept, so one too many does no harm\n"
    )
    assert problems(target) == []
    assert load_recipe(target).data.train == str(tmp_path / "questions.jsonl")


@pytest.mark.parametrize("name", ["data.csv", "a b: c #d.csv", "- x.csv", "größe'.csv", "[x].csv"])
def test_any_file_name_can_be_read_back(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("text,queue\n" + "".join(f"{row['text']},{row['queue']}\n" for row in tickets(20)))
    target = tmp_path / "recipe.yaml"
    said = write_starter(str(file), "OWNER/MODEL", target)
    assert said.startswith("20 rows read as classification")
    assert problems(target) == []
    assert len(read_corpus(load_recipe(target)).train) == 16


def test_paths_are_said_from_where_the_recipe_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lines(tmp_path / "data" / "questions.jsonl", questions(20))
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for target in (Path("recipe.yaml"), Path("recipes/mine.yaml")):
        write_starter("data/questions.jsonl", "models/tiny", target)
        recipe = load_recipe(target)
        assert recipe.data.train == str(tmp_path / "data" / "questions.jsonl")
        assert recipe.model.base == str(tmp_path / "models" / "tiny")
    assert "  train: data/questions.jsonl\n" in Path("recipe.yaml").read_text()


def test_a_glob_stays_a_glob(tmp_path: Path) -> None:
    for part in ("a", "b"):
        write_lines(tmp_path / f"{part}.jsonl", questions(10, seed=ord(part)))
    target = tmp_path / "recipe.yaml"
    assert write_starter(str(tmp_path / "*.jsonl"), "OWNER/MODEL", target).startswith("20 rows")
    assert "  train: '*.jsonl'\n" in target.read_text()
    assert len(read_corpus(load_recipe(target)).division.train) == 16


def test_a_package_stays_a_package(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "questions.jsonl", questions(20))
    write_starter(str(file), "package:some_package/model.gguf", tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").model.base == "package:some_package/model.gguf"


def test_raw_text_is_pretrained_on_in_pieces(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "texts.jsonl", texts(10, words=2000))
    write_starter(str(file), "OWNER/MODEL", tmp_path / "recipe.yaml")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(recipe.objective, PretrainObjective)
    assert recipe.data.max_length == 1024
    assert "; longer texts are cut into pieces\n" in (tmp_path / "recipe.yaml").read_text()


def test_a_long_row_gets_room(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * 6000, "completion": "y"}, *questions(10)]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    write_starter(str(file), "OWNER/MODEL", tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").data.max_length == 4096


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [*questions(10), {"prompt": "p", "completion": ""}, "{oops"])
    write_starter(str(file), "OWNER/MODEL", tmp_path / "recipe.yaml")
    assert (
        "# 2 rows cannot be used as they are; `finetune check` names them\n" in (tmp_path / "recipe.yaml").read_text()
    )


def test_a_recipe_is_never_overwritten(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "questions.jsonl", questions(10))
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(FinetuneError) as caught:
        write_starter(str(file), "OWNER/MODEL", tmp_path / "recipe.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'recipe.yaml'}: this file exists already\n    -> give another name with --out"
    )
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["{oops"],
            "rows.jsonl:1: broken JSON: expecting property name enclosed in double quotes at column 2: '{oops'",
        ),
        ([json.dumps({"prompt": "a", "completion": ""})] * 2, "rows.jsonl:2: empty answer: column 'completion' is ''"),
        ([json.dumps({"foo": "a", "bar": "b"})], "--data: no format fits the columns 'foo', 'bar'"),
    ],
)
def test_data_that_cannot_be_used_write_nothing(tmp_path: Path, rows: list[str], message: str) -> None:
    file = write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(FinetuneError) as caught:
        write_starter(str(file), "OWNER/MODEL", tmp_path / "recipe.yaml")
    assert message in str(caught.value)
    assert not (tmp_path / "recipe.yaml").exists()


def pairs(count: int) -> list[dict[str, object]]:
    return [{"prompt": row["text"], "chosen": "Yes.", "rejected": "No."} for row in texts(count, 8)]


def quiz(count: int) -> list[dict[str, object]]:
    rows = texts(count, 8)
    return [{"question": r["text"], "A": "x", "B": "y", "C": "z", "cop": n % 3 + 1} for n, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "form", "said"),
    [
        (pairs(12), "preference", "  columns: {chosen: chosen, prompt: prompt, rejected: rejected}\n"),
        (
            quiz(12),
            "multiple_choice",
            "# answers count the choices from 1 (1, 2, 3 over 12 rows)\n",
        ),
        (quiz(12), "multiple_choice", "  answer_is: index_1\n"),
        ([{"completion": row["text"]} for row in texts(12)], "completion", "objective: {kind: pretrain}\n"),
        (
            [
                {"tokens": (words := row["text"].split()), "tags": ["B-X", *["O"] * (len(words) - 1)]}
                for row in texts(12, 8)
            ],
            "tags",
            "  columns: {tags: tags, tokens: tokens}\n",
        ),
        (
            [{"question": row["text"], "context": "c", "answer": ["a", "b"]} for row in texts(12)],
            "qa",
            "  format: qa\n",
        ),
        (
            [row | {"label": number % 2 == 0} for number, row in enumerate(questions(30))],
            "kto",
            "  format: kto\n",
        ),
        (
            [{"text": row["text"], "labels": [["a"], ["a", "b"]][n % 2]} for n, row in enumerate(texts(12))],
            "multi_label",
            "  columns: {labels: labels, text: text}\n",
        ),
    ],
)
def test_every_format_gets_a_recipe_that_reads_its_rows(
    tmp_path: Path, rows: list[object], form: str, said: str
) -> None:
    file = write_lines(tmp_path / "rows.jsonl", rows)
    target = tmp_path / "recipe.yaml"
    write_starter(str(file), "OWNER/MODEL", target)
    assert said in target.read_text(encoding="utf-8")
    assert problems(target) == []
    corpus = read_corpus(load_recipe(target))
    assert corpus.recognition.format == form
    assert len(corpus.division.train) > 5


def test_a_benchmark_s_folder_gets_its_name(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 4)):
        found = [{"question": r["text"], "answer": f"So.\n#### {n}"} for n, r in enumerate(texts(count, 8, seed=count))]
        write_lines(tmp_path / "math" / f"{split}.jsonl", found)
    target = tmp_path / "recipe.yaml"
    assert write_starter(str(tmp_path / "math"), "OWNER/MODEL", target).startswith("24 rows read as gsm8k (")
    assert problems(target) == []
    corpus = read_corpus(load_recipe(target))
    assert (corpus.recognition.format, len(corpus.division.test)) == ("gsm8k", 4)
