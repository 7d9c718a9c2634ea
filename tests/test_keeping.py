"""A run's forgetting from its folder, and the bound on it in a whole run: told, kept, part of the run's identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune import pipeline
from finetune.errors import FinetuneError
from finetune.keeping import forgetting_of, require_general
from finetune.session import Run
from finetune.tracking import read_metrics
from tests.small_runs import SmallRun, copied, small_recipe, texts, write_lines

SHORT = [{"text": f"Text number {number} is about the order and the river."} for number in range(12)]


def test_a_finished_run_is_measured_again_to_the_same(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    found, again = forgetting_of(work).as_json(), forgetting_of(work).as_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == again
    assert (found["text_bits"]["n"], found["choices"]["n"]) == (40, 60)
    assert found["text_bits"]["tuned"] != found["text_bits"]["base"]
    assert found["kl"]["mean"] > 0


def test_a_model_of_raw_text_is_measured_too(tiny_base: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "texts.jsonl", texts())
    recipe = small_recipe(
        tiny_base,
        corpus,
        tmp_path / "runs",
        objective={"kind": "pretrain"},
        train={"steps": 1},
        data={"format": "text"},
    )
    work = pipeline.train(recipe)
    found = forgetting_of(work)
    assert found.texts.n == 40
    assert found.kl.positions >= 24


def test_a_bound_is_measured_told_and_written(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = small_recipe(
        tiny_base,
        corpus,
        tmp_path / "runs",
        train={"max_forgetting": 1e-9},
        evaluate={"forgetting": {"texts": str(write_lines(tmp_path / "general.jsonl", SHORT))}},
    )
    work = pipeline.train(recipe, tell=said.append)
    done = work.folder.finished("train")
    assert done is not None
    looks = {line["step"]: line["eval_forgetting"] for line in read_metrics(work.folder.metrics) if "eval_loss" in line}
    assert len(looks) == 2
    assert done["forgetting"] == looks[done["kept_step"]]
    assert done["forgets"] is (min(looks.values()) > 1e-9)
    assert f"general texts {done['forgetting']:+.3f} bits per byte; step {done['kept_step']} kept" in said[-1]
    assert ("no checkpoint stayed within train.max_forgetting" in said[-1]) is done["forgets"]
    assert forgetting_of(work).texts.difference == pytest.approx(done["forgetting"], abs=1e-6)


def test_other_texts_are_another_run_only_where_they_decide_it(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    general = write_lines(tmp_path / "general.jsonl", SHORT)
    evaluate = {"forgetting": {"texts": str(general)}}
    free = small_recipe(tiny_base, corpus, tmp_path / "runs", evaluate=evaluate)
    bound = small_recipe(tiny_base, corpus, tmp_path / "runs", evaluate=evaluate, train={"max_forgetting": 0.1})
    before = Run(free).identity(), Run(bound).identity()
    write_lines(general, SHORT[:11])
    assert Run(free).identity() == before[0]
    changed = Run(bound).identity()
    assert [key for key in changed if changed[key] != before[1][key]] == ["evaluate.forgetting.texts"]


def test_items_at_fault_are_told_before_training(tiny_base: Path, corpus: Path, tmp_path: Path) -> None:
    wrong = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "one"}, {"question": "two"}])
    evaluate = {"forgetting": {"prompts": str(wrong)}}
    with pytest.raises(FinetuneError, match=r"prompts\.jsonl:2: 'prompt' is missing"):
        require_general(Run(small_recipe(tiny_base, corpus, tmp_path / "runs", evaluate=evaluate)))
