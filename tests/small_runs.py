"""Corpora of random words and recipes over them, small enough for whole runs inside a test."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.recipe import Recipe, recipe_from_dict
from finetune.results import RunResult
from finetune.rundir import file_hash
from finetune.session import Run

# fmt: off
WORDS = (
    "order", "parcel", "invoice", "password", "refund", "account", "delivery", "colour", "battery", "screen", "window",
    "garden", "letter", "bridge", "river", "mountain", "teacher", "doctor", "kitchen", "bottle", "summer", "winter",
    "morning", "evening", "ticket", "engine", "camera", "pencil", "market", "island",
)
# fmt: on
QUEUES = ("billing", "shipping", "returns", "other")


def sentence(chance: random.Random, words: int = 8) -> str:
    """Words drawn at random, so that no two texts are nearly the same."""
    return " ".join(chance.choice(WORDS) for _ in range(words))


def questions(count: int = 48, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts whose answer is always the same word."""
    chance = random.Random(seed)
    return [{"id": f"q{index}", "prompt": sentence(chance), "completion": "returns"} for index in range(count)]


def tickets(count: int = 48, seed: int = 1) -> list[dict[str, Any]]:
    """Texts with one of four labels in turn."""
    chance = random.Random(seed)
    return [{"text": sentence(chance), "queue": QUEUES[index % len(QUEUES)]} for index in range(count)]


def texts(count: int = 24, words: int = 40, seed: int = 2) -> list[dict[str, Any]]:
    """Raw text."""
    chance = random.Random(seed)
    return [{"text": sentence(chance, words)} for _ in range(count)]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Write JSON Lines; a row that is text already is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def settings(base: Path, corpus: Path, runs: Path, **changes: dict[str, Any]) -> dict[str, Any]:
    """What a recipe file would say; `train={"steps": 2}` lays settings over a section."""
    values: dict[str, Any] = {
        "model": {"base": str(base), "dtype": "float32"},
        "data": {"train": str(corpus), "max_length": 128},
        "method": {"kind": "lora", "rank": 4},
        "train": {"steps": 4, "batch_size": 8, "learning_rate": 0.02, "eval_every": 2},
        "evaluate": {"require": "nothing", "cost": {"requests": 2, "warm_up": 1}},
        # A model of random weights finds some tokens nearly equally likely
        "export": [{"kind": "merged", "min_top1": 0.98}],
        "run": {"name": "run", "folder": str(runs)},
    }
    for section, entries in changes.items():
        another = "kind" in entries and entries["kind"] != values.get(section, {}).get("kind")
        values[section] = dict(entries) if another else {**values.get(section, {}), **entries}
    return values


def small_recipe(base: Path, corpus: Path, runs: Path, **changes: dict[str, Any]) -> Recipe:
    """The recipe that `settings` says."""
    return recipe_from_dict(settings(base, corpus, runs, **changes))


@dataclass(frozen=True)
class SmallRun:
    """A finished run, for tests to look at; those that change something take a copy."""

    recipe: Recipe
    result: RunResult
    folder: Path


def copied(run: SmallRun, runs: Path) -> Run:
    """Open a copy of a finished run, in another folder of runs."""
    shutil.copytree(run.folder, runs / "run")
    return Run.open(runs / "run")


def elsewhere(recipe: Recipe, runs: Path, **sections: Mapping[str, Any]) -> Recipe:
    """The same recipe with another folder for its runs, and other settings of some sections."""
    changed = {name: getattr(recipe, name).model_copy(update=dict(entries)) for name, entries in sections.items()}
    place = changed.pop("run", recipe.run).model_copy(update={"folder": str(runs)})
    return recipe.model_copy(update={"run": place, **changed})


def lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path there, with the hash of its content."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_hash(path) for path in found}


def listing(folder: Path) -> list[str]:
    """Every file and folder below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_recipe(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a recipe file that says `values`."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
    return path
