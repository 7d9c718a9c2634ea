"""Which number format each tensor gets in a file of a given kind: `tensor_type(...)`, as llama.cpp mixes them.

The mixes are those of llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp) for models without experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Numbers in one block, which a row must be a multiple of (ggml's block sizes)
BLOCK = {"F32": 1, "F16": 1, "BF16": 1, "Q4_0": 32, "Q4_1": 32, "Q5_0": 32, "Q5_1": 32, "Q8_0": 32, "IQ4_NL": 32}
LARGE_BLOCK = 256
# What takes the place of a format whose blocks do not fit the row, and then of that one
FALLBACK = {"IQ4_XS": "IQ4_NL", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: the format of most of its tensors, and its number in `general.file_type` (LlamaFileType)."""

    base: str
    file_type: int


KINDS: Mapping[str, Kind] = {
    "f32": Kind("F32", 0),
    "f16": Kind("F16", 1),
    "bf16": Kind("BF16", 32),
    "q8_0": Kind("Q8_0", 7),
    "q6_k": Kind("Q6_K", 18),
    "q5_k_m": Kind("Q5_K", 17),
    "q5_k_s": Kind("Q5_K", 16),
    "q5_1": Kind("Q5_1", 9),
    "q5_0": Kind("Q5_0", 8),
    "q4_k_m": Kind("Q4_K", 15),
    "q4_k_s": Kind("Q4_K", 14),
    "q4_1": Kind("Q4_1", 3),
    "q4_0": Kind("Q4_0", 2),
    "iq4_nl": Kind("IQ4_NL", 25),
    "iq4_xs": Kind("IQ4_XS", 30),
    "q3_k_m": Kind("Q3_K", 12),
}
PLAIN = frozenset({"f32", "f16", "bf16", "q8_0"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What the mixes ask of a model."""

    arch: str
    layers: int
    heads: int
    heads_kv: int
    tied: bool

    @property
    def shared_heads(self) -> int:
        return self.heads // self.heads_kv

    @property
    def is_70b(self) -> bool:
        return self.layers == 80 and (self.arch == "qwen2" or (self.arch == "llama" and self.shared_heads > 1))


def tensor_type(kind: str, name: str, shape: tuple[int, ...], model: Shape) -> str:
    """Return the number format of one tensor, named as gguf's `GGMLQuantizationType` names them.

    Args:
        kind: one of `KINDS`.
        name: the tensor's name in the file.
        shape: rows first.
        model: what the mixes depend on.
    """
    # llama.cpp computes with norms and vectors in float32 and has no kernels for others
    if len(shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return "F32"
    wanted = KINDS[kind].base
    if kind not in PLAIN:
        wanted = _mixed(kind, wanted, name, shape[-1], model)
    return _fitting(wanted, shape[-1])


def _fitting(wanted: str, columns: int) -> str:
    """Return the format, or the next one whose blocks fit a row of that length."""
    if columns % BLOCK.get(wanted, LARGE_BLOCK) == 0:
        return wanted
    smaller = FALLBACK.get(wanted, "F16")
    return smaller if columns % BLOCK[smaller] == 0 else "F16"


def _mixed(kind: str, base: str, name: str, columns: int, model: Shape) -> str:
    if name == "output.weight" or (model.tied and name == "token_embd.weight"):
        return "Q8_0" if columns % BLOCK.get(base, LARGE_BLOCK) else "Q6_K"
    if not name.startswith("blk."):
        return base
    _, number, part = name.split(".", 2)
    layer = int(number)
    if part in ("attn_v.weight", "attn_qkv.weight"):
        return _value_type(kind, base, layer, model)
    if part == "ffn_down.weight":
        return _down_type(kind, base, layer, model.layers)
    return "Q4_K" if kind == "q3_k_m" and part == "attn_output.weight" else base


def _value_type(kind: str, base: str, layer: int, model: Shape) -> str:
    """The values' projection is the most sensitive of the attention, and small where heads share it."""
    found = base
    if kind == "q3_k_m":
        found = "Q5_K" if layer < 2 else "Q4_K"
    elif base in ("IQ4_NL", "IQ4_XS") and model.shared_heads >= 4:
        found = "Q5_K"
    elif kind in ("q4_k_m", "q5_k_m") and _more_bits(layer, model.layers):
        found = "Q6_K"
    elif kind == "q4_k_s" and layer < 4:
        found = "Q5_K"
    return "Q5_K" if model.is_70b and found in ("Q3_K", "Q4_K") else found


def _down_type(kind: str, base: str, layer: int, layers: int) -> str:
    """The second projection of the feed-forward suffers most in the first and last layers."""
    if kind == "q3_k_m":
        return "Q5_K" if layer < layers // 16 else "Q4_K"
    if kind in ("q4_k_m", "q5_k_m"):
        return "Q6_K" if _more_bits(layer, layers) else base
    if kind in ("iq4_nl", "iq4_xs", "q4_k_s") and layer < layers // 8:
        return "Q5_K"
    return base


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
