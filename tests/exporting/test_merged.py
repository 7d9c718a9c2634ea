"""What is shipped is what was trained: merged folders of every method, and files that are not, which are caught."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune import pipeline
from finetune.errors import FinetuneError
from finetune.exporting.bounds import FOLDERS
from finetune.exporting.merge import round_stochastically
from finetune.exporting.verify import Verification, observe, verify
from finetune.models import folder_base, load_model
from finetune.results import proof_rows
from finetune.runtimes import TransformersRuntime
from finetune.session import Run
from tests.small_runs import SmallRun, copied, elsewhere, small_recipe
from tests.tiny import tiny_model, tiny_tokenizer


def proven(work: Run, folder: Path) -> Verification:
    """Compare a folder with the run's trained model as an export is."""
    trained = observe(work.tuned(), proof_rows(work.data), stop=work.data.stop)
    model = load_model(folder_base(folder), dtype=torch.float32, device="cpu").eval()
    shipped = TransformersRuntime(model, work.tokenizer, name="shipped")
    usual = FOLDERS["float32"]
    return verify(trained, shipped, path=str(folder), stop=work.data.stop, max_kl=usual.max_kl, min_top1=usual.min_top1)


@pytest.mark.parametrize(
    "method",
    [
        {"rank": 4, "modules_to_save": ("embed_tokens",)},
        {"rank": 4, "modules_to_save": ("lm_head",)},
        {"rank": 4, "modules_to_save": ("embed_tokens", "lm_head")},
        {"rank": 4, "use_dora": True},
        {"rank": 16, "use_rslora": True},
        {"rank": 4, "targets": ("q_proj", "down_proj"), "alpha": 3.0},
        {"kind": "qlora", "rank": 4, "modules_to_save": ("lm_head",)},
    ],
    ids=lambda method: "-".join(str(value) for value in method.values()),
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_merged_is_the_trained_model(corpus: Path, tmp_path: Path, method: dict[str, Any], tied: bool) -> None:
    tokenizer = tiny_tokenizer()
    base = tmp_path / "base"
    tiny_model(tokenizer, tie_word_embeddings=tied).save_pretrained(base)
    tokenizer.save_pretrained(base)
    recipe = small_recipe(base, corpus, tmp_path / "runs", method=method, train={"steps": 6})
    work = pipeline.train(recipe)
    (proof,) = pipeline.export(work).proofs.values()
    assert proof["passed"], proof
    assert proof["kl"] < 1e-6
    assert (proof["top1_agreement"], proof["greedy_match"]) == (1.0, 1.0)
    assert not proven(work, base).passed
    assert proven(work, Path(proof["path"])).passed


def plain_answer(folder: Path, text: str) -> str:
    """The answer of somebody who has the folder and transformers only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def test_the_merged_folder_answers_alike_in_plain_transformers(lora_run: SmallRun) -> None:
    work = Run.open(lora_run.folder)
    merged = lora_run.folder / "exports" / "merged"
    answers = []
    for item in work.data.test:
        text = item.example.context[-1].content
        answers.append(work.answer(text, max_new_tokens=24))
        assert plain_answer(merged, text) == answers[-1]
    assert len(answers) == 5
    assert any(answers)
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == list(work.data.stop)


def zeroed(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.zeros_like(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def head_swapped(folder: Path) -> None:
    """A head of its own, which is not the embedding that it was tied to."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(1).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


SABOTAGE: dict[str, Callable[[Path], None]] = {
    "a projection zeroed": lambda folder: zeroed(folder, "model.layers.1.mlp.down_proj.weight"),
    "a norm zeroed": lambda folder: zeroed(folder, "model.layers.0.input_layernorm.weight"),
    "the tied head swapped": head_swapped,
}


@pytest.mark.parametrize("damage", SABOTAGE)
def test_a_damaged_file_is_caught(lora_run: SmallRun, tmp_path: Path, damage: str) -> None:
    merged = shutil.copytree(lora_run.folder / "exports" / "merged", tmp_path / "merged")
    work = Run.open(lora_run.folder)
    assert proven(work, merged).passed
    SABOTAGE[damage](merged)
    proof = proven(work, merged)
    assert not proof.passed
    assert proof.kl > proof.max_kl
    assert proof.sentence().startswith("does NOT behave like the trained model: KL ")


def test_another_runs_file_is_caught(lora_run: SmallRun, tmp_path: Path) -> None:
    other = pipeline.train(elsewhere(lora_run.recipe, tmp_path, run={"seed": 7}))
    pipeline.export(other)
    merged = other.folder.exports / "merged"
    assert not proven(Run.open(lora_run.folder), merged).passed
    assert proven(other, merged).passed


def test_bounds_that_a_file_misses_end_the_run_unpassed(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    section = work.recipe.export[0].model_copy(update={"dtype": "bfloat16", "max_kl": 1e-12})
    work.recipe = work.recipe.model_copy(update={"export": (section,)})
    exports = pipeline.export(work)
    assert set(exports.proofs) == {"merged", "merged-bfloat16"}
    assert exports.proofs["merged-bfloat16"]["passed"] is False
    assert not exports.passed
    assert not replace(lora_run.result, exports=exports, passed=exports.passed).as_dict()["passed"]


def test_bfloat16_that_misses_its_bounds_is_rounded_by_chance_as_well(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    section = work.recipe.export[0].model_copy(update={"dtype": "bfloat16", "max_kl": 1e-12})
    work.recipe = work.recipe.model_copy(update={"export": (section,)})
    proof = pipeline.export(work).proofs["merged-bfloat16"]
    tries = re.search(
        r" \(tried: merged into the original base, KL (\S+); "
        r"merged into the original base, rounded up or down by chance, KL (\S+)\)$",
        proof["note"],
    )
    assert tries, proof["note"]
    nearest, by_chance = float(tries[1]), float(tries[2])
    assert nearest != by_chance
    assert proof["kl"] == pytest.approx(min(nearest, by_chance), rel=0.1)
    assert proof["note"].startswith("merged into the original base, rounded") == (by_chance < nearest)
    assert {path.name for path in work.folder.exports.iterdir()} == {"merged", "merged-bfloat16", "verification.json"}


def test_rounding_by_chance_keeps_the_mean() -> None:
    generator = torch.Generator().manual_seed(3)
    exact = torch.randn(200_000, generator=generator).bfloat16().float()
    assert torch.equal(round_stochastically(exact, generator), exact)
    shifted = exact * (1 + 2**-10)
    rounded = round_stochastically(shifted, generator)
    assert torch.equal(rounded.bfloat16().float(), rounded)
    step = (exact.abs().bfloat16().view(torch.int16) + 1).view(torch.bfloat16).float() - exact.abs()
    moved = (rounded - exact) / (step * exact.sign())
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    expected = (shifted - exact) / (step * exact.sign())
    assert moved.mean().item() == pytest.approx(expected.mean().item(), rel=0.02)
    assert (shifted.bfloat16().float() == exact).all()


def test_an_adapter_with_nan_is_refused(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    path = work.folder.path / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "lora_B" in name)
    weights[name][0, 0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    shutil.rmtree(work.folder.exports)
    with pytest.raises(FinetuneError, match="NaN"):
        pipeline.export(work)
    assert not (work.folder.exports / "merged").exists()


def test_exports_are_named_by_kind_and_format(lora_run: SmallRun, tmp_path: Path) -> None:
    work = copied(lora_run, tmp_path)
    exports = pipeline.export(work, "merged:float16")
    assert exports.passed
    assert set(exports.proofs) == {"merged", "merged-float16"}
    weights = load_file(work.folder.exports / "merged-float16" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    with pytest.raises(FinetuneError) as caught:
        pipeline.export(work, "merged:floaty16")
    assert str(caught.value) == "--to: cannot export to 'merged:floaty16'\n    -> merged or merged:float16"
