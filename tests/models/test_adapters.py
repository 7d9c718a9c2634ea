"""What learns, in which precision, and what is refused because it could not learn or be merged as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from finetune.errors import FinetuneError
from finetune.models import Trainable, attach, attach_trained, check_method, count_trainable, load_model, quantization
from finetune.models.base import Base, resolve_base
from finetune.recipe.schema import FullMethod, LoraMethod, Method, ModelSection, QloraMethod
from tests.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(4, 44)[None]
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def model(**config: Any):  # type: ignore[no-untyped-def]
    return tiny_model(tiny_tokenizer(), **config)


def base_folder(path: Path, **config: Any) -> Base:
    model(**config).save_pretrained(path)
    return resolve_base(ModelSection(base=str(path)))


def learning(tuned: Any) -> set[str]:
    return {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}


def shaken(tuned: Any) -> Any:
    """Give what learns other values, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return tuned.eval()


def messages(method: Method, folder: Path, **config: Any) -> str:
    """The message of `attach`, after making sure that `check_method` says the same without weights."""
    base = base_folder(folder / "base", **config)
    (folder / "base" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FinetuneError) as early:
        check_method(base, method)
    with pytest.raises(FinetuneError) as caught:
        attach(model(**config), method)
    assert str(caught.value) == str(early.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what learns


def test_lora_on_every_linear_layer_but_the_head() -> None:
    tuned = attach(model(), LoraMethod(rank=4))
    assert len(learning(tuned)) == 2 * 2 * len(LAYERS)
    assert {name.split(".")[-4] for name in learning(tuned)} == set(LAYERS)
    assert all(".lora_A.default.weight" in name or ".lora_B.default.weight" in name for name in learning(tuned))
    # q and o: 64 x 64; k and v: 64 x 32; gate, up, down: 64 x 128; two layers of rank 4
    assert count_trainable(tuned).learning == 2 * 4 * (2 * 128 + 2 * 96 + 3 * 192)


def test_lora_on_named_layers() -> None:
    tuned = attach(model(), LoraMethod(rank=4, targets=("q_proj", "layers.1.mlp.up_proj")))
    assert {name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in learning(tuned)} == {
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "layers.1.mlp.up_proj",
    }


def test_lora_begins_as_the_base() -> None:
    assert torch.equal(attach(model(), LoraMethod(rank=4)).eval()(IDS).logits, model()(IDS).logits)


@pytest.mark.parametrize(("rslora", "expected"), [(False, 8 / 4), (True, 8 / 2)])
def test_the_update_is_scaled_as_the_recipe_says(rslora: bool, expected: float) -> None:
    tuned = attach(model(), LoraMethod(rank=4, alpha=8, use_rslora=rslora, dropout=0.25))
    layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == expected
    assert layer.lora_dropout["default"].p == 0.25


def test_dora_learns_magnitudes_too() -> None:
    tuned = attach(model(), LoraMethod(rank=4, use_dora=True))
    assert sum("lora_magnitude_vector" in name for name in learning(tuned)) == 2 * len(LAYERS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "method", [LoraMethod(rank=4), LoraMethod(rank=4, modules_to_save=("lm_head",), use_dora=True), FullMethod()]
)
def test_what_learns_is_float32_on_any_base(method: Method, dtype: torch.dtype) -> None:
    tuned = attach(model(tie_word_embeddings=False).to(dtype), method)
    dtypes = {name: parameter.dtype for name, parameter in tuned.named_parameters()}
    assert {dtypes[name] for name in learning(tuned)} == {torch.float32}
    assert {dtypes[name] for name in dtypes.keys() - learning(tuned)} <= {dtype}


def test_full_learns_everything_and_is_the_model_itself() -> None:
    whole = model().requires_grad_(False)
    assert attach(whole, FullMethod()) is whole
    assert learning(whole) == {name for name, _ in whole.named_parameters()}
    assert str(count_trainable(whole)) == "101,696 of 101,696 parameters learn (100.00%)"


def test_trainable_reads_well() -> None:
    assert str(Trainable(4884480, 139399680)) == "4,884,480 of 139,399,680 parameters learn (3.50%)"


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_qlora_learns_as_lora_and_counts_the_numbers_that_weights_stand_for(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("bitsandbytes")
    method = QloraMethod(rank=4, quantization=kind)
    base = base_folder(tmp_path / "base")
    tuned = attach(load_model(base, dtype=torch.float32, device="cpu", quantization=quantization(method)), method)
    plain = attach(model(), LoraMethod(rank=4))
    assert learning(tuned) == learning(plain)
    assert count_trainable(tuned) == count_trainable(plain)
    assert {parameter.dtype for parameter in tuned.parameters() if parameter.requires_grad} == {torch.float32}


def test_only_what_learns_gets_a_gradient() -> None:
    tuned = attach(model(), LoraMethod(rank=4, modules_to_save=("model.norm",)))
    tuned(IDS, labels=IDS).loss.backward()
    assert {name for name, parameter in tuned.named_parameters() if parameter.grad is not None} == learning(tuned)
    assert sum("modules_to_save" in name for name in learning(tuned)) == 1


# --------------------------------------------------------------------------------------------- what is refused


def test_every_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    method = LoraMethod(targets=("q_prj", "up_proj", "zebra"), modules_to_save=("LM_HEAD",))
    has = (
        "act_fn, down_proj, embed_tokens, gate_proj, input_layernorm, k_proj, layers, lm_head, mlp, model, norm, "
        "o_proj, post_attention_layernorm, q_proj, rotary_emb, self_attn, up_proj, v_proj"
    )
    assert messages(method, tmp_path) == (
        "3 problems:\n"
        "  1. method (targets): no module of this model is named 'q_prj'\n    -> did you mean 'q_proj'?\n"
        f"  2. method (targets): no module of this model is named 'zebra'\n    -> it has {has}\n"
        "  3. method (modules_to_save): no module of this model is named 'LM_HEAD'\n    -> did you mean 'lm_head'?"
    )


def test_the_place_in_the_recipe_is_told() -> None:
    with pytest.raises(FinetuneError, match=r"^recipe.yaml:7 \(targets\): "):
        attach(model(), LoraMethod(targets=("zebra",)), where="recipe.yaml:7")


@pytest.mark.parametrize(
    ("name", "kind"), [("mlp", "LlamaMLP"), ("norm", "LlamaRMSNorm"), ("self_attn", "LlamaAttention")]
)
def test_a_module_that_takes_no_adapter_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    assert messages(LoraMethod(targets=(name,)), tmp_path) == (
        f"method (targets): {name!r} is a {kind}; only linear layers and embeddings take an adapter\n"
        "    -> name the linear layers inside it, or put it under modules_to_save"
    )


def test_a_name_that_would_train_more_than_it_names_is_refused(tmp_path: Path) -> None:
    assert messages(LoraMethod(rank=4, modules_to_save=("norm",)), tmp_path) == (
        "method (modules_to_save): 'norm' would also train 'model.layers.0.input_layernorm' and 3 more\n"
        "    -> give the whole path: model.norm"
    )


def test_a_module_in_both_lists_is_refused(tmp_path: Path) -> None:
    method = LoraMethod(targets=("q_proj", "v_proj"), modules_to_save=("v_proj",))
    assert messages(method, tmp_path) == (
        "method (targets): 'v_proj' is under targets and under modules_to_save, and can learn in one way only\n"
        "    -> take it out of one of them"
    )


@pytest.mark.parametrize(
    ("name", "other"), [("lm_head", "embedding"), ("embed_tokens", "head"), ("model.embed_tokens", "head")]
)
def test_an_adapter_on_a_shared_weight_is_refused(tmp_path: Path, name: str, other: str) -> None:
    assert messages(LoraMethod(rank=4, targets=("q_proj", name)), tmp_path) == (
        f"method (targets): {name!r} shares its weight with the {other}, so an adapter on it would be wrong after "
        f"merging\n    -> put it under modules_to_save instead: modules_to_save: [{name}]"
    )


@pytest.mark.parametrize("rank", [64, 65])
def test_a_rank_wider_than_the_layers_is_refused(tmp_path: Path, rank: int) -> None:
    if rank == 64:
        attach(model(), LoraMethod(rank=64))
        return
    assert messages(LoraMethod(rank=rank), tmp_path) == (
        "method (rank): rank 65 is wider than the model's layers (64), so it would cost more than training them\n"
        "    -> 16 to 64 is usual"
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    assert messages(LoraMethod(rank=100, targets=("q_prj",)), tmp_path).startswith("2 problems:\n")


def test_a_method_that_fits_needs_no_weights_to_be_checked(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    for method in (LoraMethod(rank=4), QloraMethod(rank=4, targets=("q_proj",)), FullMethod()):
        check_method(base, method)


# ------------------------------------------------------------------------------------------ saved, put back, merged


@pytest.mark.parametrize(
    ("tied", "method"),
    [
        (True, LoraMethod(rank=4)),
        (True, LoraMethod(rank=4, use_dora=True)),
        (True, LoraMethod(rank=4, modules_to_save=("lm_head",))),
        (True, LoraMethod(rank=4, modules_to_save=("embed_tokens",))),
        (True, LoraMethod(rank=4, modules_to_save=("embed_tokens", "lm_head"))),
        (False, LoraMethod(rank=4, targets=("q_proj", "embed_tokens", "lm_head"))),
        (False, LoraMethod(rank=4, modules_to_save=("embed_tokens", "lm_head", "model.norm"))),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning", "ignore:.*tied:UserWarning")
def test_saved_put_back_merged_and_saved_again_answers_the_same(tmp_path: Path, tied: bool, method: LoraMethod) -> None:
    tuned = shaken(attach(model(tie_word_embeddings=tied), method))
    with torch.no_grad():
        expected = tuned(IDS).logits
        assert float((expected - model(tie_word_embeddings=tied)(IDS).logits).abs().max()) > 0.1
        tuned.save_pretrained(tmp_path / "adapter")
        again = attach_trained(model(tie_word_embeddings=tied), tmp_path / "adapter")
        assert learning(again) == set()
        assert torch.equal(again(IDS).logits, expected)
        again.merge_and_unload(safe_merge=True).save_pretrained(tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        assert float((merged(IDS).logits - expected).abs().max()) < 1e-4


def test_conv1d_layers_take_an_adapter() -> None:
    small = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=64, n_embd=16, n_layer=2, n_head=2))
    assert len(learning(attach(small, LoraMethod(rank=4, targets=("c_attn",))))) == 4


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_without_its_files_is_said(tmp_path: Path, name: str) -> None:
    attach(model(), LoraMethod(rank=4)).save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    # A pickled one is not taken instead
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(FinetuneError) as caught:
        attach_trained(model(), tmp_path)
    assert str(caught.value) == f"{tmp_path}: this adapter has no {name}\n    -> finetune train RECIPE"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_said(tmp_path: Path, name: str) -> None:
    attach(model(), LoraMethod(rank=4)).save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FinetuneError, match="cannot put this adapter on its base: "):
        attach_trained(model(), tmp_path)


@pytest.mark.parametrize("config", [{"hidden_size": 128}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_base_is_refused(tmp_path: Path, config: dict[str, int]) -> None:
    attach(model(), LoraMethod(rank=4)).save_pretrained(tmp_path)
    with pytest.raises(FinetuneError, match="cannot put this adapter on its base: ") as caught:
        attach_trained(model(**config), tmp_path)
    assert caught.value.problems[0].fix == "was it trained on another base model?"


def test_an_adapter_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    attach(model(), LoraMethod(rank=4, targets=("q_proj", "v_proj"))).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "v_proj", "o_proj"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FinetuneError) as caught:
        attach_trained(model(), tmp_path)
    assert caught.value.problems[0].what == (
        "cannot put this adapter on its base: 4 tensors are on one side only, among them "
        "'base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight'"
    )
