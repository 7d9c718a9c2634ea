"""Attention of rows that lie end to end: each row sees itself only, by construction, without a mask over the batch.

Registered with transformers under NAME while a packed training run lasts. Used on the CPU; on a GPU transformers'
own packed paths (FlashAttention, or block masks made from the position ids) are faster.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from finetune.errors import FinetuneError

NAME = "finetune_rows"

# Below this length two small products beat torch's fused kernel, whose bfloat16 backward is slow on CPUs. Measured
# for 9 heads of 64, forward + backward in ms: 150 tokens 0.9 against 2.6, 600 tokens 26 against 10.
SHORT = 256


@functools.lru_cache(maxsize=SHORT + 1)
def _causal_bias(length: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype).triu(1)


def _short_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
) -> torch.Tensor:
    """Causal attention of one row. Shapes [1, heads, length, width], key and value with fewer heads."""
    _, heads, length, width = query.shape
    groups = heads // key.shape[1]
    stacked = query.reshape(key.shape[1], groups * length, width)
    bias = _causal_bias(length, query.dtype).repeat(groups, 1)[None]
    weights = torch.softmax(torch.baddbmm(bias, stacked, key[0].transpose(1, 2), alpha=scale), dim=-1)
    if dropout:
        weights = functional.dropout(weights, dropout)
    return torch.bmm(weights.to(value.dtype), value[0]).view(1, heads, length, width)


def attend_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    row_bounds: tuple[int, ...] = (),
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a packed batch (transformers' attention interface).

    Args:
        module: the attention layer, unused.
        query: [1, heads, tokens, width]; `key` and `value` [1, key heads, tokens, width].
        key: see `query`.
        value: see `query`.
        attention_mask: None; `row_bounds` says all.
        scaling: factor of the scores; None means 1 / sqrt(width).
        dropout: share of attention weights dropped.
        row_bounds: first token of each row, and the number of tokens last.
        s_aux: attention sinks (gpt-oss), which cannot be computed here.

    Returns:
        The output, [1, tokens, heads, width], and None for the attention weights.

    Raises:
        FinetuneError: the model has attention sinks.
    """
    if s_aux is not None:
        raise FinetuneError(
            "this model's attention has sinks, which only its eager attention computes on a CPU",
            where="model.attention",
            fix="set model.attention: eager",
        )
    if attention_mask is not None or row_bounds[-1] != query.shape[2]:
        raise ValueError("packed attention needs row_bounds over the whole batch and no mask")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    outputs = []
    for start, end in itertools.pairwise(row_bounds):
        parts = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        if end - start <= SHORT:
            outputs.append(_short_row(*parts, scale, dropout))
        else:
            outputs.append(
                functional.scaled_dot_product_attention(
                    *parts, is_causal=True, scale=scale, dropout_p=dropout, enable_gqa=True
                )
            )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def supports_rows(config: Any, *, longest: int) -> bool:
    """Whether a model's attention is plain causal attention over rows of at most `longest` tokens."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    windowed = window is not None and getattr(text, "use_sliding_window", True) and window < longest
    return not windowed and not getattr(text, "attn_logit_softcapping", None)


@contextlib.contextmanager
def row_attention(model: Any) -> Iterator[None]:
    """Compute a model's attention by `attend_rows` while the block lasts."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend_rows)
    AttentionMaskInterface.register(NAME, _no_mask)
    with attention(model, NAME):
        yield


@contextlib.contextmanager
def attention(model: Any, implementation: str) -> Iterator[None]:
    """Compute a model's attention by one of transformers' implementations while the block lasts."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def row_bounds(lengths: list[int]) -> tuple[int, ...]:
    """Return the first token of each row and, last, the number of tokens."""
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    return tuple(bounds)
