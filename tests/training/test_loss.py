"""The chunked loss is torch's cross entropy, gradients included, and prompts have no part in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from finetune.data.rows import TokenRow
from finetune.models import attach
from finetune.recipe.schema import LoraMethod
from finetune.training import loss as module
from finetune.training.batches import IGNORED, StepCollator
from finetune.training.loss import backbone, head_is_plain, softcap, trained_token_loss
from tests.tiny import tiny_model, tiny_tokenizer

WIDTH, VOCABULARY = 16, 50


def case(length: int, *, trained: float = 0.5, bias: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0):  # type: ignore[no-untyped-def]
    """Random hidden states [2, length, 16], a head, and targets of which about a share counts."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, length, WIDTH, generator=generator).to(dtype).requires_grad_()
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    targets = torch.randint(0, VOCABULARY, (2, length), generator=generator)
    targets[torch.rand(2, length, generator=generator) >= trained] = IGNORED
    return hidden, head.to(dtype), targets


def reference(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, cap: float | None):  # type: ignore[no-untyped-def]
    """Loss and gradients of hidden, weight and bias by torch, in float64."""
    inputs = [hidden.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()]
    if head.bias is not None:
        inputs.append(head.bias.detach().double().requires_grad_())
    logits = functional.linear(*inputs)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED)
    return total, torch.autograd.grad(total, inputs)


def agrees(
    hidden: Any, head: Any, targets: Any, cap: float | None, *, rtol: float, atol: float, scale: float = 1.0
) -> None:
    total, gradients = reference(hidden, head, targets, cap)
    found = trained_token_loss(hidden, head, targets, cap)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), total, rtol=rtol, atol=atol)
    (found * scale).backward()
    tensors = [hidden, *head.parameters()]
    assert len(tensors) == len(gradients)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert tensor.grad.dtype == tensor.dtype
        torch.testing.assert_close(tensor.grad.double(), gradient * scale, rtol=rtol, atol=atol * scale)


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1 / 37])
def test_loss_and_gradients_are_those_of_torch(cap: float | None, bias: bool, scale: float) -> None:
    agrees(*case(40, bias=bias), cap, rtol=1e-5, atol=1e-5, scale=scale)


@pytest.mark.parametrize("cap", [None, 3.0])
def test_bfloat16_is_near_the_float64_reference(cap: float | None) -> None:
    hidden, head, targets = case(40, dtype=torch.bfloat16)
    agrees(hidden, head, targets, cap, rtol=0.02, atol=0.06)


def test_a_float32_head_on_bfloat16_hidden_states_learns_in_float32() -> None:
    hidden, head, targets = case(40)
    narrow = hidden.detach().bfloat16().requires_grad_()
    trained_token_loss(narrow, head, targets, None).backward()
    _, (_, weight, bias) = reference(narrow, head, targets, None)
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.float32
    assert head.bias.grad is not None
    torch.testing.assert_close(head.weight.grad.double(), weight, rtol=0.02, atol=0.1)
    torch.testing.assert_close(head.bias.grad.double(), bias, rtol=0.02, atol=0.06)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 13, 14, 15, 28])
def test_where_chunks_end_changes_nothing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setitem(module.CHUNK, "cpu", 7)
    hidden, head, targets = case(count, trained=1.1)
    assert int((targets != IGNORED).sum()) == 2 * count
    agrees(hidden, head, targets, None, rtol=1e-5, atol=1e-5)


@given(
    length=st.integers(1, 20),
    trained=st.floats(0, 1),
    chunk=st.integers(1, 9),
    cap=st.sampled_from([None, 2.0, 30.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_case_is_that_of_torch(length: int, trained: float, chunk: int, cap: float | None, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.CHUNK, "cpu", chunk)
        agrees(*case(length, trained=trained, seed=seed), cap, rtol=1e-4, atol=1e-4)


def test_no_trained_token_is_no_loss_and_no_gradient() -> None:
    hidden, head, targets = case(5, trained=0.0)
    loss = trained_token_loss(hidden, head, targets, None)
    loss.backward()
    assert loss.item() == 0.0
    for tensor in (hidden, head.weight, head.bias):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_extreme_logits_stay_finite() -> None:
    hidden, head, targets = case(5)
    huge = (hidden.detach() * 1e4).requires_grad_()
    agrees(huge, head, targets, None, rtol=1e-4, atol=1e-1)
    assert torch.isfinite(huge.grad).all()


def test_a_frozen_head_gets_no_gradient_and_hidden_states_the_same() -> None:
    hidden, head, targets = case(12)
    head.requires_grad_(False)
    trained_token_loss(hidden, head, targets, None).backward()
    _, (expected, *_) = reference(hidden, head, targets, None)
    assert head.weight.grad is None
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad.double(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    hidden, head, targets = case(12)
    with torch.no_grad():
        loss = trained_token_loss(hidden, head, targets, None)
    total, _ = reference(hidden, head, targets, None)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), total, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------- prompts have no part


def test_hidden_states_before_an_untrained_token_get_exactly_nothing() -> None:
    hidden, head, targets = case(30)
    trained_token_loss(hidden, head, targets, None).backward()
    assert hidden.grad is not None
    untrained = targets == IGNORED
    assert 10 < int(untrained.sum()) < 50
    assert not hidden.grad[untrained].any()
    assert hidden.grad[~untrained].any(dim=-1).all()


@pytest.mark.parametrize("packing", [True, False])
def test_prompt_tokens_give_no_gradient_through_a_model(packing: bool) -> None:
    """At every position whose next token is not trained, the gradient of the last hidden state is exactly zero."""
    generator = np.random.default_rng(0)
    rows = []
    for index, length in enumerate((9, 14, 5)):
        trained = np.zeros(length, dtype=bool)
        trained[length // 2 : -1] = True
        rows.append(TokenRow(f"row-{index}", generator.integers(5, 400, length).astype(np.int32), trained))
    (batch,) = StepCollator(limit=100, packing=packing, pad_id=1).lay_out(rows)["micro_batches"]
    model = tiny_model(tiny_tokenizer())
    hidden = backbone(model)(**batch["inputs"]).last_hidden_state
    hidden.retain_grad()
    trained_token_loss(hidden, model.get_output_embeddings(), batch["targets"], softcap(model)).backward()
    learned = hidden.grad.abs().sum(-1) > 0
    assert torch.equal(learned, batch["targets"] != IGNORED)
    assert int(learned.sum()) == sum(int(row.trained[1:].sum()) for row in rows) == 4 + 6 + 2


@pytest.mark.parametrize("changed", ["after the answer", "in another row"])
def test_what_is_learned_does_not_depend_on_what_it_cannot_see(changed: str) -> None:
    model = attach(tiny_model(tiny_tokenizer()), LoraMethod(rank=4)).get_base_model()
    ids = torch.arange(5, 25).repeat(2, 1)
    targets = torch.full((2, 20), IGNORED)
    targets[0, 6:10] = ids[0, 7:11]

    def gradients(tokens: torch.Tensor) -> torch.Tensor:
        model.zero_grad()
        trained_token_loss(backbone(model)(input_ids=tokens).last_hidden_state, model.lm_head, targets, None).backward()
        return torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])

    other = ids.clone()
    other[(0, slice(11, 20)) if changed == "after the answer" else 1] += 100
    first = gradients(ids)
    assert first.any()
    torch.testing.assert_close(gradients(other), first, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------------------------------------- which heads are plain

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}


def test_a_plain_head_and_a_softcapped_one_are_recognised() -> None:
    assert head_is_plain(tiny_model(tiny_tokenizer()))
    capped = Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=2.0)).eval()
    assert softcap(capped) == 2.0
    assert head_is_plain(capped)
    assert softcap(tiny_model(tiny_tokenizer())) is None


@pytest.mark.parametrize(
    ("kind", "config"),
    [(GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=8.0)), (CohereForCausalLM, CohereConfig(**SMALL))],
)
def test_a_head_whose_logits_are_scaled_is_not_plain(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        # Weights fresh from their small initialisation give logits too near zero to tell
        model.get_output_embeddings().weight.mul_(50)
    assert not head_is_plain(model)


def test_a_head_trained_whole_or_with_an_adapter_is_not_plain() -> None:
    for method in (LoraMethod(rank=4, modules_to_save=("lm_head",)), LoraMethod(rank=4, targets=("lm_head",))):
        tuned = attach(tiny_model(tiny_tokenizer(), tie_word_embeddings=False), method)
        assert not head_is_plain(tuned.get_base_model())
