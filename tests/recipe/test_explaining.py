from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.recipe import (
    FullMethod,
    Recipe,
    explain,
    json_schema,
    load_recipe,
    recipe_from_dict,
    reference_markdown,
    to_yaml,
)
from finetune.recipe.names import all_keys
from finetune.recipe.schema import Section
from finetune.recipe.tree import Source, read_yaml
from finetune.recipe.words import item_type, sections

BASE: dict[str, Any] = {"model": {"base": "org/model"}, "data": {"train": "/rows.jsonl"}}


def listed(section: type[Section], prefix: str = "") -> Iterator[str]:
    """The keys of all sections that stand in a list, however deep."""
    for name, field in section.model_fields.items():
        inner = sections(field.annotation)
        for one in inner:
            yield from listed(one, f"{prefix}{name}.")
        for one in () if inner else sections(item_type(field.annotation)):
            yield from (f"{prefix}{name}.{key}" for key in one.model_fields)
            yield from listed_below(one, f"{prefix}{name}.")


def listed_below(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        for one in sections(field.annotation):
            yield from (f"{prefix}{name}.{key}" for key in one.model_fields)


RECIPES: list[dict[str, Any]] = [
    {},
    {"train": {"steps": 10}},
    {"method": {"kind": "full"}},
    {"method": {"kind": "qlora", "quantization": "int8", "targets": ["a", "b"]}},
    {"data": {"train": ["/a", "/b"], "test": "/t", "validation": "/v", "columns": {"a.b": "1e5", "": "~"}}},
    {"data": {"train": "/a", "split": {"test_ids": "/ids", "validation": 0}, "system": "yes\n\n  two: #\t lines\n"}},
    {"data": {"train": "/a", "format": "template", "template": {"prompt": "{{ a }}", "completion": "{{ b }}"}}},
    {"objective": {"kind": "pretrain"}, "data": {"train": "/a", "format": "text"}},
    {"export": [{"kind": "merged", "dtype": "float16"}, {"kind": "merged"}], "track": {"wandb": {}}},
    {"export": [{"kind": "gguf", "quantization": "q4_k_m", "task_items": 5}, {"kind": "ollama", "num_ctx": 512}]},
    {"export": []},
    {"model": {"base": "/m.gguf"}, "run": {"name": "2024", "seed": 7}},
]


def reload(recipe: Recipe, folder: Path, **how: bool) -> Recipe:
    path = folder / "again.yaml"
    path.write_text(to_yaml(recipe, **how), encoding="utf-8")
    return load_recipe(path, [] if recipe.run.name else ["run.name=null"])


@pytest.mark.parametrize("only_set", [False, True])
@pytest.mark.parametrize("values", RECIPES)
def test_yaml_loads_again_to_an_equal_recipe(tmp_path: Path, values: dict[str, Any], only_set: bool) -> None:
    recipe = recipe_from_dict(BASE | {"run": {"name": "x"}} | values)
    assert reload(recipe, tmp_path, only_set=only_set) == recipe


def test_yaml_holds_every_setting_but_defaults_without_effect() -> None:
    whole = yaml.safe_load(to_yaml(recipe_from_dict(BASE)))
    assert whole["train"]["epochs"] == 1.0
    assert whole["data"]["sample"] == {"rows": None, "per_label": None}
    by_steps = yaml.safe_load(to_yaml(recipe_from_dict(BASE | {"train": {"steps": 3}})))
    assert "epochs" not in by_steps["train"]
    assert len(by_steps["train"]) == len(whole["train"]) - 1


def test_yaml_of_what_was_set() -> None:
    recipe = Recipe.model_validate(BASE | {"method": FullMethod()})
    assert to_yaml(recipe, only_set=True) == (
        "model:\n  base: org/model\ndata:\n  train: /rows.jsonl\nmethod:\n  kind: full\n"
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_yaml(text: str) -> None:
    recipe = recipe_from_dict({**BASE, "data": {"train": "/a", "system": text, "columns": {text: text}}})
    assert read_yaml(to_yaml(recipe), Source("x", 1)).values["data"]["columns"] == {text: text}
    assert read_yaml(to_yaml(recipe), Source("x", 1)).values["data"]["system"] == text


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
@settings(max_examples=100, deadline=None)
def test_any_number_survives_yaml(number: float) -> None:
    recipe = recipe_from_dict({**BASE, "train": {"learning_rate": number}})
    assert read_yaml(to_yaml(recipe), Source("x", 1)).values["train"]["learning_rate"] == number


def test_explain_names_every_setting_with_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {base: a/b}\ndata:\n  train: [x]\nexport:\n- kind: merged\n  max_kl: 0.5\n")
    told = {one.path: one for one in explain(load_recipe(path, ["train.epochs=3"]))}
    assert told["model.base"].origin == f"{path}:1"
    assert told["data.train"].value == (str(tmp_path / "x"),)
    assert told["train.epochs"].origin == "--set train.epochs"
    assert told["train.epochs"].value == 3.0
    assert told["train.steps"].origin == told["method.kind"].origin == told["export.0.dtype"].origin == "default"
    assert told["export.0.max_kl"].origin == f"{path}:6"
    assert told["run.name"].origin == "the recipe's file name"
    assert all(one.description for one in told.values())
    leaves = {re.sub(r"\.\d+\b", "", one) for one in told}
    assert leaves <= {*all_keys(), *listed(Recipe)}
    assert len(told) > 60


def test_explain_knows_recipes_built_in_python() -> None:
    told = {one.path: one.origin for one in explain(Recipe.model_validate(BASE))}
    assert (told["model.base"], told["run.seed"]) == ("<python>", "default")


def test_json_schema_is_closed_described_and_of_the_right_draft() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "finetune recipe"
    assert "extends" in schema["properties"]
    objects = [schema, *schema["$defs"].values()]
    assert len(objects) > 15
    for one in objects:
        assert one["additionalProperties"] is False
        assert one["description"]
        for name, field in one["properties"].items():
            assert "description" in field or "$ref" in field or name == "kind"


def test_json_schema_agrees_with_the_reader() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(json_schema())
    for values in RECIPES:
        assert validator.is_valid(BASE | values)
    assert validator.is_valid({"extends": "base.yaml"})
    for wrong in ({"zzz": 1}, {"train": {"epochs": 0}}, {"method": {"kind": "full", "rank": 3}}):
        assert not validator.is_valid(BASE | wrong)


def test_reference_documents_every_setting_once() -> None:
    text = reference_markdown()
    section, seen = "", []
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.strip("# `")
        elif match := re.match(r"\| `([^`]+)`(?: \([a-z_, -]+\))? \| .+ \| .+ \| .+ \|$", line):
            seen.append(f"{section}.{match[1]}")
    assert len(seen) == len(set(seen))
    # Validation and test rows are mixtures as training rows are, and told there
    lists = {key for key in listed(Recipe) if not key.startswith(("data.validation.", "data.test."))}
    assert {"export.kind", "data.train.weight", "evaluate.contestants.url"} < lists
    assert set(seen) == {key for key in all_keys() if "." in key} | lists


def test_reference_word_for_word() -> None:
    text = reference_markdown()
    assert (
        "| `rank` (lora, qlora) | a whole number, 1 or more | `16` | Rank r of the update B·A (Hu et al. 2021, "
        "arXiv:2106.09685). |" in text
    )
    assert "| `kind` | lora, qlora or full | `lora` | Which of these it is; the other keys follow from it. |" in text
    assert "A list; default `[{kind: merged, max_kl: null, min_top1: null, dtype: auto}]`." in text
