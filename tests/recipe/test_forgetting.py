"""What a recipe says of forgetting: paths count from its file, and settings without effect are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.errors import FinetuneError
from finetune.recipe import load_recipe, missing_files, recipe_from_dict, rule_problems


def values(**changes: Any) -> dict[str, Any]:
    return {"model": {"base": "org/base"}, "data": {"train": "/t.jsonl"}, "run": {"name": "x"}, **changes}


def test_files_count_from_the_recipe_and_have_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "x"}\n')
    forgetting = {"texts": "mine.jsonl", "questions": "none.jsonl", "prompts": "neither.jsonl"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values(evaluate={"forgetting": forgetting})))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert recipe.evaluate.forgetting.texts == str(tmp_path / "mine.jsonl")
    told = [problem.what for problem in missing_files(recipe) if "forgetting" in problem.what]
    assert told == [
        f"evaluate.forgetting.questions does not exist: {str(tmp_path / 'none.jsonl')!r}",
        f"evaluate.forgetting.prompts does not exist: {str(tmp_path / 'neither.jsonl')!r}",
    ]


@pytest.mark.parametrize(
    ("train", "data", "message"),
    [
        (
            {"max_forgetting": 0.1, "keep": "last"},
            {},
            "train.max_forgetting has no effect with keep: last\n"
            "    -> write keep: best, or remove train.max_forgetting",
        ),
        (
            {"max_forgetting": 0.1},
            {"split": {"validation": 0.0}},
            "train.max_forgetting has no effect: there are no validation rows\n"
            "    -> give data.validation or a data.split.validation above 0, or remove it",
        ),
    ],
)
def test_bounds_without_effect(train: dict[str, Any], data: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(values(train=train, data={"train": "/t.jsonl", **data}))
    assert message in str(caught.value)


def test_a_bound_that_has_an_effect() -> None:
    assert rule_problems(recipe_from_dict(values(train={"max_forgetting": 0.1}))) == []


@pytest.mark.parametrize("name", ["margin", "questions_margin"])
def test_margins_are_above_zero(name: str) -> None:
    with pytest.raises(FinetuneError, match=name):
        recipe_from_dict(values(evaluate={"forgetting": {name: 0.0}}))
