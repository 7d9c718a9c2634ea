"""The command line as scripts see it: exit codes, one JSON object on standard output, all else on standard error."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.small_runs import tickets

PROGRAM = [sys.executable, "-m", "finetune"]
FIVE_MISTAKES = """\
model:
  base: {base}
data:
  trian: tickets.jsonl
  train: missing/tickets.jsonl
  split: {{test: 0.7, validation: 0.5}}
method:
  kind: lorra
train:
  epochs: many
  learning_rate: 1e-4
"""


def finetune(*arguments: object, said: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], input=said, capture_output=True, text=True, cwd=folder, timeout=300
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "tickets.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ["text", "queue"])
        writer.writeheader()
        writer.writerows(tickets(60))
    return path


@pytest.fixture(scope="module")
def recipe(tiny_base: Path, table: Path) -> Path:
    path = table.with_name("recipe.yaml")
    done = finetune("init", "--data", table, "--base", tiny_base, "--out", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "classification" in done.stdout
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["train"] = {"steps": 2, "batch_size": 8}
    settings["evaluate"] = {"max_items": 4, "max_new_tokens": 4, "require": "nothing"}
    settings["run"] = {"folder": str(table.parent / "runs")}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(recipe: Path) -> dict[str, Any]:
    told = finetune("run", recipe, "--json")
    assert told.returncode == 0, told.stderr
    value: dict[str, Any] = json.loads(told.stdout)
    assert "Traceback" not in told.stderr
    assert "train    2 steps" in told.stderr
    return value


def test_five_mistakes_are_told_at_once_with_lines_and_without_torch(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(FIVE_MISTAKES.format(base=tiny_base), encoding="utf-8")
    check = "from finetune.cli import main\nimport sys\nsys.argv[1:] = ['check', 'recipe.yaml']\n"
    check += "try:\n    main()\nfinally:\n    print('torch' in sys.modules, 'transformers' in sys.modules)\n"
    told = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert told.returncode == 2
    *problems, count, loaded = told.stdout.splitlines()
    assert problems == [
        "error: recipe.yaml:4: unknown key 'trian' in data",
        "    -> did you mean 'train'?",
        f"error: recipe.yaml:5: data.train does not exist: '{tmp_path}/missing/tickets.jsonl'",
        f"    -> the folder '{tmp_path}/missing' does not exist",
        "error: recipe.yaml:6: split sets aside 0.5 for validation and 0.7 for test, which leaves no rows to train on",
        "    -> make them smaller: together less than 1",
        "error: recipe.yaml:8: method.kind is 'lorra'; it must be lora, qlora or full",
        "    -> did you mean 'lora'?",
        "error: recipe.yaml:10: train.epochs is 'many'; it must be a number, greater than 0",
    ]
    assert (count, loaded) == ("5 problems", "False False")


def test_check_tells_data_and_method_together(recipe: Path, table: Path) -> None:
    broken = table.with_name("broken.csv")
    broken.write_text(table.read_text(encoding="utf-8") + "only one field\n", encoding="utf-8")
    told = finetune("check", recipe, "--set", f"data.train={broken}", "--set", "method.targets=[q_prj]", "--json")
    assert told.returncode == 2
    found = json.loads(told.stdout)["problems"]
    assert {problem["severity"] for problem in found} == {"error"}
    assert any("'q_prj'" in problem["what"] and "q_proj" in problem["fix"] for problem in found)
    assert any(problem["where"].endswith("broken.csv:62") for problem in found)


def test_run_prints_what_was_promised(done: dict[str, Any]) -> None:
    assert {"run", "data", "train", "evaluation", "exports", "verdict"} <= set(done)
    (task,) = done["evaluation"]["tasks"]
    assert {"n", "base", "tuned", "difference", "interval", "p_value", "verdict"} <= set(task)
    assert task["n"] == 4
    assert done["verdict"] == "too few items to tell"
    assert done["exports"]["merged"]["passed"] is True
    assert Path(done["report"]).is_file()


def test_inspect_shows_each_token(recipe: Path) -> None:
    told = finetune("data", "inspect", recipe, "--rows", 2, "--json")
    value = json.loads(told.stdout)
    assert (told.returncode, len(value["examples"])) == (0, 2)
    assert value["format"]["name"] == "classification"
    assert value["rows"]["read"] == 60
    flags = [token["trained"] for token in value["examples"][0]["tokens"]]
    assert 0 < sum(flags) < len(flags)
    assert "60 read, 60 kept, 0 dropped" in finetune("data", "inspect", recipe).stdout


def test_verdict_below_what_is_required_ends_with_3(recipe: Path, done: dict[str, Any]) -> None:
    run = Path(done["run"])
    settings = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    settings["evaluate"]["require"] = "better"
    (run / "recipe.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    told = finetune("evaluate", run, "--json")
    assert told.returncode == 3
    assert json.loads(told.stdout)["tasks"][0]["verdict"] == "too few items to tell"


def test_export_to_another_number_format(done: dict[str, Any]) -> None:
    told = finetune("export", done["run"], "--to", "merged:float16", "--json")
    assert told.returncode == 0, told.stderr
    proof = json.loads(told.stdout)["merged-float16"]
    assert proof["passed"] is True
    assert (Path(done["run"]) / "exports" / "merged-float16" / "model.safetensors").is_file()
    wrong = finetune("export", done["run"], "--to", "merged:float61")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "--to: cannot export to 'merged:float61'\n    -> merged or merged:float16\n",
    )


def test_chat_answers_a_piped_line(done: dict[str, Any]) -> None:
    told = finetune("chat", done["run"], said="where is my order\n")
    assert told.returncode == 0, told.stderr
    # A model this small may say anything, but it ends its line
    assert told.stdout.endswith("\n")


def test_explain_tells_where_values_come_from(recipe: Path) -> None:
    told = finetune("explain", recipe.name, "--set", "train.batch_size=4", folder=recipe.parent)
    lines = {line.partition(":")[0]: line for line in told.stdout.splitlines()}
    assert lines["train.batch_size"].endswith("# --set train.batch_size")
    assert lines["method.rank"].endswith("# default")
    assert "# recipe.yaml:" in lines["data.train"]


def test_schema_accepts_the_recipes() -> None:
    schema = json.loads(finetune("schema").stdout)
    assert schema["additionalProperties"] is False
    assert {"model", "data", "method", "train"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml"),
        (("evaluate", "nowhere"), "there is no run here"),
        (("merge", "nowhere"), "there is no run here"),
    ],
)
def test_mendable_faults_end_with_2_and_no_traceback(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    told = finetune(*arguments, folder=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert message in told.stderr
    assert "Traceback" not in told.stderr
    assert os.listdir(tmp_path) == []
