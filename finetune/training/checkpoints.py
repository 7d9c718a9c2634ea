"""Checkpoints that are whole or not there: written aside, hashed, flushed, renamed to `checkpoints/step-N`.

Resuming takes the newest one whose every file has the hash its manifest says.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.errors import Problem
from finetune.rundir import file_hash, staged_folder, write_json

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
# Pickled by transformers with all arguments, hub tokens among them; nothing here reads it
UNWANTED = ("training_args.bin", "README.md")


def step_of(folder: Path) -> int | None:
    """Return the step of a checkpoint folder's name, or None for other names."""
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return int(match[1]) if match else None


def all_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    found = [path for path in folder.iterdir() if step_of(path) is not None] if folder.is_dir() else []
    return sorted(found, key=lambda path: step_of(path) or 0)


@contextmanager
def new_checkpoint(folder: Path, step: int, facts: dict[str, Any]) -> Iterator[Path]:
    """Yield a folder to write a checkpoint in; it becomes `step-N` when the block ends well.

    Whatever the block writes under `checkpoint-N/` is moved up. `facts` go into the manifest beside the hashes.
    """
    with staged_folder(folder / f"step-{step}") as aside:
        yield aside
        inner = aside / f"checkpoint-{step}"
        for path in inner.iterdir():
            path.rename(aside / path.name)
        inner.rmdir()
        for name in UNWANTED:
            (aside / name).unlink(missing_ok=True)
        files = {path.name: file_hash(path) for path in sorted(aside.iterdir())}
        write_json(aside / MANIFEST, {"step": step, **facts, "files": files})


def damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint, or None when every file is as it was written."""
    try:
        files = dict(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    if not files:
        return "its manifest is missing or unreadable"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != digest:
            return f"{name} is not as it was written"
    return None


def newest_whole(folder: Path) -> tuple[Path | None, list[Problem]]:
    """Return the newest undamaged checkpoint, and a warning for each newer one that was passed over."""
    skipped: list[Problem] = []
    for checkpoint in reversed(all_checkpoints(folder)):
        fault = damage(checkpoint)
        if fault is None:
            return checkpoint, skipped
        skipped.append(Problem(str(checkpoint), fault, "an older checkpoint is used", "warning"))
    return None, skipped


def standing(entry: dict[str, Any], max_forgetting: float | None) -> tuple[bool, float]:
    """Return what a look at the validation rows is ranked by, the best lowest.

    That is its loss, or where more was forgotten than may be, and so behind all others, what was forgotten.
    """
    if max_forgetting is not None and entry["eval_forgetting"] > max_forgetting:
        return True, entry["eval_forgetting"]
    return False, entry["eval_loss"]


def best_step(history: list[dict[str, Any]], steps: set[int], max_forgetting: float | None = None) -> int | None:
    """Return the step of `steps` that stands best in a trainer's log history, the earliest if tied.

    Args:
        history: what the trainer logged.
        steps: those to choose from.
        max_forgetting: most bits per byte that general texts may have risen by; None where that was not measured.
    """
    seen = [entry for entry in history if "eval_loss" in entry and entry["step"] in steps]
    ranked = [(standing(entry, max_forgetting), entry["step"]) for entry in seen]
    return min(ranked)[1] if ranked else None


def read_history(checkpoint: Path) -> list[dict[str, Any]]:
    """Read the log history that a checkpoint carries."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    history: list[dict[str, Any]] = state["log_history"]
    return history


def retain(folder: Path, *, best: int | None, newest: int = 2) -> None:
    """Delete checkpoints other than the best and the newest few."""
    checkpoints = all_checkpoints(folder)
    for checkpoint in checkpoints[:-newest]:
        if step_of(checkpoint) != best:
            shutil.rmtree(checkpoint)
