"""The run folder: files are whole or not there, and a folder belongs to one recipe."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune import rundir
from finetune.errors import FinetuneError
from finetune.rundir import (
    RunFolder,
    create_run,
    file_hash,
    open_run,
    staged_file,
    staged_folder,
    write_json,
    write_json_lines,
    write_text,
)

REPO = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    """Everything below a folder, hidden things too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 1)
    (tmp_path / "file").write_bytes(content)
    assert file_hash(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------------ files


def test_text_is_written_with_its_parents_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "größer 日本\n")
    assert path.read_text(encoding="utf-8") == "größer 日本\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(tmp_path) == ["a", "a/b", "a/b/note.txt"]


def test_text_replaces_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "note", "a long first text")
    write_text(tmp_path / "note", "short")
    assert (tmp_path / "note").read_text() == "short"
    assert names(tmp_path) == ["note"]


def test_json_is_strict_and_keeps_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Größe", "value": 1.5})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "Größe",\n  "value": 1.5\n}\n'
    write_json_lines(tmp_path / "a.jsonl", iter([{"a": 1}, "line\nbreak"]))
    assert (tmp_path / "a.jsonl").read_text() == '{"a": 1}\n"line\\nbreak"\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
@pytest.mark.parametrize("write", [write_json, lambda path, value: write_json_lines(path, [1, value])])
def test_json_that_is_not_strict_leaves_the_old_file(tmp_path: Path, write: Any, value: object) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises((ValueError, TypeError)):
        write(tmp_path / "a", value)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_text_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "half a pair: \ud800")
    assert names(tmp_path) == []


def test_a_parent_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FinetuneError) as caught:
        write_text(tmp_path / "file" / "note", "text")
    fix = "check permissions and free space there, or set run.folder to another place"
    assert str(caught.value) == f"{tmp_path / 'file'}: cannot write 'note': File exists\n    -> {fix}"


def test_a_target_that_is_a_folder_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "note").mkdir()
    with pytest.raises(FinetuneError, match=r"cannot write 'note': Is a directory"):
        write_text(tmp_path / "note", "text")
    assert names(tmp_path) == ["note"]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from finetune.rundir import staged_folder, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
target = Path(sys.argv[2])
try:
    if sys.argv[1] == "file":
        write_text(target, "x" * 5000)
    else:
        with staged_folder(target) as aside:
            (aside / "small").write_text("x")
            (aside / "large").write_text("x" * 5000)
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_that_the_system_stops_leaves_nothing(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, kind, str(tmp_path / "target")], cwd=REPO, capture_output=True, text=True
    )
    assert done.stdout == f"FinetuneError {tmp_path}: cannot write 'target': File too large\n", done.stderr
    assert names(tmp_path) == []


def test_a_staged_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.gguf"
    with staged_file(target) as aside:
        aside.write_bytes(b"whole")
        assert not target.exists()
        assert aside.parent == target.parent
    assert names(tmp_path) == ["deep", "deep/model.gguf"]
    assert target.read_bytes() == b"whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_staged_file_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(b"old")
    with pytest.raises(error), staged_file(target) as aside:
        fail(aside, error)
    assert names(tmp_path) == ["model.gguf"]
    assert target.read_bytes() == b"old"


def test_a_staged_file_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with (
        pytest.raises(FinetuneError, match=r"cannot write 'model\.gguf'"),
        staged_file(tmp_path / "taken" / "model.gguf"),
    ):
        raise AssertionError


# ---------------------------------------------------------------------------------------------------- folders


def test_a_staged_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result"
    with staged_folder(target) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("whole")
        assert not target.exists()
        assert aside.parent == target.parent
    assert names(tmp_path) == ["deep", "deep/result", "deep/result/inner", "deep/result/inner/file"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def fail(file: Path, error: type[BaseException]) -> None:
    file.write_text("new")
    raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_staged_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    with staged_folder(tmp_path / "result") as aside:
        (aside / "file").write_text("old")
    with pytest.raises(error), staged_folder(tmp_path / "result") as aside:
        fail(aside / "file", error)
    assert names(tmp_path) == ["result", "result/file"]
    assert (tmp_path / "result" / "file").read_text() == "old"


def test_a_staged_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "result") as aside:
        (aside / "old").write_text("old")
    with staged_folder(tmp_path / "result") as aside:
        (aside / "new").write_text("new")
        assert (tmp_path / "result" / "old").read_text() == "old"
    assert names(tmp_path) == ["result", "result/new"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "result") as aside:
        (aside / "file").write_text("old")
    with pytest.raises(FileNotFoundError):
        rundir._replace_folder(tmp_path / "result", tmp_path / "gone")
    assert names(tmp_path) == ["result", "result/file"]
    with pytest.raises(FinetuneError, match="cannot write 'result'"), staged_folder(tmp_path / "result") as aside:
        aside.rmdir()
    assert names(tmp_path) == ["result", "result/file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from finetune.rundir import staged_folder
with staged_folder(Path(sys.argv[1])) as aside:
    (aside / "file").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_no_half_folder_under_the_final_name(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "result")], cwd=REPO, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "result").exists()
    with staged_folder(tmp_path / "result") as aside:
        (aside / "file").write_text("whole")
    assert (tmp_path / "result" / "file").read_text() == "whole"


# -------------------------------------------------------------------------------------------------------- runs

IDENTITY = {"base": "abc", "train.steps": 3, "method.targets": ["q_proj"]}


def test_a_new_run_has_recipe_and_manifest(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "runs" / "one", recipe_text="model: x\n", identity=IDENTITY)
    assert folder.name == "one"
    assert folder.recipe.read_text() == "model: x\n"
    assert folder.manifest() == {"identity": IDENTITY, "stages": {}}
    assert names(folder.path) == ["manifest.json", "recipe.yaml"]
    assert [
        path.name for path in (folder.metrics, folder.data, folder.checkpoints, folder.evaluation, folder.exports)
    ] == [
        "metrics.jsonl",
        "data",
        "checkpoints",
        "evaluation",
        "exports",
    ]


def test_the_same_identity_takes_the_run_up(tmp_path: Path) -> None:
    create_run(tmp_path / "run", recipe_text="a: 1\n", identity=IDENTITY).finish("train", steps=3)
    again = create_run(tmp_path / "run", recipe_text="a: 1  # comment\n", identity=dict(reversed(IDENTITY.items())))
    assert again.finished("train") == {"steps": 3}
    assert again.recipe.read_text() == "a: 1  # comment\n"


def test_another_identity_is_refused_with_every_change(tmp_path: Path) -> None:
    create_run(tmp_path / "run", recipe_text="old\n", identity=IDENTITY)
    other = {"base": "abc", "train.steps": 4, "run.seed": 1}
    with pytest.raises(FinetuneError) as caught:
        create_run(tmp_path / "run", recipe_text="new\n", identity=other)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: this run folder belongs to another recipe; changed: "
        "method.targets: ['q_proj'] -> None; run.seed: None -> 1; train.steps: 3 -> 4\n"
        "    -> give the new run its own name: --set run.name=NAME"
    )
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "old\n"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_run_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thesis"
    if kind == "file":
        path.write_text("chapter 1")
    else:
        path.mkdir()
        (path / "chapter1.txt").write_text("chapter 1")
    before = names(tmp_path)
    with pytest.raises(FinetuneError) as caught:
        create_run(path, recipe_text="", identity={})
    assert str(caught.value) == (
        f"{path}: this folder exists and is not a run\n    -> give the run another name: --set run.name=NAME"
    )
    assert names(tmp_path) == before


def test_an_empty_folder_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert create_run(tmp_path / "run", recipe_text="", identity={}).manifest()["stages"] == {}


CREATE = """
import os, signal, sys
from pathlib import Path
from finetune import rundir
left, replace = int(sys.argv[2]), os.replace
def dying(*paths):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = dying
rundir.create_run(Path(sys.argv[1]), recipe_text="a: 1", identity={"base": "abc"})
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_while_a_run_is_made_does_not_shut_its_name(tmp_path: Path, renames: int) -> None:
    done = subprocess.run([sys.executable, "-c", CREATE, str(tmp_path / "run"), str(renames)], cwd=REPO)
    assert done.returncode == (0 if renames == 2 else -signal.SIGKILL)
    folder = create_run(tmp_path / "run", recipe_text="a: 1", identity={"base": "abc"})
    assert folder.recipe.read_text() == "a: 1"
    assert folder.manifest() == {"identity": {"base": "abc"}, "stages": {}}


def test_stages_are_recorded_one_by_one(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", recipe_text="", identity={})
    assert folder.finished("train") is None
    folder.finish("data")
    folder.finish("train", steps=3, loss=0.5)
    folder.update(machine={"device": "cpu"})
    folder.finish("train", steps=4)
    assert folder.finished("data") == {}
    assert folder.finished("train") == {"steps": 4}
    assert folder.finished("export") is None
    assert open_run(str(tmp_path / "run")).manifest() == {
        "identity": {},
        "stages": {"data": {}, "train": {"steps": 4}},
        "machine": {"device": "cpu"},
    }


def test_a_fact_that_is_not_json_leaves_the_manifest(tmp_path: Path) -> None:
    folder = create_run(tmp_path / "run", recipe_text="", identity={})
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        folder.finish("train", loss=math.nan)
    assert folder.finished("train") is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"stages": {}}', '{"identity": {}}', "\xff"])
def test_a_damaged_manifest_is_said(tmp_path: Path, content: str) -> None:
    create_run(tmp_path / "run", recipe_text="", identity={})
    (tmp_path / "run" / "manifest.json").write_bytes(content.encode("latin-1"))
    for attempt in (
        open_run(tmp_path / "run").manifest,
        lambda: create_run(tmp_path / "run", recipe_text="", identity={}),
    ):
        with pytest.raises(FinetuneError, match="cannot read the run's manifest: ") as caught:
            attempt()
        assert caught.value.problems[0].where == str(tmp_path / "run" / "manifest.json")
        assert caught.value.problems[0].fix == "is this the folder of a run?"


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        open_run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: there is no run here\n    -> give the folder that `finetune run` printed, e.g. runs/NAME"
    )


@pytest.mark.parametrize("name", ["adapter", "weights"])
def test_the_trained_result_is_found_when_it_is_there(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(FinetuneError) as caught:
        folder.trained()
    assert str(caught.value) == f"{tmp_path}: this run has no trained model yet\n    -> finetune train RECIPE"
    (tmp_path / name).mkdir()
    assert folder.trained() == tmp_path / name


def test_json_lines_of_many_values(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "a.jsonl", [{"n": number} for number in range(1000)])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(1000))
