"""Tasks in a recipe: what they are called, where their files are, and where they were written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.recipe import Recipe, load_recipe, missing_files, problems
from finetune.recipe.tasks import DataTask, HeldOutTask, task_name

HEAD = "model: {base: org/model}\ndata: {train: rows.jsonl}\n"


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("/data/quiz.jsonl", "quiz"),
        ("/data/quiz.jsonl.gz", "quiz"),
        ("/data/medmcqa/", "medmcqa"),
        ("hub:openlifescienceai/medmcqa", "medmcqa"),
        ("/data/all.zip!inner/board exam.csv", "board-exam"),
        ("/data/big.json::/data/rows#500", "big"),
        (("/data/a.csv", "/data/b.csv"), "a"),
        ("/data/*.csv", "task"),
    ],
)
def test_a_task_is_called_as_its_file_unless_it_has_a_name(test: str | tuple[str, ...], name: str) -> None:
    assert task_name(DataTask(test=test)) == name
    assert task_name(DataTask(test=test, name="mine")) == "mine"


def read(folder: Path, text: str) -> Recipe:
    (folder / "recipe.yaml").write_text(HEAD + text)
    return load_recipe(folder / "recipe.yaml")


def test_held_out_rows_are_asked_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    assert read(tmp_path, "").evaluate.tasks == (HeldOutTask(),)


def test_files_of_tasks_count_from_the_recipe(tmp_path: Path) -> None:
    text = (
        "evaluate:\n  tasks:\n  - kind: held-out\n  - kind: data\n    test: quiz.jsonl\n"
        "    examples: [shown/*.jsonl, 'hub:org/name']\n"
    )
    recipe = read(tmp_path, text)
    task = recipe.evaluate.tasks[1]
    assert isinstance(task, DataTask)
    assert task.test == str(tmp_path / "quiz.jsonl")
    assert task.examples == (str(tmp_path / "shown/*.jsonl"), "hub:org/name")
    assert recipe.where("evaluate.tasks.1.test") == f"{tmp_path / 'recipe.yaml'}:7"
    found = [str(one).partition("recipe.yaml:")[2] for one in missing_files(recipe)]
    assert found == [
        f"2: data.train does not exist: {str(tmp_path / 'rows.jsonl')!r}",
        f"7: evaluate.tasks.1.test does not exist: {str(tmp_path / 'quiz.jsonl')!r}",
        f"8: evaluate.tasks.1.examples.0 matches no file: {str(tmp_path / 'shown/*.jsonl')!r}",
    ]
    assert problems(tmp_path / "recipe.yaml") == missing_files(recipe)


def test_a_wrong_kind_and_a_wrong_value_are_named(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        read(tmp_path, "evaluate:\n  tasks:\n  - {kind: data, test: a.jsonl, shots: -1}\n")
    (problem,) = caught.value.problems
    assert problem.what == "evaluate.tasks.0.shots is -1; it must be a whole number, 0 or more"
    with pytest.raises(FinetuneError) as caught:
        read(tmp_path, "evaluate:\n  tasks:\n  - {kind: datas, test: a.jsonl}\n")
    assert "held-out, data or lm_eval" in str(caught.value)


def test_the_tasks_that_are_documented_are_recipes(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    section = page.partition("## Tasks\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    kinds = [task.kind for block in blocks for task in read(tmp_path, block).evaluate.tasks]
    assert kinds == ["held-out", "data", "data", "data", "data", "data"]
    choices = read(tmp_path, blocks[2]).evaluate.tasks[0]
    assert isinstance(choices, DataTask)
    assert choices.choices == ("yes", "no", "maybe")
