"""The model families that can become GGUF files, one line each: `family_of(config)`.

What differs between them is data; where llama.cpp computes something that a configuration does not, it is refused
here rather than written wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.errors import FinetuneError, Problem

# full: llama.cpp looks at everything, whatever the file says; otherwise the period of its full-attention layers
Windows = Literal["full", "every 2nd", "every 6th"]
PERIOD = {"every 2nd": 2, "every 6th": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular about a family's file.

    `arch` is llama.cpp's name; `paired_rope` that its RoPE turns neighbouring rows, so that q and k are reordered;
    `norm_offset` what is added to the norms' weights; `windows` which layers look at a window only;
    `ropes` the RoPE scalings that llama.cpp can be told; `untied` whether a head of its own is read.
    """

    arch: str
    paired_rope: bool = False
    norm_offset: float = 0.0
    windows: Windows = "full"
    activation: str = "silu"
    ropes: frozenset[str] = frozenset({"default", "linear", "yarn"})
    partial_rope: bool = False
    untied: bool = True
    reason: str


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(
        arch="llama",
        paired_rope=True,
        ropes=frozenset({"default", "linear", "yarn", "llama3"}),
        reason="Llama 2 and 3, SmolLM2: ggml turns pairs of neighbours (Meta's order), transformers two halves",
    ),
    "MistralForCausalLM": Family(arch="llama", paired_rope=True, reason="is a Llama to llama.cpp, without the window"),
    "Ministral3ForCausalLM": Family(
        arch="mistral3",
        paired_rope=True,
        ropes=frozenset({"yarn"}),
        reason="a Llama with yarn and with queries that grow by the logarithm of the position",
    ),
    "SmolLM3ForCausalLM": Family(arch="smollm3", paired_rope=True, reason="a Llama; every 4th layer has no RoPE"),
    "Qwen2ForCausalLM": Family(arch="qwen2", reason="Qwen2 and 2.5: RoPE in halves as in transformers, biases of qkv"),
    "Qwen3ForCausalLM": Family(arch="qwen3", reason="as Qwen2, with norms of q and k, which forbid reordering rows"),
    "Gemma2ForCausalLM": Family(
        arch="gemma2",
        norm_offset=1.0,
        windows="every 2nd",
        activation="gelu_pytorch_tanh",
        ropes=frozenset({"default"}),
        untied=False,
        reason="norms hold weight - 1; both soft caps; llama.cpp reads no head of its own",
    ),
    "Gemma3ForCausalLM": Family(
        arch="gemma3",
        norm_offset=1.0,
        windows="every 6th",
        activation="gelu_pytorch_tanh",
        ropes=frozenset({"default", "linear"}),
        reason="norms hold weight - 1; window layers have a RoPE base of their own",
    ),
    "Phi3ForCausalLM": Family(
        arch="phi3",
        ropes=frozenset({"default", "longrope"}),
        partial_rope=True,
        reason="Phi-3 and 4: qkv and gate-up are fused in transformers and in ggml alike, so they stay as they are",
    ),
}


def family_of(config: Any, *, where: str) -> Family:
    """Return the family of a configuration that llama.cpp computes exactly.

    Args:
        config: transformers' configuration of the model.
        where: its place, for messages.

    Raises:
        FinetuneError: the architecture is not supported, or llama.cpp would compute something else; all reasons.
    """
    (name,) = config.architectures or ("",)
    family = FAMILIES.get(name)
    if family is None:
        raise FinetuneError(
            f"the architecture {name!r} cannot be written as GGUF",
            where=where,
            fix="supported are " + ", ".join(FAMILIES),
        )
    problems = [Problem(where, what, "export the merged folder instead") for what in _differences(config, family)]
    if problems:
        raise FinetuneError.of(problems)
    return family


def layer_types(config: Any) -> list[str]:
    """Return for each layer whether it sees everything or a window."""
    if getattr(config, "layer_types", None):
        return list(config.layer_types)
    windowed = getattr(config, "sliding_window", None) is not None
    return ["sliding_attention" if windowed else "full_attention"] * int(config.num_hidden_layers)


def head_size(config: Any) -> int:
    """Return how many numbers a head has."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _differences(config: Any, family: Family) -> list[str]:
    """Say what llama.cpp would compute otherwise than transformers."""
    found = _rope_differences(config, family) + _layer_differences(config, family)
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if activation != family.activation:
        found.append(f"llama.cpp computes {family.arch} with {family.activation!r}, this model uses {activation!r}")
    if not config.tie_word_embeddings and not family.untied:
        found.append(f"llama.cpp reads no untied head of {family.arch}")
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is not None and float(scalar) != _scaled_by(config, family):
        found.append(
            f"llama.cpp divides the attention by the root of {_scaled_by(config, family):g}, this model by that of "
            f"{scalar:g} (query_pre_attn_scalar)"
        )
    if family.arch == "gemma3" and getattr(config, "attn_logit_softcapping", None):
        found.append("llama.cpp has no soft cap of the attention in gemma3")
    if getattr(config, "use_bidirectional_attention", None):
        found.append("llama.cpp has no bidirectional attention for this family")
    return found


def _scaled_by(config: Any, family: Family) -> float:
    """llama.cpp knows the 27B models, which scale otherwise, by their number of layers."""
    largest = {"gemma2": 46, "gemma3": 62}.get(family.arch)
    if config.num_hidden_layers == largest:
        return float(config.hidden_size // config.num_attention_heads)
    return float(head_size(config))


def _rope_differences(config: Any, family: Family) -> list[str]:
    parts = rope_parts(config)
    found = [
        f"RoPE scaling {part['rope_type']!r} cannot be told to llama.cpp for {family.arch} "
        f"(only {', '.join(sorted(family.ropes))})"
        for part in parts.values()
        if part.get("rope_type", "default") not in family.ropes
    ]
    if parts.get("sliding_attention", {}).get("rope_type", "default") != "default":
        found.append("llama.cpp does not scale the RoPE of window layers")
    if not family.partial_rope and any(part.get("partial_rotary_factor", 1.0) != 1.0 for part in parts.values()):
        found.append(f"llama.cpp turns whole heads of {family.arch}, this model a part (partial_rotary_factor)")
    for part in parts.values():
        if part.get("rope_type") == "yarn" and (
            part.get("attention_factor") is not None or not part.get("truncate", True)
        ):
            found.append("llama.cpp computes yarn with its own attention factor and with rounded bounds")
    return found


def _layer_differences(config: Any, family: Family) -> list[str]:
    layers = int(config.num_hidden_layers)
    if family.arch == "smollm3":
        expected = [int((layer + 1) % 4 != 0) for layer in range(layers)]
        if list(config.no_rope_layers) != expected:
            return ["llama.cpp leaves RoPE out of every 4th layer, this model of others (no_rope_layers)"]
    if family.windows in PERIOD:
        period = PERIOD[family.windows]
        expected_types = [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention" for layer in range(layers)
        ]
        if layer_types(config) != expected_types:
            return [f"llama.cpp sees everything {family.windows} layer, this model in others (layer_types)"]
    return []


def rope_parts(config: Any) -> dict[str, dict[str, Any]]:
    """Return the RoPE parameters by the kind of layer; most models have one for all, under `full_attention`."""
    found = dict(config.rope_parameters or {})
    if "full_attention" in found:
        return {kind: dict(part) for kind, part in found.items() if isinstance(part, dict)}
    return {"full_attention": found}
