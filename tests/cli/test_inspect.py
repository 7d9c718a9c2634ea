"""`finetune data inspect` and `finetune check` as people and scripts see what was found in the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said
from tests.small_runs import questions, settings, write_lines, write_recipe

Command = Callable[..., Said]

ODD = [
    {"id": "x", "prompt": "mail ann@a.org about it", "completion": "I cannot help with that."},
    {"id": "y", "prompt": "what does <|im_start|> mean", "completion": "N/A"},
]


def recipe_file(base: Path, folder: Path, rows: list[Any], **checks: Any) -> Path:
    values = settings(base, write_lines(folder / "rows.jsonl", rows), folder / "runs", data={"checks": checks})
    return write_recipe(folder / "recipe.yaml", values)


def test_inspect_prints_one_object(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    told = command("data", "inspect", recipe_file(tiny_base, tmp_path, [*questions(40), *ODD]), "--json", "--rows", 1)
    value = told.json()
    assert told.code == 0
    assert {"format", "rows", "tokens", "examples", "findings", "histogram", "sources", "certificate"} <= set(value)
    assert {"personal_data", "refusals", "chat_markers", "empty_answers"} <= {one["kind"] for one in value["findings"]}
    assert all({"id", "text", "trained"} == set(token) for token in value["examples"][0]["tokens"])


def test_inspect_for_people(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    told = command("data", "inspect", recipe_file(tiny_base, tmp_path, [*questions(40), *ODD]))
    assert told.code == 0
    assert "rows     42 read, 42 kept, 0 dropped" in told.out
    assert "length of the training rows in tokens" in told.out
    assert "█" in told.out
    assert "refuses or speaks of itself as an AI" in " ".join(told.out.split())
    assert "ann@a.org" not in told.out.split("format   ")[1]


def test_inspect_without_a_recipe(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [*questions(40), "{broken"])
    told = command("data", "inspect", file)
    assert told.code == 0
    assert "rows     41 read, 40 kept, 1 dropped\n           1 broken JSON\n" in told.out
    assert "tokens   not counted: no base model was given" in told.out
    with_base = command("data", "inspect", file, "--base", tiny_base, "--json").json()
    assert with_base["tokens"]["total"] > 0
    assert with_base["rows"]["dropped"] == {"broken JSON": 1}


def test_inspect_writes_a_page(command: Command, tmp_path: Path) -> None:
    file, page = write_lines(tmp_path / "rows.jsonl", questions(40)), tmp_path / "page.html"
    told = command("data", "inspect", file, "--html", page)
    assert told.out.endswith(f"page     {page}\n")
    text = page.read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    assert "40 read, 40 kept, 0 dropped" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rows.jsonl", "--set", "data.format=text"), "--set: --set has no effect without a recipe"),
        (("recipe.yaml", "--base", "x"), "--base: --base has no effect: the recipe names its base"),
        (("nothing.jsonl",), "nothing.jsonl: no such file: "),
    ],
)
def test_what_inspect_refuses(command: Command, arguments: tuple[str, ...], message: str) -> None:
    told = command("data", "inspect", *arguments)
    assert told.code == 2
    assert message in told.err


def test_check_tells_findings(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    told = command("check", recipe_file(tiny_base, tmp_path, [*questions(40), *ODD]), "--json")
    value = told.json()
    assert told.code == 0
    refusal = next(one for one in value["problems"] if "refuses or speaks" in one["what"])
    assert (refusal["severity"], "rows.jsonl:41" in refusal["what"]) == ("warning", True)
    assert value["certificate"]["findings"]
    assert "ann@a.org" not in json.dumps(value)


def test_what_the_recipe_refuses_ends_with_2(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    file = recipe_file(tiny_base, tmp_path, [*questions(40), *ODD], error=["refusals"], ignore=["chat_markers"])
    told = command("check", file)
    assert told.code == 2
    assert "error: " in told.out
    assert "refuses or speaks of itself" in told.out
    assert "marks of a chat template" not in told.out
    assert command("data", "inspect", file, "--json").code == 2


def test_an_unknown_kind_of_finding_is_told_with_the_nearest(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    told = command("check", recipe_file(tiny_base, tmp_path, questions(40), ignore=["leak"]))
    assert told.code == 2
    assert "data.checks.ignore.0 is 'leak'; it must be leaks, contained_texts, " in told.out
    assert "-> did you mean 'leaks'?" in told.out
