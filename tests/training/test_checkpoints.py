"""Checkpoints: whole or not there, told from damaged ones, and thinned out without losing the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.rundir import file_hash
from finetune.training.checkpoints import (
    all_checkpoints,
    best_step,
    damage,
    new_checkpoint,
    newest_whole,
    read_history,
    retain,
    step_of,
)


def checkpoint(folder: Path, step: int, **facts: Any) -> Path:
    """Write a checkpoint as a trainer would."""
    with new_checkpoint(folder, step, facts) as aside:
        inner = aside / f"checkpoint-{step}"
        inner.mkdir()
        (inner / "weights.safetensors").write_bytes(bytes(range(100)))
        (inner / "optimizer.pt").write_bytes(b"state")
        (inner / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": step, "loss": 1.0}]}))
        (inner / "training_args.bin").write_bytes(b"pickled, with a token in it")
        (inner / "README.md").write_text("a card")
    return folder / f"step-{step}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_holds_what_was_written_and_a_hash_of_each_file(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 3, run="tickets")
    assert names(tmp_path) == ["step-3"]
    assert names(made) == ["manifest.json", "optimizer.pt", "trainer_state.json", "weights.safetensors"]
    manifest = json.loads((made / "manifest.json").read_text())
    assert (manifest["step"], manifest["run"]) == (3, "tickets")
    assert manifest["files"] == {
        name: file_hash(made / name) for name in ("optimizer.pt", "trainer_state.json", "weights.safetensors")
    }
    assert damage(made) is None
    assert read_history(made) == [{"step": 3, "loss": 1.0}]


def test_a_checkpoint_that_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stopped"), new_checkpoint(tmp_path, 3, {}):
        raise ValueError("stopped")
    with pytest.raises(FinetuneError, match="cannot write 'step-3'"), new_checkpoint(tmp_path, 3, {}):
        pass
    assert names(tmp_path) == []


def test_a_checkpoint_replaces_one_of_the_same_step(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 3) / "optimizer.pt").write_bytes(b"damaged")
    assert damage(checkpoint(tmp_path, 3)) is None
    assert names(tmp_path) == ["step-3"]


# -------------------------------------------------------------------------------------------------------- damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def turn_into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "trainer_state.json"])
@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (flip, "is not as it was written"),
        (cut, "is not as it was written"),
        (grow, "is not as it was written"),
        (lambda path: path.write_bytes(b""), "is not as it was written"),
        (Path.unlink, "is missing"),
        (turn_into_folder, "is missing"),
    ],
)
def test_every_damage_to_every_file_is_named(tmp_path: Path, name: str, harm: Any, fault: str) -> None:
    made = checkpoint(tmp_path, 3)
    harm(made / name)
    assert damage(made) == f"{name} {fault}"


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "3", "{}", '{"files": []}', '{"files": 3}', '{"files": null}']
)
def test_a_manifest_that_cannot_be_read_is_damage(tmp_path: Path, content: str | None) -> None:
    path = checkpoint(tmp_path, 3) / "manifest.json"
    path.unlink() if content is None else path.write_text(content)
    assert damage(tmp_path / "step-3") == "its manifest is missing or unreadable"


def test_a_further_file_is_no_damage(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 3)
    (made / "notes.txt").write_text("mine")
    assert damage(made) is None


# --------------------------------------------------------------------------------------------------- which one


def test_checkpoints_are_listed_by_step_and_others_passed_over(tmp_path: Path) -> None:
    assert all_checkpoints(tmp_path / "none") == []
    for step in (10, 9, 100):
        checkpoint(tmp_path, step)
    for other in (".step-11.abc", "step-x", "checkpoint-12", "step-13.old", "step-"):
        (tmp_path / other).mkdir()
    assert [path.name for path in all_checkpoints(tmp_path)] == ["step-9", "step-10", "step-100"]
    assert step_of(Path("runs/a/step-100")) == 100
    assert step_of(Path("runs/step-100/a")) is None


def test_the_newest_whole_one_is_taken_and_each_newer_one_named(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, [])
    for step in (2, 4, 6, 10):
        checkpoint(tmp_path, step)
    assert newest_whole(tmp_path) == (tmp_path / "step-10", [])
    flip(tmp_path / "step-10" / "optimizer.pt")
    (tmp_path / "step-6" / "weights.safetensors").unlink()
    found, skipped = newest_whole(tmp_path)
    assert found == tmp_path / "step-4"
    assert [str(problem) for problem in skipped] == [
        f"{tmp_path / 'step-10'}: optimizer.pt is not as it was written\n    -> an older checkpoint is used",
        f"{tmp_path / 'step-6'}: weights.safetensors is missing\n    -> an older checkpoint is used",
    ]
    assert {problem.severity for problem in skipped} == {"warning"}


def test_none_is_taken_when_all_are_damaged(tmp_path: Path) -> None:
    for step in (2, 4):
        (checkpoint(tmp_path, step) / "manifest.json").unlink()
    found, skipped = newest_whole(tmp_path)
    assert found is None
    assert len(skipped) == 2


HISTORY = [
    {"step": 1, "loss": 0.1},
    {"step": 2, "eval_loss": 2.0},
    {"step": 2, "loss": 0.1},
    {"step": 4, "eval_loss": 1.0},
    {"step": 6, "eval_loss": 1.0},
    {"step": 8, "eval_loss": 0.5},
]


@pytest.mark.parametrize(
    ("steps", "expected"), [({2, 4, 6, 8}, 8), ({2, 4, 6}, 4), ({2, 6}, 6), ({1}, None), (set(), None), ({1, 2}, 2)]
)
def test_the_best_step_has_the_lowest_validation_loss_of_those_there(steps: set[int], expected: int | None) -> None:
    assert best_step(HISTORY, steps) == expected


@settings(deadline=None)
@given(
    steps=st.sets(st.integers(1, 30), max_size=8),
    newest=st.integers(1, 4),
    best=st.none() | st.integers(1, 30),
)
def test_the_best_and_the_newest_are_retained_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, steps: set[int], newest: int, best: int | None
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in steps:
        (folder / f"step-{step}").mkdir()
        (folder / f"step-{step}" / "file").write_text("")
    (folder / "notes").mkdir()
    retain(folder, best=best, newest=newest)
    kept = {step_of(path) for path in all_checkpoints(folder)}
    assert kept == set(sorted(steps)[-newest:]) | (steps & {best})
    assert (folder / "notes").is_dir()
