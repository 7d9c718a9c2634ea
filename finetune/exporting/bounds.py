"""How near the trained model each kind of file has to stay: one table for all, with the reason of each bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """What a file must keep: mean KL(trained || file) in nats, and the share of positions with one likeliest token."""

    max_kl: float
    min_top1: float
    why: str


_EXACT = "the trained numbers themselves; what differs is the order of sums"
_HALF = "11 bits of mantissa; SmolLM2-135M measured 1.4e-6 in torch"
_BRAIN = "8 bits of mantissa, an update smaller than half a step is lost; SmolLM2-135M measured 2.1e-4, top-1 98.7 %"
_STEPS = "so few steps a weight that near ties tip; whether that costs anything is what the task score says"

# Folders that transformers opens, computed in float32 so that the weights are compared and not the arithmetic
FOLDERS = {
    "float32": Bound(1e-5, 0.999, _EXACT),
    "float16": Bound(1e-4, 0.995, _HALF),
    "bfloat16": Bound(2e-3, 0.97, _BRAIN),
}

# GGUF files by `quantization`, computed by llama.cpp as it computes for everybody
FILES = {
    "f32": Bound(1e-4, 0.995, _EXACT + ", and a key-value cache in float16"),
    "f16": Bound(1e-4, 0.995, _HALF + "; activations and the key-value cache are float16 as well"),
    "bf16": Bound(2e-3, 0.97, _BRAIN),
    # Rounding both costs SmolLM2-135M, whose activations have far outliers, 4.7e-3 (the weights alone 2.5e-3, as torch
    # computes it with the same rounding): its recipes have to say so, and the bound is not loosened for all
    "q8_0": Bound(1e-3, 0.97, "steps of 1/127 of the largest of 32 weights; activations are rounded likewise"),
    "q6_k": Bound(0.01, 0.0, "64 steps; " + _STEPS),
    "q5_k_m": Bound(0.03, 0.0, "32 steps; " + _STEPS),
    "q5_k_s": Bound(0.03, 0.0, "32 steps; " + _STEPS),
    "q5_1": Bound(0.03, 0.0, "32 steps; " + _STEPS),
    "q5_0": Bound(0.03, 0.0, "32 steps; " + _STEPS),
    "q4_k_m": Bound(0.1, 0.0, "16 steps; " + _STEPS),
    "q4_k_s": Bound(0.1, 0.0, "16 steps; " + _STEPS),
    "q4_1": Bound(0.1, 0.0, "16 steps; " + _STEPS),
    "q4_0": Bound(0.1, 0.0, "16 steps; " + _STEPS),
    "iq4_nl": Bound(0.1, 0.0, "16 steps; " + _STEPS),
    "iq4_xs": Bound(0.1, 0.0, "16 steps; " + _STEPS),
}
# What has fewer steps than the table's last, or a kind that it does not know
COARSE = Bound(0.5, 0.0, "8 steps or fewer; " + _STEPS)


def file_bound(quantization: str) -> Bound:
    """Return the bound of a GGUF file by the name of its quantisation; `COARSE` for names that the table has not."""
    return FILES.get(quantization, COARSE)
