"""Who takes part: what is missing is told, and whatever decides the answers decides the fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.entrants import entrants_of
from finetune.errors import FinetuneError
from finetune.recipe import recipe_from_dict
from finetune.session import Run
from tests.small_runs import SmallRun


def opened(run: SmallRun, runs: Path, *contestants: dict[str, Any]) -> Run:
    """Open a copy of a run whose recipe names these contestants."""
    shutil.copytree(run.folder, runs / "run")
    values = yaml.safe_load((run.folder / "recipe.yaml").read_text("utf-8"))
    values["evaluate"]["contestants"] = list(contestants)
    values["run"]["folder"] = str(runs)
    return Run(recipe_from_dict(values), Run.open(runs / "run").folder)


def fingerprints(work: Run) -> dict[str, str]:
    return {entrant.name: entrant.fingerprint for entrant in entrants_of(work, tell=lambda _: None)}


def test_exports_that_are_not_there_yet_are_told(lora_run: SmallRun, tmp_path: Path) -> None:
    told: list[str] = []
    work = opened(
        lora_run, tmp_path, {"kind": "export", "name": "model-q8_0.gguf"}, {"kind": "export", "name": "merged"}
    )
    assert [entrant.name for entrant in entrants_of(work, tell=told.append)] == ["base", "tuned", "merged"]
    assert told == ["evaluate model-q8_0.gguf takes part once it is exported"]


def test_a_folder_that_holds_no_model_is_refused(lora_run: SmallRun, tmp_path: Path) -> None:
    work = opened(lora_run, tmp_path, {"kind": "export", "name": "other"})
    (work.folder.exports / "other").mkdir()
    with pytest.raises(FinetuneError, match="exports/other is no model folder"):
        entrants_of(work, tell=lambda _: None)


def test_a_gguf_file_that_is_not_there_is_refused(lora_run: SmallRun, tmp_path: Path) -> None:
    work = opened(lora_run, tmp_path, {"kind": "gguf", "name": "small", "path": str(tmp_path / "none.gguf")})
    with pytest.raises(FinetuneError, match=r"there is no file .*none\.gguf\n    -> give the path of a \.gguf file"):
        entrants_of(work, tell=lambda _: None)


def test_other_weights_are_another_contestant(lora_run: SmallRun, tmp_path: Path) -> None:
    work = opened(lora_run, tmp_path, {"kind": "export", "name": "merged"})
    before = fingerprints(work)
    assert fingerprints(work) == before
    for changed, file in (("tuned", work.folder.trained()), ("merged", work.folder.exports / "merged")):
        (weights,) = file.glob("*.safetensors")
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
        after = fingerprints(work)
        assert {name for name in before if before[name] != after[name]} == {changed}
        before = after
