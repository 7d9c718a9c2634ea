"""Files written from tiny models: what is in them, what is refused, and what is left behind when it fails."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import FinetuneError
from finetune.exporting.gguf import KINDS, GgufFile, convert, quantise
from finetune.exporting.gguf.mixes import PLAIN
from finetune.exporting.merge import save_merged
from tests.exporting.gguf.families import FAMILIES, LLAMA3_ROPE, build_family, save_family

gguf = pytest.importorskip("gguf")
HAS_LLAMA = importlib.util.find_spec("xllamacpp") is not None
needs_llama = pytest.mark.skipif(not HAS_LLAMA, reason="xllamacpp is not installed")
# Root mean square of what a format loses, over the root mean square of normal numbers; rounded up from measured ones
LOSS = {
    "f32": 0.0,
    "f16": 3e-4,
    "bf16": 2.5e-3,
    "q8_0": 8e-3,
    "q6_k": 0.02,
    "q5_k_m": 0.04,
    "q5_k_s": 0.04,
    "q5_1": 0.04,
    "q5_0": 0.045,
    "q4_k_m": 0.08,
    "q4_k_s": 0.08,
    "q4_1": 0.085,
    "q4_0": 0.095,
    "iq4_nl": 0.08,
    "iq4_xs": 0.08,
    "q3_k_m": 0.18,
}
# Stored bits of a number, with its share of the block's scales
BITS = {"F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q4_K": 4.5, "Q5_0": 5.5}


def tensors(path: Path) -> dict[str, Any]:
    return {one.name: one for one in gguf.GGUFReader(path).tensors}


def field(path: Path, name: str) -> Any:
    found = gguf.GGUFReader(path).fields.get(name)
    return None if found is None else found.contents()


def values(tensor: Any) -> np.ndarray:
    return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def refused(folder: Path, target: Path, kind: str = "f16") -> FinetuneError:
    """Convert, expect a refusal, and that nothing is left of the file."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(FinetuneError) as caught:
        convert(folder, target, kind=kind)
    assert sorted(target.parent.iterdir()) == before
    return caught.value


def edit(file: Path, **changed: Any) -> None:
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | changed))


# ------------------------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_loses_no_more_than_its_format_does(tmp_path: Path, kind: str) -> None:
    if kind not in PLAIN and not HAS_LLAMA:
        pytest.skip("xllamacpp is not installed")
    model = save_family("qwen3", tmp_path / "model", hidden_size=256, intermediate_size=512)
    made = convert(tmp_path / "model", tmp_path / "it.gguf", kind=kind)
    found = tensors(made.path)
    weights = model.state_dict()
    for name, ours in (("blk.1.ffn_up.weight", "mlp.up_proj"), ("blk.5.attn_v.weight", "self_attn.v_proj")):
        expected = weights[f"model.layers.{name[4]}.{ours}.weight"].numpy()
        lost = np.sqrt(((values(found[name]) - expected) ** 2).mean()) / expected.std()
        assert lost <= LOSS[kind], name
    norms = [one for one in found.values() if one.name.endswith("norm.weight")]
    assert len(norms) == 4 * 6 + 1
    assert {one.tensor_type.name for one in norms} == {"F32"}
    assert field(made.path, "general.file_type") == KINDS[kind].file_type


@needs_llama
def test_what_is_reported_is_what_the_file_holds(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model", hidden_size=256, intermediate_size=320)
    made = convert(tmp_path / "model", tmp_path / "it.gguf", kind="q4_k_m")
    found = tensors(made.path).values()
    counted: dict[str, int] = {}
    for one in found:
        counted[one.tensor_type.name] = counted.get(one.tensor_type.name, 0) + 1
    assert made.tensors == counted == {"Q4_K": 34, "F32": 13, "Q5_0": 4, "Q6_K": 3, "Q8_0": 2}
    bits = sum(BITS[one.tensor_type.name] * one.n_elements for one in found)
    assert made.bits_per_weight == pytest.approx(bits / sum(one.n_elements for one in found))
    assert made.size == made.path.stat().st_size
    assert made.notes == ("6 of 43 matrices are stored as Q5_0, Q8_0: their rows do not divide into blocks",)


def test_a_tied_head_is_left_out_and_an_untied_one_written(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "tied")
    save_family("smollm2", tmp_path / "untied", tie_word_embeddings=False)
    tied = tensors(convert(tmp_path / "tied", tmp_path / "tied.gguf", kind="f32").path)
    untied = tensors(convert(tmp_path / "untied", tmp_path / "untied.gguf", kind="f32").path)
    assert set(untied) - set(tied) == {"output.weight"}
    weights = load_file_of(tmp_path / "untied")
    assert np.array_equal(values(untied["output.weight"]), weights["lm_head.weight"].numpy())


def load_file_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for shard in folder.glob("*.safetensors") for name, value in load_file(shard).items()}


def test_a_head_that_transformers_ignores_is_ignored(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    weights = load_file_of(tmp_path / "model")
    for shard in (tmp_path / "model").glob("model*"):
        shard.unlink()
    save_file(weights | {"lm_head.weight": torch.zeros(456, 64)}, tmp_path / "model" / "model.safetensors")
    assert "output.weight" not in tensors(convert(tmp_path / "model", tmp_path / "it.gguf", kind="f16").path)


def test_queries_and_keys_are_reordered_for_pairs(tmp_path: Path) -> None:
    model = save_family("smollm2", tmp_path / "model")
    found = tensors(convert(tmp_path / "model", tmp_path / "it.gguf", kind="f32").path)
    for part, ours, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        expected = model.state_dict()[f"model.layers.3.self_attn.{ours}.weight"].numpy()
        written = values(found[f"blk.3.{part}.weight"])
        for head in range(heads):
            for row in range(8):
                assert np.array_equal(written[16 * head + 2 * row], expected[16 * head + row])
                assert np.array_equal(written[16 * head + 2 * row + 1], expected[16 * head + row + 8])


def test_llama3_scaling_becomes_divisors(tmp_path: Path) -> None:
    save_family("llama3", tmp_path / "model")
    found = tensors(convert(tmp_path / "model", tmp_path / "it.gguf", kind="q8_0").path)
    divisors = values(found["rope_freqs.weight"])
    waves = 2 * math.pi * LLAMA3_ROPE["rope_theta"] ** (np.arange(0, 32, 2) / 32)
    assert np.all(divisors[waves < 128 / 4] == 1)
    assert np.all(divisors[waves > 128] == 8)
    assert len(divisors) == 16
    between = divisors[(waves >= 32) & (waves <= 128)]
    assert len(between) == 2
    assert np.all((between > 1) & (between < 8))


def test_settings_are_written(tmp_path: Path) -> None:
    save_family("gemma2", tmp_path / "model")
    path = convert(tmp_path / "model", tmp_path / "it.gguf", kind="f16", name="Gemma for tickets").path
    expected = {
        "general.architecture": "gemma2",
        "general.name": "Gemma for tickets",
        "gemma2.block_count": 6,
        "gemma2.context_length": 512,
        "gemma2.attention.sliding_window": 16,
        "gemma2.attn_logit_softcapping": 50.0,
        "gemma2.final_logit_softcapping": 30.0,
        "gemma2.attention.key_length": 32,
        "gemma2.vocab_size": field(path, "gemma2.vocab_size"),
    }
    assert {name: field(path, name) for name in expected} == expected
    assert expected["gemma2.vocab_size"] == len(field(path, "tokenizer.ggml.tokens"))


def test_a_window_that_llama_cpp_lacks_limits_the_context(tmp_path: Path) -> None:
    save_family("mistral", tmp_path / "model", sliding_window=128)
    made = convert(tmp_path / "model", tmp_path / "it.gguf", kind="f16")
    assert field(made.path, "llama.context_length") == 128
    assert made.notes[0] == "context 128 of 512 tokens: llama.cpp has no sliding window for llama"


def test_a_folder_in_one_file_gives_the_same(tmp_path: Path) -> None:
    save_family("qwen2", tmp_path / "shards")
    model, tokenizer = build_family("qwen2")
    model.save_pretrained(tmp_path / "single")
    tokenizer.save_pretrained(tmp_path / "single")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert len(list((tmp_path / "single").glob("*.safetensors"))) == 1
    first = tensors(convert(tmp_path / "shards", tmp_path / "first.gguf", kind="f16").path)
    second = tensors(convert(tmp_path / "single", tmp_path / "second.gguf", kind="f16").path)
    assert {name: one.data.tobytes() for name, one in first.items()} == {
        name: one.data.tobytes() for name, one in second.items()
    }


@pytest.mark.parametrize("name", ["llama3", "gemma3", "phi4-mini", "mistral"])
def test_a_merged_folder_gives_the_same(tmp_path: Path, name: str) -> None:
    model, tokenizer = build_family(name)
    save_merged(model, tokenizer, tmp_path / "merged", dtype=torch.float32, stop=[tokenizer.eos_token_id])
    save_family(name, tmp_path / "plain")
    first = convert(tmp_path / "merged", tmp_path / "first.gguf", kind="f16", name="it").path
    second = convert(tmp_path / "plain", tmp_path / "second.gguf", kind="f16", name="it").path
    assert {name: one.data.tobytes() for name, one in tensors(first).items()} == {
        name: one.data.tobytes() for name, one in tensors(second).items()
    }
    found, expected = ({key: field(path, key) for key in gguf.GGUFReader(path).fields} for path in (first, second))
    assert found == expected
    assert len(found) > 25


def test_large_matrices_in_parts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_family("gemma3", tmp_path / "model")
    whole = convert(tmp_path / "model", tmp_path / "whole.gguf", kind="q8_0")
    monkeypatch.setattr("finetune.exporting.gguf.writing.CHUNK", 1000)
    parts = convert(tmp_path / "model", tmp_path / "parts.gguf", kind="q8_0", name="whole")
    assert parts.path.read_bytes() == whole.path.read_bytes()


def test_a_model_called_phi_3_only_where_its_tokens_strip_spaces(tmp_path: Path) -> None:
    save_family("phi3", tmp_path / "model")
    path = convert(tmp_path / "model", tmp_path / "it.gguf", kind="f16", name="tickets-Phi-3-mini phi3").path
    assert field(path, "general.name") == "tickets-Phi 3-mini phi 3"
    rules = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    for one in rules["added_tokens"]:
        one["rstrip"] = one["content"] == "<|end|>"
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(rules))
    path = convert(tmp_path / "model", tmp_path / "stripping.gguf", kind="f16", name="tickets").path
    assert field(path, "general.name") == "Phi-3 tickets"


# -------------------------------------------------------------------------------------------------------- refused


def test_an_unknown_architecture_is_named_with_what_is_supported(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    edit(tmp_path / "model" / "config.json", architectures=["GPTNeoXForCausalLM"])
    error = refused(tmp_path / "model", tmp_path / "it.gguf")
    assert str(error) == (
        f"{tmp_path / 'model'}: the architecture 'GPTNeoXForCausalLM' cannot be written as GGUF\n"
        "    -> supported are LlamaForCausalLM, MistralForCausalLM, Ministral3ForCausalLM, SmolLM3ForCausalLM, "
        "Qwen2ForCausalLM, Qwen3ForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM, Phi3ForCausalLM"
    )


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    ("name", "changed", "what"),
    [
        ("smollm2", {"hidden_act": "gelu"}, "llama.cpp computes llama with 'silu', this model uses 'gelu'"),
        (
            "smollm2",
            {"rope_parameters": DYNAMIC},
            "RoPE scaling 'dynamic' cannot be told to llama.cpp for llama (only default, linear, llama3, yarn)",
        ),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "llama.cpp turns whole heads of qwen2, this model a part (partial_rotary_factor)",
        ),
        (
            "smollm3",
            {"no_rope_layers": [1, 0, 1, 0, 1, 0]},
            "llama.cpp leaves RoPE out of every 4th layer, this model of others (no_rope_layers)",
        ),
        (
            "gemma3",
            {"layer_types": ["full_attention"] * 6},
            "llama.cpp sees everything every 6th layer, this model in others (layer_types)",
        ),
        (
            "gemma2",
            {"query_pre_attn_scalar": 64},
            "llama.cpp divides the attention by the root of 32, this model by that of 64 (query_pre_attn_scalar)",
        ),
        ("gemma2", {"tie_word_embeddings": False}, "llama.cpp reads no untied head of gemma2"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    tmp_path: Path, name: str, changed: dict[str, Any], what: str
) -> None:
    save_family(name, tmp_path / "model", **changed)
    error = refused(tmp_path / "model", tmp_path / "it.gguf")
    assert [problem.what for problem in error.problems] == [what]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    assert str(refused(tmp_path, tmp_path / "it.gguf", "q5_k_l")).startswith(
        "there is no GGUF kind 'q5_k_l'\n    -> choose one of f32, f16, "
    )


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    error = refused(tmp_path / "model", tmp_path / "it.gguf")
    assert str(error).startswith(f"{shard}: the weights cannot be read: ")


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    shard.unlink()
    assert f"1 of 7 weight files are missing: {shard.name!r} ..." in str(
        refused(tmp_path / "model", tmp_path / "it.gguf")
    )


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert "the model's configuration cannot be read" in str(refused(tmp_path / "model", tmp_path / "it.gguf"))
    save_family("smollm2", tmp_path / "model")
    for file in (tmp_path / "model").glob("model*"):
        file.unlink()
    assert "there are no weights here (no model.safetensors)" in str(refused(tmp_path / "model", tmp_path / "it.gguf"))


def test_a_missing_layer_and_a_foreign_tensor_are_refused(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    weights = load_file_of(tmp_path / "model")
    for file in (tmp_path / "model").glob("model*"):
        file.unlink()
    single = tmp_path / "model" / "model.safetensors"
    lost = "model.layers.4.mlp.up_proj.weight"
    save_file({name: value for name, value in weights.items() if name != lost}, single)
    assert "1 tensors are missing, such as 'blk.4.ffn_up.weight'" in str(
        refused(tmp_path / "model", tmp_path / "it.gguf")
    )
    save_file(weights | {"model.vision.weight": torch.zeros(2)}, single)
    assert "the tensor 'model.vision.weight' has no place in a GGUF file of llama" in str(
        refused(tmp_path / "model", tmp_path / "it.gguf")
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (1e6, "the tensor 'blk.0.attn_output.weight' has a number larger than 65504, the largest that f16 can hold"),
        (math.nan, "the tensor 'blk.0.attn_output.weight' holds NaN or infinity"),
    ],
)
def test_numbers_that_a_format_cannot_hold_are_refused(tmp_path: Path, value: float, what: str) -> None:
    model, tokenizer = build_family("smollm2")
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight[3, 4] = value
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert what in str(refused(tmp_path / "model", tmp_path / "it.gguf"))


def test_a_quantiser_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantise._quantise_chunk.cache_clear()
    monkeypatch.setattr(quantise.importlib.util, "find_spec", lambda name: None)
    assert str(refused(tmp_path, tmp_path / "it.gguf", "q4_k_m")) == (
        "a K- or I-quantised GGUF file needs the package 'xllamacpp', which is not installed\n"
        "    -> pip install 'finetune[gguf]'"
    )


def test_a_quantiser_without_its_function_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantise._quantise_chunk.cache_clear()
    (tmp_path / "xllamacpp.abi3.so").write_bytes(b"no library")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(quantise.importlib.util, "find_spec", lambda name: spec)
    assert "does not offer llama.cpp's quantiser (ggml_quantize_chunk)" in str(
        refused(tmp_path, tmp_path / "it.gguf", "q4_k_m")
    )


LIMITED = """
import resource, signal, sys
from pathlib import Path
from finetune.exporting.gguf import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    convert(Path(sys.argv[1]), Path(sys.argv[2]), kind="f16")
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
"""


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    save_family("smollm2", tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "it.gguf").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "model"), str(tmp_path / "out" / "it.gguf")],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"FinetuneError {tmp_path / 'out'}: cannot write 'it.gguf': File too large\n", done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["it.gguf"]
    assert (tmp_path / "out" / "it.gguf").read_bytes() == b"old"


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_family("smollm2", tmp_path / "model")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    assert "the f16 file needs 0.00 GB of disk, 0.00 GB are free" in str(
        refused(tmp_path / "model", tmp_path / "it.gguf")
    )


# ------------------------------------------------------------------------------------------------------ llama.cpp


def divergence(made: GgufFile, model: Any, tokenizer: Any) -> tuple[float, float]:
    """Return the mean KL from the model to the file in llama.cpp, and the share of equal likeliest tokens."""
    from finetune.runtimes.llama_cpp import LlamaCppRuntime

    ids = torch.randint(5, len(tokenizer), (1, 200), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.log_softmax(model(ids).logits[0], -1).numpy()
    with LlamaCppRuntime(made.path, tokenizer, name="the file") as runtime:
        found = runtime.log_probabilities(ids[0].tolist())
    kl = (np.exp(expected) * (expected - found)).sum(-1)
    return float(kl.mean()), float((expected.argmax(-1) == found.argmax(-1)).mean())


@needs_llama
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_computes_what_transformers_does(tmp_path: Path, name: str) -> None:
    model = save_family(name, tmp_path / "model")
    kl, top1 = divergence(convert(tmp_path / "model", tmp_path / "it.gguf", kind="f32"), model, FAMILIES[name][2]())
    assert abs(kl) < 1e-6
    assert top1 >= 0.99


@needs_llama
def test_rows_left_in_their_order_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_family("smollm2", tmp_path / "model")
    monkeypatch.setattr("finetune.exporting.gguf.writing.paired", lambda rows, heads: rows)
    kl, _ = divergence(convert(tmp_path / "model", tmp_path / "it.gguf", kind="f32"), model, FAMILIES["smollm2"][2]())
    assert kl > 1e-3
