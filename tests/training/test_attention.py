"""Attention over rows laid end to end is attention over each row alone, and refuses what it cannot compute."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import Gemma2Config, GptOssConfig, GptOssForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from finetune.errors import FinetuneError
from finetune.training.attention import NAME, SHORT, _causal_bias, attend_rows, row_attention, row_bounds, supports_rows
from tests.tiny import tiny_model, tiny_tokenizer

MODULE = torch.nn.Module()


def inputs(tokens: int, *, heads: int = 4, groups: int = 2, width: int = 8, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(tokens)

    def made(count: int) -> torch.Tensor:
        return torch.randn(1, count, tokens, width, generator=generator).to(dtype).requires_grad_()

    return made(heads), made(heads // groups), made(heads // groups)


def by_mask(query: Any, key: Any, value: Any, lengths: list[int], scale: float | None = None) -> torch.Tensor:
    """The same by torch, with a mask over the whole batch in which a token sees those before it in its own row."""
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    visible = (row[:, None] == row[None]) & torch.ones(len(row), len(row), dtype=torch.bool).tril()
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)


def agree(
    lengths: list[int], *, scale: float | None = None, rtol: float = 1e-4, atol: float = 1e-5, **made: Any
) -> None:
    tensors = inputs(sum(lengths), **made)
    found, weights = attend_rows(MODULE, *tensors, None, scaling=scale, row_bounds=row_bounds(lengths))
    expected = by_mask(*tensors, lengths, scale)
    assert weights is None
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    slope = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    for mine, own in zip(
        torch.autograd.grad((found * slope).sum(), tensors),
        torch.autograd.grad((expected * slope).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(mine, own, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    "lengths",
    [[1], [7], [SHORT], [SHORT + 1], [1, 1, 1], [5, 1, 9], [SHORT, SHORT + 1], [SHORT + 20, 3, SHORT - 1, SHORT + 1]],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_attend_to_themselves_forward_and_backward(lengths: list[int], groups: int) -> None:
    agree(lengths, groups=groups)


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_the_scale_is_the_models(scale: float) -> None:
    agree([6, SHORT + 4], scale=scale)


def test_bfloat16_is_near() -> None:
    agree([6, SHORT + 4], dtype=torch.bfloat16, rtol=0.02, atol=0.05)


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6), groups=st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_any_rows_attend_to_themselves(lengths: list[int], groups: int) -> None:
    agree(lengths, groups=groups)


def test_a_row_does_not_feel_its_neighbours_at_all() -> None:
    lengths = [4, 9, SHORT + 3, 6]
    bounds = row_bounds(lengths)
    tensors = [tensor.detach() for tensor in inputs(sum(lengths))]
    whole, _ = attend_rows(MODULE, *tensors, None, row_bounds=bounds)
    for start, end in pairwise(bounds):
        alone, _ = attend_rows(MODULE, *(t[:, :, start:end] for t in tensors), None, row_bounds=(0, end - start))
        assert torch.equal(whole[:, start:end], alone)


@pytest.mark.parametrize("length", [10, SHORT + 10])
def test_dropout_drops_and_keeps_the_mean(length: int) -> None:
    query, key, _ = inputs(length)
    ones = torch.ones(1, 2, length, 8)
    torch.manual_seed(0)
    out = torch.stack(
        [
            attend_rows(MODULE, query, key, ones, None, dropout=0.5, row_bounds=(0, length))[0].detach()
            for _ in range(60)
        ]
    )
    # Weights sum to one, so that without dropout each output is 1
    assert float((out - 1).abs().max()) > 0.3
    assert float(out.mean()) == pytest.approx(1.0, abs=0.05)


def test_a_mask_or_bounds_that_do_not_cover_the_batch_are_a_bug() -> None:
    tensors = inputs(6)
    for mask, bounds in ((torch.ones(1, 1, 6, 6), (0, 6)), (None, (0, 5)), (None, (0, 3, 7))):
        with pytest.raises(ValueError, match=r"^packed attention needs row_bounds over the whole batch and no mask$"):
            attend_rows(MODULE, *tensors, mask, row_bounds=bounds)


def test_a_bias_first_made_while_answering_serves_training() -> None:
    _causal_bias.cache_clear()
    with torch.inference_mode():
        attend_rows(MODULE, *inputs(6), None, row_bounds=(0, 6))
    agree([6])


def test_bounds_are_where_rows_begin_and_the_last_ends() -> None:
    assert row_bounds([3, 1, 4]) == (0, 3, 4, 8)
    assert row_bounds([]) == (0,)


# ----------------------------------------------------------------------------------------------------- in a model


def test_a_model_computes_packed_rows_as_each_row_alone() -> None:
    model = tiny_model(tiny_tokenizer())
    rows = [torch.arange(5, 5 + length) for length in (4, 11, 7)]
    alone = torch.cat([model(row[None]).logits[0] for row in rows])
    packed = torch.cat(rows)[None]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    before = model.config._attn_implementation
    with row_attention(model):
        assert model.config._attn_implementation == NAME
        bounds = row_bounds([len(row) for row in rows])
        together = model(input_ids=packed, position_ids=positions, row_bounds=bounds, use_cache=False).logits[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert model.config._attn_implementation == before
    assert torch.equal(torch.cat([model(row[None]).logits[0] for row in rows]), alone)


def test_the_models_own_attention_comes_back_after_an_error() -> None:
    model = tiny_model(tiny_tokenizer())
    with pytest.raises(RuntimeError, match="stopped"), row_attention(model):
        raise RuntimeError("stopped")
    assert model.config._attn_implementation == "sdpa"


def test_attention_sinks_are_refused() -> None:
    config = GptOssConfig(
        vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
    )  # fmt: skip
    model = GptOssForCausalLM(config).eval()
    with row_attention(model), pytest.raises(FinetuneError) as caught:
        model(input_ids=torch.arange(5, 15)[None], row_bounds=(0, 10), use_cache=False)
    assert str(caught.value) == (
        "model.attention: this model's attention has sinks, which only its eager attention computes on a CPU\n"
        "    -> set model.attention: eager"
    )


@pytest.mark.parametrize(
    ("config", "longest", "expected"),
    [
        (LlamaConfig(), 100_000, True),
        (MistralConfig(sliding_window=16), 16, True),
        (MistralConfig(sliding_window=16), 17, False),
        (MistralConfig(sliding_window=None), 17, True),
        (Qwen2Config(sliding_window=16, use_sliding_window=False), 17, True),
        (Qwen2Config(sliding_window=16, use_sliding_window=True), 17, False),
        (Gemma2Config(sliding_window=4096), 8, False),
        (Gemma2Config(sliding_window=4096, attn_logit_softcapping=None), 8, True),
    ],
)
def test_which_attention_is_plain_causal_attention(config: Any, longest: int, expected: bool) -> None:
    assert supports_rows(config, longest=longest) is expected
