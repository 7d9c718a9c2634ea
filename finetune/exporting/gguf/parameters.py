"""A model's configuration as GGUF metadata: `write_parameters(writer, config, family)`, and its RoPE as tensors."""

from __future__ import annotations

import math
from typing import Any

import torch

from finetune.errors import FinetuneError
from finetune.exporting.gguf.families import Family, head_size, layer_types, rope_parts


def write_parameters(writer: Any, config: Any, family: Family) -> list[str]:
    """Write what llama.cpp must know of a model besides its tensors.

    Args:
        writer: gguf's `GGUFWriter`.
        config: transformers' configuration.
        family: of that model.

    Returns:
        Where the file differs from the model, in words.
    """
    context, notes = _context(config, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_rope(writer, config, family)
    if family.arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
        if config.attn_logit_softcapping:
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if family.arch == "phi3":
        # llama.cpp knows Phi-4 by a window of 0, and has the window of Phi-3 switched off
        writer.add_sliding_window(config.sliding_window or 0)
    return notes


def _context(config: Any, family: Family) -> tuple[int, list[str]]:
    """Return the context that llama.cpp may use: up to the window where it has none, so that both see the same."""
    longest = int(config.max_position_embeddings)
    if family.windows != "full" or "sliding_attention" not in layer_types(config):
        return longest, []
    window = int(config.sliding_window)
    if window >= longest:
        return longest, []
    return window, [f"context {window:,} of {longest:,} tokens: llama.cpp has no sliding window for {family.arch}"]


def _write_rope(writer: Any, config: Any, family: Family) -> None:
    import gguf

    parts = rope_parts(config)
    rope = parts["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if "sliding_attention" in parts:
        writer.add_rope_freq_base_swa(parts["sliding_attention"]["rope_theta"])
    writer.add_rope_dimension_count(turned(config))
    scaling = rope.get("rope_type", "default")
    if scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif scaling == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        if rope.get("beta_slow") is not None:
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    elif scaling == "longrope":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_attn_factors(_long_attention(config, rope))
    if family.arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(_original_context(config, rope))
    if family.arch == "mistral3":
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])


def turned(config: Any) -> int:
    """Return how many numbers of a head RoPE turns."""
    part = float(rope_parts(config)["full_attention"].get("partial_rotary_factor") or 1.0)
    return int(part * head_size(config))


def _original_context(config: Any, rope: dict[str, Any]) -> int:
    found = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return int(found or config.max_position_embeddings)


def _long_attention(config: Any, rope: dict[str, Any]) -> float:
    """What longrope multiplies the attention by (LongRoPE, arXiv:2402.13753, as Phi-3 uses it)."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    original = _original_context(config, rope)
    scale = config.max_position_embeddings / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def rope_tensors(config: Any) -> dict[str, torch.Tensor]:
    """Return the divisors of RoPE's frequencies that llama.cpp reads as tensors, by their names in the file.

    Raises:
        FinetuneError: longrope with factors of the wrong number.
    """
    rope = rope_parts(config)["full_attention"]
    scaling = rope.get("rope_type", "default")
    if scaling == "llama3":
        return {"rope_freqs.weight": _llama3_divisors(head_size(config), rope)}
    if scaling != "longrope":
        return {}
    found = {
        f"rope_factors_{length}.weight": torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
        for length in ("long", "short")
    }
    for name, factors in found.items():
        if len(factors) != turned(config) // 2:
            raise FinetuneError(f"{name} needs {turned(config) // 2} factors, the configuration has {len(factors)}")
    return found


def _llama3_divisors(size: int, rope: dict[str, Any]) -> torch.Tensor:
    """Llama 3.1 leaves short waves as they are, stretches long ones, and blends between (Llama 3, arXiv:2407.21783).

    The arithmetic is in float32, step by step as in llama.cpp's converter, so that the same bits come out.
    """
    base, factor = rope["rope_theta"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    waves = 2 * math.pi / (1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)))
    share = (context / waves - low) / (high - low)
    blended = 1 / ((1 - share) / factor + share)
    short, long = waves < context / high, waves > context / low
    return torch.where(short, torch.ones_like(waves), torch.where(long, torch.full_like(waves, factor), blended))
