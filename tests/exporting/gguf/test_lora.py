"""A LoRA as a GGUF adapter: base and adapter together are the merged model; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import FinetuneError
from finetune.exporting.gguf import convert, convert_adapter
from tests.exporting.gguf.families import FAMILIES, save_adapter, save_family

gguf = pytest.importorskip("gguf")


def values(path: Path) -> dict[str, np.ndarray]:
    return {
        one.name: np.asarray(gguf.quants.dequantize(one.data, one.tensor_type)) for one in gguf.GGUFReader(path).tensors
    }


def alpha(path: Path) -> float:
    return float(gguf.GGUFReader(path).fields["adapter.lora.alpha"].contents())


def refused(folder: Path, base: Path | None = None) -> FinetuneError:
    with pytest.raises(FinetuneError) as caught:
        convert_adapter(folder / "adapter", base or folder / "base", folder / "out" / "it.gguf")
    assert not (folder / "out").exists() or list((folder / "out").iterdir()) == []
    return caught.value


PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, PATTERNS], ids=["plain", "rslora", "patterns"])
@pytest.mark.parametrize("name", ["smollm2", "qwen2", "gemma2", "phi3"])
def test_base_and_adapter_are_the_merged_model(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    tuned = save_adapter(name, tmp_path, **settings)
    made = convert_adapter(tmp_path / "adapter", tmp_path / "base", tmp_path / "adapter.gguf")
    base = values(convert(tmp_path / "base", tmp_path / "base.gguf", kind="f32").path)
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "merged" / file).write_bytes((tmp_path / "base" / file).read_bytes())
    merged = values(convert(tmp_path / "merged", tmp_path / "merged.gguf", kind="f32").path)

    found = values(made.path)
    changed = {part.rsplit(".", 1)[0] for part in found}
    assert changed == {part for part in base if not np.array_equal(base[part], merged[part])}
    assert len(changed) >= 24
    for part in changed:
        down, up = found[f"{part}.lora_a"], found[f"{part}.lora_b"]
        # llama.cpp's own arithmetic: alpha over the rank of this pair (llama-adapter.h)
        together = base[part] + alpha(made.path) / down.shape[0] * up @ down
        assert np.abs(together - merged[part]).max() < 1e-5
    assert made.tensors == {"F32": len(found)}


@pytest.mark.slow
def test_llama_cpp_puts_it_on_the_base(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from finetune.runtimes.llama_cpp import LlamaCppRuntime

    tuned = save_adapter("smollm2", tmp_path)
    adapter = convert_adapter(tmp_path / "adapter", tmp_path / "base", tmp_path / "adapter.gguf")
    base = convert(tmp_path / "base", tmp_path / "base.gguf", kind="f32")
    ids = torch.randint(5, 400, (1, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.log_softmax(tuned(input_ids=ids).logits[0], -1).numpy()
    tokenizer = FAMILIES["smollm2"][2]()
    kl = {}
    for way in (None, adapter.path):
        with LlamaCppRuntime(base.path, tokenizer, name="it", adapter=way) as runtime:
            found = runtime.log_probabilities(ids[0].tolist())
        kl[way] = float((np.exp(expected) * (expected - found)).sum(-1).mean())
    assert abs(kl[adapter.path]) < 1e-5
    assert kl[None] > 1e-2


# -------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"use_dora": True}, "a GGUF adapter cannot hold DoRA"),
        (
            {"modules_to_save": ["embed_tokens"]},
            "a GGUF adapter cannot hold whole modules (modules_to_save ['embed_tokens'])",
        ),
        (
            {"trainable_token_indices": [1, 2]},
            "a GGUF adapter cannot hold trained rows of the embedding (trainable_token_indices)",
        ),
        ({"bias": "lora_only"}, "a GGUF adapter cannot hold biases (bias 'lora_only')"),
    ],
)
def test_more_than_a_plain_lora_is_refused(tmp_path: Path, settings: dict[str, Any], what: str) -> None:
    save_adapter("qwen2", tmp_path, **settings)
    error = refused(tmp_path)
    assert [problem.what for problem in error.problems] == [what]
    assert error.problems[0].fix == "export the merged model as GGUF instead"


def test_all_reasons_are_said_at_once(tmp_path: Path) -> None:
    save_adapter("qwen2", tmp_path)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_dora": True, "lora_bias": True}))
    assert [problem.what for problem in refused(tmp_path).problems] == [
        "a GGUF adapter cannot hold DoRA",
        "a GGUF adapter cannot hold biases (lora_bias)",
    ]


def test_an_embedding_that_was_trained_is_refused(tmp_path: Path) -> None:
    save_adapter("smollm2", tmp_path, target_modules=["embed_tokens"])
    assert "a GGUF adapter cannot hold 'base_model.model.model.embed_tokens." in str(refused(tmp_path))


def test_the_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    save_adapter("smollm2", tmp_path)
    save_family("smollm2", tmp_path / "wider", intermediate_size=192)
    assert str(refused(tmp_path, tmp_path / "wider")) == (
        f"{tmp_path / 'adapter'}: the adapter changes 'model.layers.0.mlp.down_proj' of shape (64, 160), "
        "the base has one of (64, 192)\n    -> is 'wider' the base that it was trained on?"
    )
    save_family("phi3", tmp_path / "fused")
    assert "the adapter changes 'model.layers.0.mlp.gate_proj' of shape (160, 64), the base has none" in str(
        refused(tmp_path, tmp_path / "fused")
    )


def test_half_a_pair_and_no_adapter_are_refused(tmp_path: Path) -> None:
    save_adapter("smollm2", tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    lost = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    save_file({name: value for name, value in weights.items() if name != lost}, file)
    assert "the adapter has only one of the two matrices of 'model.layers.0.mlp.up_proj'" in str(refused(tmp_path))
    file.write_bytes(file.read_bytes()[:1000])
    assert "the weights cannot be read" in str(refused(tmp_path))
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    assert "there is no adapter here that could be read" in str(refused(tmp_path))
