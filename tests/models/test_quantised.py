"""Quantised bases: what learns gets its gradient through every frozen layer, also after the model has answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune.models import attach, load_model, resolve_base
from finetune.models.base import Quantization
from finetune.recipe.schema import ModelSection, QloraMethod
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    tokens = torch.arange(5, 45)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=tokens, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:]).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("quantization", ["nf4", "nf4-double", "int8"])
def test_gradients_are_the_same_after_the_model_has_answered(folder: Path, quantization: Quantization) -> None:
    base = resolve_base(ModelSection(base=str(folder)))
    model = attach(load_model(base, dtype=torch.bfloat16, device="cpu", quantization=quantization), QloraMethod(rank=4))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02, generator=torch.Generator().manual_seed(len(name)))
    before = gradients(model)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(5, 25)[None])
    after = gradients(model)
    assert len(before) == 28
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(bool(gradient.abs().max() > 0) for gradient in before.values())


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_gradients_are_those_of_the_dequantised_weights(folder: Path, quantization: Quantization) -> None:
    base = resolve_base(ModelSection(base=str(folder)))
    held = []
    for plain in (False, True):
        torch.manual_seed(0)
        model = load_model(base, dtype=torch.bfloat16, device="cpu", quantization=quantization)
        if plain:
            model = model.dequantize(dtype=torch.bfloat16)
        torch.manual_seed(0)
        held.append(gradients(attach(model, QloraMethod(rank=4))))
    quantised, plain_ones = held
    assert quantised.keys() == plain_ones.keys()
    for name, gradient in quantised.items():
        likeness = torch.nn.functional.cosine_similarity(gradient.flatten(), plain_ones[name].flatten(), dim=0)
        # lora_A starts with no gradient, because B is zero
        assert "lora_A" in name or likeness > 0.98, name
