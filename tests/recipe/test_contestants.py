"""Contestants and the judge in a recipe: what may be said of them, and that a key never stands in a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import FinetuneError
from finetune.recipe import load_recipe, problems, recipe_from_dict, to_yaml
from finetune.recipe.contestants import EndpointContestant, ExportContestant, GgufContestant, ModelContestant

RECIPE = """
model: {base: org/model}
data: {train: rows.jsonl}
evaluate:
  contestants:
  - {kind: model, name: rival, base: org/rival}
  - {kind: model, name: local, base: ./rival}
  - {kind: export, name: model-q8_0.gguf}
  - {kind: gguf, name: small, path: files/small.gguf}
  - kind: endpoint
    name: big
    url: http://localhost:11434/v1
    model: llama3.1:70b
    api_key_env: BIG_KEY
    parameters: {temperature: null, seed: 1, top_p: 0.5, think: false, effort: low}
    price_per_million_input: 2.5
    price_per_million_output: 10
    currency: EUR
  judge: {url: "https://api.example.org/v1", model: judge, contestants: [tuned, big]}
"""


def test_all_kinds_are_read_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(path)
    rival, local, export, small, big = recipe.evaluate.contestants
    assert (rival, export) == (
        ModelContestant(name="rival", base="org/rival"),
        ExportContestant(name="model-q8_0.gguf"),
    )
    assert isinstance(local, ModelContestant)
    assert isinstance(small, GgufContestant)
    assert isinstance(big, EndpointContestant)
    assert local.base == str(tmp_path / "rival")
    assert small.path == str(tmp_path / "files" / "small.gguf")
    assert big.parameters == {"temperature": None, "seed": 1, "top_p": 0.5, "think": False, "effort": "low"}
    assert recipe.evaluate.judge is not None
    assert recipe.evaluate.judge.contestants == ("tuned", "big")
    for only_set in (False, True):
        path.write_text(to_yaml(recipe, only_set=only_set))
        assert load_recipe(path) == recipe


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("")
    assert [(one.where, one.what) for one in problems(path)] == [
        (f"{path}:7", f"evaluate.contestants.1.base does not exist: {str(tmp_path / 'rival')!r}"),
        (f"{path}:9", f"evaluate.contestants.3.path does not exist: {str(tmp_path / 'files' / 'small.gguf')!r}"),
    ]


def told(**settings: Any) -> str:
    section = {"kind": "endpoint", "name": "big", "url": "http://h/v1", "model": "m", **settings}
    values = {"model": {"base": "a/b"}, "data": {"train": "x"}, "evaluate": {"contestants": [section]}}
    with pytest.raises(FinetuneError) as caught:
        recipe_from_dict(values)
    (problem,) = caught.value.problems
    return problem.what


def test_a_key_in_the_place_of_a_name_is_not_shown() -> None:
    assert told(api_key_env="sk-secret") == (
        "evaluate.contestants.0.api_key_env is not of the right form; it must be the name of an environment variable: "
        "capitals, digits and '_'"
    )


@pytest.mark.parametrize("url", ["http://me:secret@h/v1", "https://h/v1?key=secret", "h/v1", "ftp://h", "http://h v"])
def test_an_address_holds_no_secret(url: str) -> None:
    assert told(url=url) == (
        "evaluate.contestants.0.url is not of the right form; it must be an address that begins with http:// or "
        "https://, without a user, a key or a query in it"
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"name": "a b"}, "evaluate.contestants.0.name is 'a b'; it must be text of letters, digits"),
        ({"currency": "euro"}, "evaluate.contestants.0.currency is 'euro'; it must be three capitals, e.g. EUR"),
        ({"retries": -1}, "evaluate.contestants.0.retries is -1; it must be a whole number, 0 or more"),
        ({"concurrency": 0}, "evaluate.contestants.0.concurrency is 0; it must be a whole number, 1 or more"),
        ({"parameters": {"x": [1]}}, "evaluate.contestants.0.parameters.x is a list; it must be text or"),
        ({"kind": "api"}, "evaluate.contestants.0.kind is 'api'; it must be model, export, gguf or endpoint"),
        ({"api_key": "sk-secret"}, "unknown key 'api_key' in evaluate.contestants.0"),
    ],
)
def test_what_cannot_be_said(settings: dict[str, Any], what: str) -> None:
    found = told(**settings)
    assert found.startswith(what)
    assert "secret" not in found
