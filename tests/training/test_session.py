"""Equalities of runs: how rows are laid out, split among micro-batches or interrupted never changes what is learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.data.rows import TokenRow
from finetune.errors import FinetuneError
from finetune.hardware import inspect_machine
from finetune.models import attach
from finetune.recipe.schema import DataSection, FullMethod, LoraMethod, ModelSection, Recipe, RunSection, TrainSection
from finetune.rundir import create_run
from finetune.tracking import JsonLines, read_metrics
from finetune.training import resume_point, train
from finetune.training.checkpoints import all_checkpoints, damage
from tests.tiny import tiny_model, tiny_tokenizer


def rows(count: int = 20, seed: int = 0) -> list[TokenRow]:
    generator = np.random.default_rng(seed)
    made = []
    for index in range(count):
        length = int(generator.integers(6, 40))
        trained = np.zeros(length, dtype=bool)
        trained[length // 2 :] = True
        made.append(TokenRow(f"row-{index}", generator.integers(5, 400, length).astype(np.int32), trained))
    return made


def recipe(method: str = "lora", **settings: object) -> Recipe:
    kind = LoraMethod(rank=4, dropout=0.1) if method == "lora" else FullMethod()
    values = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "eval_every": 2, "keep": "last", **settings}
    return Recipe(
        model=ModelSection(base="tiny", dtype="float32"),
        data=DataSection(train="none"),
        method=kind,
        train=TrainSection(**values),  # type: ignore[arg-type]
        run=RunSection(seed=3),
    )


def run(path: Path, settings: Recipe, *, resume: Path | None = None, validation: int = 4, **model: object):  # type: ignore[no-untyped-def]
    torch.manual_seed(settings.run.seed)
    tokenizer = tiny_tokenizer()
    learner = attach(tiny_model(tokenizer, **model), settings.method)
    folder = create_run(path, recipe_text="", identity={})
    result = train(
        settings,
        model=learner,
        tokenizer=tokenizer,
        rows=rows(),
        validation=rows(validation, seed=9),
        folder=folder,
        machine=inspect_machine(),
        tracker=JsonLines(folder.metrics, resume_step=0),
        resume=resume,
        quiet=True,
    )
    weights = {name: value.clone() for name, value in learner.state_dict().items()}
    return result, weights, read_metrics(folder.metrics)


def losses(metrics: list[dict]) -> list[float]:  # type: ignore[type-arg]
    return [line["loss"] for line in metrics if "loss" in line]


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_batch_of_8_is_4_times_2_is_1_times_8(tmp_path: Path, method: str) -> None:
    settings = {"weight_decay": 0.01}
    whole = run(tmp_path / "whole", no_dropout(recipe(method, micro_batch_tokens=10_000, packing=False, **settings)))
    halves = run(tmp_path / "halves", no_dropout(recipe(method, micro_batch_tokens=80, packing=False, **settings)))
    single = run(tmp_path / "single", no_dropout(recipe(method, micro_batch_tokens=1, packing=False, **settings)))
    assert len(losses(whole[2])) == 6
    for other in (halves, single):
        assert losses(other[2]) == pytest.approx(losses(whole[2]), rel=1e-5)
        assert furthest(whole[1], other[1]) < 2e-5


@pytest.mark.parametrize("method", ["lora", "full"])
def test_packed_is_unpacked(tmp_path: Path, method: str) -> None:
    packed = run(tmp_path / "packed", no_dropout(recipe(method, packing=True, micro_batch_tokens=64)))
    padded = run(tmp_path / "padded", no_dropout(recipe(method, packing=False, micro_batch_tokens=10_000)))
    assert losses(packed[2]) == pytest.approx(losses(padded[2]), rel=1e-5)
    assert furthest(packed[1], padded[1]) < 2e-5


def no_dropout(settings: Recipe) -> Recipe:
    if isinstance(settings.method, LoraMethod):
        return settings.model_copy(update={"method": settings.method.model_copy(update={"dropout": 0.0})})
    return settings


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_is_uninterrupted_to_the_bit(tmp_path: Path, method: str) -> None:
    _, straight, metrics = run(tmp_path / "straight", recipe(method))
    kept = tmp_path / "straight" / "checkpoints"
    assert [path.name for path in all_checkpoints(kept)][-2:] == ["step-4", "step-6"]
    shutil.copytree(kept / "step-4", tmp_path / "resumed" / "checkpoints" / "step-4")
    (tmp_path / "resumed" / "manifest.json").write_text('{"identity": {}, "stages": {}}')
    result, resumed, after = run(
        tmp_path / "resumed", recipe(method), resume=tmp_path / "resumed" / "checkpoints" / "step-4"
    )
    assert result.resumed_from == 4
    assert losses(after) == losses(metrics)[4:]
    assert furthest(straight, resumed) == 0.0


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    _, first, _ = run(tmp_path / "first", recipe())
    _, second, _ = run(tmp_path / "second", recipe())
    other = recipe().model_copy(update={"run": RunSection(seed=4)})
    _, third, _ = run(tmp_path / "third", other)
    assert furthest(first, second) == 0.0
    assert furthest(first, third) > 1e-4


def test_best_checkpoint_is_kept_and_saved(tmp_path: Path) -> None:
    # A rate this high makes the validation loss rise again
    settings = recipe("full", keep="best", learning_rate=0.05, steps=8, schedule="constant", eval_every=1)
    result, weights, metrics = run(tmp_path / "run", settings)
    seen = {line["step"]: line["eval_loss"] for line in metrics if "eval_loss" in line}
    assert len(seen) == 8
    assert seen[result.kept_step] == min(seen.values()) < seen[8]
    assert result.kept_step in {int(path.name.split("-")[1]) for path in all_checkpoints(tmp_path / "run/checkpoints")}
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "run" / "weights" / "model.safetensors")
    assert furthest(saved, {name: weights[name] for name in saved}) == 0.0


def test_early_stop(tmp_path: Path) -> None:
    settings = recipe("full", learning_rate=0.05, steps=40, schedule="constant", eval_every=1, early_stop=2)
    result, _, metrics = run(tmp_path / "run", settings)
    seen = [line["eval_loss"] for line in metrics if "eval_loss" in line]
    assert result.steps < 40
    assert min(seen) == seen[-3]


def test_infinite_loss_stops_the_run_and_names_the_rows(tmp_path: Path) -> None:
    settings = recipe("full", learning_rate=1e30, steps=5, schedule="constant", eval_every=1, warmup=0.0)
    with pytest.raises(FinetuneError) as caught:
        run(tmp_path / "run", settings)
    text = str(caught.value)
    assert "train.learning_rate: the " in text
    assert "the step's rows: row-" in text
    assert "lower the learning rate, or look at these rows" in text
    assert not (tmp_path / "run" / "weights").exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    run(tmp_path / "run", recipe())
    folder = create_run(tmp_path / "run", recipe_text="", identity={})
    newest = folder.checkpoints / "step-6"
    assert damage(newest) is None
    weights = newest / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found, skipped = resume_point(folder)
    assert found == folder.checkpoints / "step-4"
    assert [problem.what for problem in skipped] == ["adapter_model.safetensors is not as it was written"]
    manifest = json.loads((newest / "manifest.json").read_text())
    assert "training_args.bin" not in manifest["files"]
    assert "optimizer.pt" in manifest["files"]


def test_what_learns_is_float32_on_a_bfloat16_base(tmp_path: Path) -> None:
    settings = recipe().model_copy(update={"model": ModelSection(base="tiny", dtype="bfloat16")})
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    learner = attach(tiny_model(tokenizer).to(torch.bfloat16), settings.method)
    folder = create_run(tmp_path / "run", recipe_text="", identity={})
    before = {name: value.clone() for name, value in learner.named_parameters() if value.requires_grad}
    train(
        settings,
        model=learner,
        tokenizer=tokenizer,
        rows=rows(),
        validation=[],
        folder=folder,
        machine=inspect_machine(),
        tracker=JsonLines(folder.metrics),
        quiet=True,
    )
    learned = {name: value for name, value in learner.named_parameters() if value.requires_grad}
    assert len(learned) == 28
    assert {value.dtype for value in learned.values()} == {torch.float32}
    assert all(not torch.equal(before[name], value) for name, value in learned.items())
    assert {value.dtype for value in learner.parameters() if not value.requires_grad} == {torch.bfloat16}
