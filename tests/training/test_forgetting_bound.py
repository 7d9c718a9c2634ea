"""The best checkpoint among those that forget little: chosen, saved, resumed; measuring changes nothing learned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.forgetting import text_rise
from finetune.hardware import inspect_machine
from finetune.models import attach
from finetune.recipe.forgetting import ForgettingSection
from finetune.recipe.schema import Recipe
from finetune.rundir import create_run
from finetune.runtimes import TransformersRuntime
from finetune.tracking import JsonLines, read_metrics
from finetune.training import Training, train
from finetune.training.callbacks import looks_since_best, stops_early
from finetune.training.checkpoints import all_checkpoints, best_step, standing, step_of
from tests.small_runs import write_lines
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.test_session import furthest, recipe, rows

HISTORY = [
    {"step": 1, "eval_loss": 3.0, "eval_forgetting": 0.01},
    {"step": 2, "loss": 1.0},
    {"step": 2, "eval_loss": 2.0, "eval_forgetting": 0.04},
    {"step": 3, "eval_loss": 1.0, "eval_forgetting": 0.30},
    {"step": 4, "eval_loss": 2.5, "eval_forgetting": 0.05},
]
ALL = {1, 2, 3, 4}


@pytest.mark.parametrize(("bound", "best"), [(None, 3), (1.0, 3), (0.3, 3), (0.2, 2), (0.05, 2), (0.02, 1), (0.001, 1)])
def test_the_best_step_is_the_lowest_loss_within_the_bound(bound: float | None, best: int) -> None:
    assert best_step(HISTORY, ALL, bound) == best


def test_where_all_forget_too_much_the_least_is_best() -> None:
    assert best_step(HISTORY, {3, 4}, 0.001) == 4
    assert best_step(HISTORY, {2}, 0.001) == 2
    assert best_step(HISTORY, set(), 0.001) is None


def test_looks_without_a_new_best_count_the_bound() -> None:
    assert looks_since_best(HISTORY) == 1
    assert looks_since_best(HISTORY, 0.2) == 2
    assert looks_since_best(HISTORY, 0.02) == 3
    assert stops_early(HISTORY, 2, 0.2)
    assert not stops_early(HISTORY, 2)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(-1, 1)), min_size=1), st.floats(0.01, 1))
def test_nothing_beyond_the_bound_stands_before_anything_within(looks: list[tuple[float, float]], bound: float) -> None:
    history = [{"step": step, "eval_loss": loss, "eval_forgetting": rise} for step, (loss, rise) in enumerate(looks, 1)]
    best = best_step(history, set(range(1, len(looks) + 1)), bound)
    assert best is not None
    loss, rise = looks[best - 1]
    within = [one for one, other in looks if other <= bound]
    assert loss == min(within) if within else rise == min(other for _, other in looks)
    assert standing(history[best - 1], bound)[0] is (not within)


# --------------------------------------------------------------------------------------------------------- for real


def run(
    path: Path, settings: Recipe, *, watched: bool = True, resume: Path | None = None
) -> tuple[Training, dict[str, torch.Tensor], list[dict[str, float]], Callable[[], float]]:
    torch.manual_seed(settings.run.seed)
    tokenizer = tiny_tokenizer()
    learner = attach(tiny_model(tokenizer), settings.method)
    sentences = ["Thank you for your help.", "The customer asks where the order is.", "I cannot log in. Please answer."]
    texts = write_lines(path.parent / "texts.jsonl", [{"text": sentence} for sentence in sentences])
    runtime = TransformersRuntime(learner, tokenizer, name="tuned")
    rise = text_rise(ForgettingSection(texts=str(texts)), runtime, tokenizer, context_length=512)
    folder = create_run(path, recipe_text="", identity={})
    done = train(
        settings,
        model=learner,
        tokenizer=tokenizer,
        rows=rows(),
        validation=rows(4, seed=9),
        folder=folder,
        machine=inspect_machine(),
        tracker=JsonLines(folder.metrics, resume_step=0),
        resume=resume,
        quiet=True,
        forgetting=rise if watched else None,
    )
    weights = {name: value.clone() for name, value in learner.state_dict().items()}
    return done, weights, read_metrics(folder.metrics), rise


def looks(metrics: list[dict[str, float]]) -> dict[int, tuple[float, float]]:
    return {int(line["step"]): (line["eval_loss"], line["eval_forgetting"]) for line in metrics if "eval_loss" in line}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("packing", [True, False])
def test_a_bound_keeps_a_checkpoint_that_forgets_less(tmp_path: Path, method: str, packing: bool) -> None:
    rate = 0.01 if method == "lora" else 0.002
    settings = {"keep": "best", "steps": 8, "eval_every": 1, "learning_rate": rate, "schedule": "constant"}
    settings["packing"] = packing
    _, _, metrics, _ = run(tmp_path / "free", recipe(method, max_forgetting=100.0, **settings))
    seen = looks(metrics)
    assert len(seen) == 8
    free = min(seen, key=lambda step: seen[step])
    # A bound that the unbounded choice does not meet, and that some step does
    bound = max(rise for _, rise in seen.values() if rise < seen[free][1])
    assert bound > 0
    done, _, again, rise = run(tmp_path / "bound", recipe(method, max_forgetting=bound, **settings))
    assert looks(again) == seen
    allowed = {step: loss for step, (loss, risen) in seen.items() if risen <= bound}
    assert done.kept_step == min(allowed, key=lambda step: allowed[step]) != free
    assert (done.forgetting, done.forgets) == (seen[done.kept_step][1], False)
    assert rise() == pytest.approx(seen[done.kept_step][1], abs=1e-6)
    assert done.kept_step in {step_of(path) for path in all_checkpoints(tmp_path / "bound" / "checkpoints")}


def test_where_no_checkpoint_stays_below_it_is_said(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "keep": "best",
        "steps": 4,
        "eval_every": 1,
        "learning_rate": 0.01,
        "schedule": "constant",
    }
    done, _, metrics, _ = run(tmp_path / "run", recipe(max_forgetting=1e-9, warmup=0.0, **settings))
    seen = looks(metrics)
    assert all(rise > 1e-9 for _, rise in seen.values())
    assert done.kept_step == min(seen, key=lambda step: seen[step][1])
    assert done.forgets


def test_measuring_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    _, watched, metrics, _ = run(tmp_path / "watched", recipe(keep="best", max_forgetting=100.0))
    _, plain, without, _ = run(tmp_path / "plain", recipe(keep="best"), watched=False)
    assert furthest(watched, plain) == 0.0
    assert [line["loss"] for line in metrics if "loss" in line] == [line["loss"] for line in without if "loss" in line]
    assert not any("eval_forgetting" in line for line in without)


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    settings = recipe(keep="best", max_forgetting=100.0)
    _, straight, metrics, _ = run(tmp_path / "straight", settings)
    kept = tmp_path / "straight" / "checkpoints"
    shutil.copytree(kept, tmp_path / "resumed" / "checkpoints", ignore=shutil.ignore_patterns("step-6"))
    (tmp_path / "resumed" / "manifest.json").write_text('{"identity": {}, "stages": {}}')
    place = tmp_path / "resumed" / "checkpoints" / "step-4"
    _, resumed, after, _ = run(tmp_path / "resumed", settings, resume=place)
    assert furthest(straight, resumed) == 0.0
    assert looks(after)[6] == looks(metrics)[6]


def test_without_a_bound_nothing_is_asked(tmp_path: Path) -> None:
    done, _, metrics, _ = run(tmp_path / "run", recipe(keep="best"))
    assert (done.forgetting, done.forgets) == (None, False)
    assert not any("eval_forgetting" in line for line in metrics)
