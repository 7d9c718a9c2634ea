"""GGUF files of a run: proven in llama.cpp, and every planted damage is refused with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from finetune.errors import FinetuneError
from finetune.exporting import Trained, Verification
from finetune.exporting.gguf import KINDS, convert
from finetune.exporting.llama_file import Asked, prove_file
from finetune.recipe.exports import Quantization
from tests.tiny import tiny_model, tiny_tokenizer

pytest.importorskip("xllamacpp")


def proof_of(path: Path, trained: Trained, **bounds: Any) -> Verification:
    return prove_file(path, trained, Asked(**bounds))


def test_the_recipe_offers_what_can_be_written() -> None:
    assert set(get_args(Quantization)) == set(KINDS)


def test_a_file_is_the_trained_model(whole: Path, trained: Trained) -> None:
    proof = proof_of(whole, trained)
    assert proof.passed, proof
    assert 0 < proof.kl < 1e-5
    assert (proof.max_kl, proof.min_top1, proof.runtime, proof.rows) == (1e-4, 0.995, "llama.cpp", 6)
    assert proof.top1_agreement >= 0.995
    assert (proof.prompt_parity, proof.conversations, proof.problems) == (1.0, 5, ())
    assert proof.greedy_match >= 0.5
    assert proof.size == whole.stat().st_size
    assert 15.9 < proof.bits_per_weight < 17
    assert proof.load_seconds > 0
    assert proof.tokens_per_second > 0
    assert proof.peak_memory > proof.size
    assert json.loads(json.dumps(proof.as_dict()))["prompt_parity"] == 1.0


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q4_k_m"])
def test_every_format_keeps_its_bounds(kind: str, source: Path, trained: Trained, tmp_path: Path) -> None:
    # Coarse steps cost a model of random weights more than one that has learned something
    bounds = {"min_top1": 0.5, "max_kl": 0.5 if kind == "q4_k_m" else None}
    proof = proof_of(convert(source, tmp_path / "x.gguf", kind=kind).path, trained, **bounds)
    assert proof.passed, proof
    assert proof.prompt_parity == 1.0
    assert 0 < proof.kl < proof.max_kl


# --------------------------------------------------------------------------------------------------------- sabotage


def in_place(path: Path, change: Callable[[GGUFReader], None]) -> None:
    reader = GGUFReader(path, "r+")
    change(reader)
    reader.data.flush()


def tensor(reader: GGUFReader, name: str) -> np.ndarray:
    (found,) = [one for one in reader.tensors if one.name == name]
    return found.data


def zeroed(reader: GGUFReader) -> None:
    tensor(reader, "blk.1.ffn_down.weight")[:] = 0


def unpermuted(reader: GGUFReader) -> None:
    """Put the rows of q and k back in transformers' order."""
    for name, heads in (("blk.0.attn_q.weight", 4), ("blk.0.attn_k.weight", 2)):
        rows = tensor(reader, name)
        half = rows.shape[0] // heads // 2
        rows[:] = rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def doubled_bos(reader: GGUFReader) -> None:
    field = reader.fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = True


def head_swapped(folder: Path) -> None:
    """A head of its own, which is not the embedding that it was tied to."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(1).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


def template_changed(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    text = template.read_text().replace("<|im_end|>\n'", "<|im_end|>'")
    assert text != template.read_text()
    template.write_text(text)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if "chat_template" in config:
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": text}))


def template_removed(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


IN_PLACE: dict[str, tuple[Callable[[GGUFReader], None], str]] = {
    "a tensor zeroed": (zeroed, ""),
    "q and k left unpermuted": (unpermuted, ""),
    "a doubled BOS": (
        doubled_bos,
        "the prompt begins with '<|endoftext|>', which training did not put there or put there once "
        "(5 of 5 conversations, first q",
    ),
}
BEFORE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a swapped tied head": (head_swapped, ""),
    "a wrong template": (
        template_changed,
        "the file's template writes another prompt (5 of 5 conversations, first q",
    ),
    "no template": (template_removed, "the file holds no chat template, so programs would guess one"),
}


@pytest.mark.parametrize("damage", IN_PLACE)
def test_a_damaged_file_is_refused_with_the_reason(damage: str, whole: Path, trained: Trained, tmp_path: Path) -> None:
    change, why = IN_PLACE[damage]
    path = Path(shutil.copy(whole, tmp_path / "damaged.gguf"))
    in_place(path, change)
    refused(proof_of(path, trained), why)


@pytest.mark.parametrize("damage", BEFORE)
def test_a_file_of_another_folder_is_refused_with_the_reason(
    damage: str, source: Path, trained: Trained, tmp_path: Path
) -> None:
    change, why = BEFORE[damage]
    folder = Path(shutil.copytree(source, tmp_path / "merged"))
    change(folder)
    refused(proof_of(convert(folder, tmp_path / "damaged.gguf", kind="f16").path, trained), why)


def refused(proof: Verification, why: str) -> None:
    """Wrong weights are told by the numbers, wrong prompts by their own sentence and by nothing else."""
    assert not proof.passed
    if why:
        (problem,) = proof.problems
        assert problem.startswith(why)
        assert problem in proof.sentence()
        assert proof.kl < proof.max_kl
        assert proof.prompt_parity == 0.0
    else:
        assert proof.problems == ()
        assert proof.kl > 10 * proof.max_kl
        assert proof.sentence().startswith("does NOT behave like the trained model: KL ")


def test_a_missing_stop_token_is_refused(whole: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    end = trained.tokenizer.convert_tokens_to_ids("user")
    assert isinstance(end, int)
    # Answers that were trained to end in a token which the file knows as an ordinary word
    monkeypatch.setattr(Trained, "ends", property(lambda self: (end,)))
    proof = proof_of(whole, trained)
    assert not proof.passed
    assert proof.problems == (
        f"answers were trained to end in 'user' (token {end}), which is no stop token of the file",
    )


def test_what_answers_really_end_in_is_looked_at(trained: Trained) -> None:
    assert trained.tokenizer.convert_ids_to_tokens(list(trained.ends)) == ["<|im_end|>"]


def test_another_models_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(specials=("<s>", "<pad>", "</s>"))
    small = tiny_model(tokenizer, vocab_size=len(tokenizer))
    small.resize_token_embeddings(300)
    small.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(FinetuneError):
        proof_of(convert(tmp_path / "model", tmp_path / "other.gguf", kind="f16").path, trained)


def test_weights_that_are_no_numbers_are_refused(whole: Path, trained: Trained, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "nan.gguf"))
    in_place(path, lambda reader: tensor(reader, "output_norm.weight").fill(np.nan))
    with pytest.raises(FinetuneError):
        proof_of(path, trained)


def test_the_bounds_are_those_asked_for(whole: Path, trained: Trained) -> None:
    proof = proof_of(whole, trained, max_kl=1e-12)
    assert not proof.passed
    assert (proof.max_kl, proof.min_top1) == (1e-12, 0.995)
    assert proof.problems == ()
    assert torch.isfinite(torch.tensor(proof.kl))
