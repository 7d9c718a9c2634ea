"""The main path with a tiny base: what a run leaves, going on after interruptions, refusals, and proofs that prove."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune import pipeline
from finetune.errors import FinetuneError
from finetune.recipe import load_recipe
from finetune.session import Run
from tests.small_runs import (
    SmallRun,
    copied,
    elsewhere,
    hashes,
    lines,
    listing,
    questions,
    small_recipe,
    texts,
    tickets,
    write_lines,
)

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 4, "dropout": 0.1},
    "nf4": {"kind": "qlora", "rank": 4},
    "int8": {"kind": "qlora", "rank": 4, "quantization": "int8"},
    "full": {"kind": "full"},
}


# ------------------------------------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_its_folder_as_promised(tiny_base: Path, corpus: Path, tmp_path: Path, method: str) -> None:
    recipe = small_recipe(tiny_base, corpus, tmp_path / "runs", method=METHODS[method])
    told: list[str] = []
    result = pipeline.run(recipe, tell=told.append)
    folder = tmp_path / "runs" / "run"
    trained = "weights" if method == "full" else "adapter"
    model = "model.safetensors" if method == "full" else "adapter_model.safetensors"

    found = listing(tmp_path / "runs")
    for name in (
        *("recipe.yaml", "manifest.json", "metrics.jsonl", "report.html", "README.md"),
        *("data/certificate.json", "data/splits.json", "data/dropped.jsonl"),
        *(f"checkpoints/step-{step}/{file}" for step in (2, 4) for file in ("manifest.json", "optimizer.pt", model)),
        *(f"{trained}/{file}" for file in (model, "tokenizer.json", "chat_template.jinja")),
        *("evaluation/answers.jsonl", "evaluation/results.json", "exports/verification.json"),
        *(f"exports/merged/{file}" for file in ("config.json", "model.safetensors", "tokenizer.json")),
    ):
        assert f"run/{name}" in found
    assert [path for path in found if any(part.startswith(".") for part in Path(path).parts)] == []
    assert [path for path in found if path.endswith(("training_args.bin", ".bin"))] == []

    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["stages"]) == ["data", "train", "evaluate", "export"]
    assert {"identity", "base", "machine", "versions"} <= manifest.keys()
    splits = json.loads((folder / "data" / "splits.json").read_text())
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 39, "validation": 4, "test": 5}
    assert sorted(chain.from_iterable(splits.values())) == sorted(row["id"] for row in questions())

    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in metrics if "eval_loss" in line] == [2, 4]
    assert [line["id"] for line in lines(folder / "evaluation" / "answers.jsonl")] == splits["test"]

    (proof,) = result.exports.proofs.values()
    assert proof["passed"] is True
    assert (proof["rows"], proof["prompts"], proof["greedy_match"]) == (5, 5, 1.0)
    assert result.passed
    assert result.evaluation.tasks[0]["n"] == 5
    assert set(result.as_dict()) == {
        *("run", "data", "train", "evaluation", "exports", "verdict", "passed", "report"),
    }
    json.dumps(result.as_dict(), allow_nan=False)
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert load_recipe(folder / "recipe.yaml") == recipe
    assert [line.split()[0] for line in told] == [
        *("base", "data", "evaluate", "train", "train", "evaluate", "evaluate", "export", "report")
    ]


def test_a_second_call_changes_nothing(lora_run: SmallRun) -> None:
    before = hashes(lora_run.folder)
    told: list[str] = []
    again = pipeline.run(lora_run.recipe, tell=told.append)
    assert hashes(lora_run.folder) == before
    assert again.as_dict() == lora_run.result.as_dict()
    assert f"train    done before, in {lora_run.folder / 'adapter'}" in told
    assert len(before) > 25


def test_the_trained_model_answers_the_same_when_the_run_is_opened_again(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    before = (work.folder.evaluation / "answers.jsonl").read_bytes()
    shutil.rmtree(work.folder.evaluation)
    told: list[str] = []
    pipeline.evaluate(work, tell=told.append)
    assert (work.folder.evaluation / "answers.jsonl").read_bytes() == before
    assert [line.split()[0] for line in told] == ["evaluate", "evaluate"]


def test_files_that_were_deleted_are_made_again(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    recipe = elsewhere(lora_run.recipe, tmp_path)
    before = hashes(work.folder.path)
    for name in ("adapter", "exports", "evaluation"):
        shutil.rmtree(work.folder.path / name)
    assert pipeline.run(recipe).passed
    after = hashes(work.folder.path)
    assert after.keys() == before.keys()
    for name in ("adapter/adapter_model.safetensors", "exports/merged/model.safetensors", "evaluation/answers.jsonl"):
        assert after[name] == before[name]


def test_other_settings_of_the_evaluation_train_nothing_again(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    before = hashes(work.folder.path)
    told: list[str] = []
    recipe = elsewhere(lora_run.recipe, tmp_path, evaluate={"confidence": 0.8, "max_items": 3})
    result = pipeline.run(recipe, tell=told.append)
    after = hashes(work.folder.path)
    assert result.evaluation.tasks[0]["n"] == 3
    assert "evaluate" in [line.split()[0] for line in told]
    assert "export" not in [line.split()[0] for line in told]
    changed = {name for name in before if before[name] != after[name] and "/given/" not in name}
    assert changed == {
        *("recipe.yaml", "manifest.json", "evaluation/answers.jsonl", "evaluation/results.json"),
        *("report.html", "README.md"),
    }


# --------------------------------------------------------------------------------------------------- going on


class Interrupting:
    """A tracker that stops the run at a step, as ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        if step == self.step and "loss" in figures:
            raise KeyboardInterrupt

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Nothing to do."""


SAME = ("adapter/adapter_model.safetensors", "exports/merged/model.safetensors", "evaluation/answers.jsonl")


@pytest.mark.parametrize(("step", "resumed_from"), [(1, None), (4, 2)])
def test_an_interrupted_training_ends_in_the_same_bits(
    lora_run: SmallRun, tmp_path: Path, step: int, resumed_from: int | None
) -> None:
    recipe = elsewhere(lora_run.recipe, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(recipe, watcher=Interrupting(step))
    assert not (tmp_path / "run" / "adapter").exists()
    result = pipeline.run(recipe)
    assert result.train["resumed_from"] == resumed_from
    after, before = hashes(tmp_path / "run"), hashes(lora_run.folder)
    assert [after[name] for name in SAME] == [before[name] for name in SAME]
    timeless = [
        [{key: line[key] for key in ("step", "loss", "eval_loss") if key in line} for line in lines(path)]
        for path in (tmp_path / "run" / "metrics.jsonl", lora_run.folder / "metrics.jsonl")
    ]
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) == 6


@pytest.mark.parametrize("line", ["data", "train    4 steps", "evaluate", "export"])
def test_a_run_stopped_after_any_stage_goes_on(lora_run: SmallRun, tmp_path: Path, line: str) -> None:
    recipe = elsewhere(lora_run.recipe, tmp_path)

    def stop(told: str) -> None:
        if told.startswith(line):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe, tell=stop)
    assert pipeline.run(recipe).passed
    after, before = hashes(tmp_path / "run"), hashes(lora_run.folder)
    assert after.keys() == before.keys()
    assert [after[name] for name in SAME] == [before[name] for name in SAME]


# --------------------------------------------------------------------------------------------------- refusals


def test_another_recipe_in_the_same_folder_is_refused(lora_run: SmallRun) -> None:
    before = hashes(lora_run.folder)
    runs = lora_run.folder.parent
    other = elsewhere(lora_run.recipe, runs, train={"learning_rate": 0.01}, method={"rank": 8})
    with pytest.raises(FinetuneError) as caught:
        pipeline.run(other)
    assert str(caught.value) == (
        f"{lora_run.folder}: this run folder belongs to another recipe; changed: method.rank: 4 -> 8; "
        "train.learning_rate: 0.02 -> 0.01\n    -> give the new run its own name: --set run.name=NAME"
    )
    assert hashes(lora_run.folder) == before


def test_changed_data_are_refused(lora_run: SmallRun, tmp_path: Path) -> None:
    before = hashes(lora_run.folder)
    changed = write_lines(tmp_path / "questions.jsonl", [*questions(), {**questions(1, seed=9)[0], "id": "new"}])
    with pytest.raises(FinetuneError, match=r"belongs to another recipe; changed: data\.files: \['[0-9a-f]{64}'\] -> "):
        pipeline.run(elsewhere(lora_run.recipe, lora_run.folder.parent, data={"train": str(changed)}))
    assert hashes(lora_run.folder) == before


def test_the_same_data_and_base_elsewhere_are_the_same_run(
    lora_run: SmallRun, tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    work = copied(lora_run, tmp_path)
    moved = shutil.copy(corpus, tmp_path / "moved.jsonl")
    base = shutil.copytree(tiny_base, tmp_path / "moved-base")
    recipe = elsewhere(lora_run.recipe, tmp_path, data={"train": str(moved)}, model={"base": str(base)})
    before = hashes(work.folder.path / "adapter")
    assert pipeline.run(recipe).passed
    assert hashes(work.folder.path / "adapter") == before


def test_a_changed_base_is_refused(lora_run: SmallRun, tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] *= 1.01
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match=r"belongs to another recipe; changed: base: '[0-9a-f]{64}' -> "):
        pipeline.run(elsewhere(lora_run.recipe, lora_run.folder.parent, model={"base": str(base)}))


def test_a_method_that_fits_no_module_leaves_nothing(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tiny_base, corpus, tmp_path / "runs", method={"targets": ("q_prj",)})
    with pytest.raises(FinetuneError) as caught:
        pipeline.run(recipe)
    assert str(caught.value) == (
        "<python> (targets): no module of this model is named 'q_prj'\n    -> did you mean 'q_proj'?"
    )
    assert listing(tmp_path) == []


def test_held_out_rows_that_cannot_be_judged_are_told_before_training(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(tiny_base, corpus, tmp_path / "runs", evaluate={"scorer": "number"})
    told = "number cannot judge these rows: the reference 'returns' of item 'q3' has no number"
    with pytest.raises(FinetuneError, match=told):
        pipeline.run(recipe)
    without = small_recipe(tiny_base, corpus, tmp_path / "runs", data={"split": {"test": 0.0}})
    with pytest.raises(FinetuneError) as caught:
        pipeline.run(without)
    assert str(caught.value) == (
        "evaluate: there are no test rows to evaluate on\n    -> give data.test, or a data.split.test above 0"
    )
    assert listing(tmp_path) == []


def test_a_run_that_learned_nothing_is_taken_up_by_the_mended_recipe(
    tiny_base: Path, corpus: Path, tmp_path: Path
) -> None:
    wild = {"learning_rate": 1e30, "warmup": 0.0, "schedule": "constant"}
    with pytest.raises(FinetuneError, match="lower the learning rate"):
        pipeline.run(small_recipe(tiny_base, corpus, tmp_path, train=wild, method=METHODS["full"]))
    assert (tmp_path / "run" / "manifest.json").exists()
    assert pipeline.run(small_recipe(tiny_base, corpus, tmp_path)).passed
    identity = json.loads((tmp_path / "run" / "manifest.json").read_text())["identity"]
    assert (identity["train.learning_rate"], identity["method.kind"]) == (0.02, "lora")


def test_an_untrained_run_says_what_to_do(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    work = Run(small_recipe(tiny_base, corpus, tmp_path))
    with pytest.raises(FinetuneError, match="this run has no folder yet"):
        pipeline.evaluate(work)
    work.create()
    with pytest.raises(FinetuneError, match=r"this run has no trained model yet\n    -> finetune train RECIPE"):
        pipeline.evaluate(work)
    assert Path(pipeline.report(work)).exists()


# ------------------------------------------------------------------------------------------------ kinds of data


def test_raw_text_is_measured_in_bits_per_byte(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*texts(20, words=20), *texts(10, words=90, seed=3)]
    raw = write_lines(tmp_path / "texts.jsonl", rows)
    recipe = small_recipe(
        tiny_base,
        raw,
        tmp_path / "runs",
        data={"max_length": 64, "split": {"test": 0.4}},
        objective={"kind": "pretrain"},
        evaluate={"require": "better"},
        train={"steps": 8},
        method=METHODS["full"],
    )
    result = pipeline.run(recipe)
    (task,) = result.evaluation.tasks
    assert (task["scorer"], task["n"]) == ("bits_per_byte", 12)
    assert 0 < task["tuned"] < task["base"]
    assert result.evaluation.verdicts == ["better"]
    assert result.passed
    answers = lines(Path(result.run) / "evaluation" / "answers.jsonl")
    long = [answer for answer in answers if len(answer["reference"]) > 400]
    assert long
    assert all(answer["tuned"]["tokens"] > 64 for answer in long)
    splits = json.loads((Path(result.run) / "data" / "splits.json").read_text())
    assert sum(map(len, splits.values())) == 30


def test_a_table_of_labels_is_judged_by_label(tiny_base: Path, tmp_path: Path) -> None:
    rows = tickets(80)
    table = tmp_path / "tickets.csv"
    table.write_text("text,queue\n" + "".join(f"{row['text']},{row['queue']}\n" for row in rows), encoding="utf-8")
    recipe = small_recipe(tiny_base, table, tmp_path / "runs", data={"split": {"test": 0.2}})
    result = pipeline.run(recipe)
    (task,) = result.evaluation.tasks
    assert result.data["format"] == "classification"
    assert (task["scorer"], task["n"]) == ("label", 16)
    assert task["baseline"]["score"] == pytest.approx(0.25)
    references = {answer["reference"] for answer in lines(Path(result.run) / "evaluation" / "answers.jsonl")}
    assert references == {"billing", "shipping", "returns", "other"}


def test_better_is_proven(tiny_base: Path, tmp_path: Path) -> None:
    many = write_lines(tmp_path / "questions.jsonl", questions(96))
    recipe = small_recipe(
        tiny_base,
        many,
        tmp_path / "runs",
        data={"split": {"test": 0.2}},
        # So small a model of random weights knows nothing of general matters that it could keep
        evaluate={"require": "better", "forgetting": {"margin": 20.0, "questions_margin": 0.9}},
        train={"steps": 24, "learning_rate": 0.01, "eval_every": 12},
        method=METHODS["full"],
    )
    result = pipeline.run(recipe)
    assert result.evaluation.tasks[0]["n"] == 19
    assert result.evaluation.verdicts == ["better"]
    assert result.passed


def test_what_is_not_better_does_not_pass_where_better_is_asked_for(lora_run: SmallRun, tmp_path: Path) -> None:
    copied(lora_run, tmp_path)
    result = pipeline.run(elsewhere(lora_run.recipe, tmp_path, evaluate={"require": "better"}))
    assert result.evaluation.verdicts == ["too few items to tell"]
    assert result.exports.passed
    assert not result.passed
    assert result.as_dict()["passed"] is False
