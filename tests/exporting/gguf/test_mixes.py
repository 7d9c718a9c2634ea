"""Which tensor gets which format; the whole files are compared with llama.cpp's in test_official."""

from __future__ import annotations

import pytest

from finetune.exporting.gguf.mixes import KINDS, Shape, tensor_type

LLAMA = Shape("llama", 32, 32, 8, tied=False)
TIED = Shape("llama", 30, 9, 3, tied=True)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_vectors_and_biases_stay_in_float32(kind: str) -> None:
    for name, shape in (
        ("blk.0.attn_norm.weight", (256,)),
        ("blk.0.attn_q_norm.weight", (8, 256)),
        ("blk.0.attn_q.bias", (256,)),
        ("rope_freqs.weight", (32,)),
    ):
        assert tensor_type(kind, name, shape, LLAMA) == "F32"


def test_more_bits_for_the_first_and_last_layers_and_every_third() -> None:
    found = [tensor_type("q4_k_m", f"blk.{layer}.ffn_down.weight", (64, 512), LLAMA) for layer in range(32)]
    more = [layer for layer, name in enumerate(found) if name == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert {found[layer] for layer in range(32) if layer not in more} == {"Q4_K"}
    assert [tensor_type("q4_k_m", f"blk.{layer}.attn_v.weight", (64, 512), LLAMA) for layer in range(32)] == found


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("q4_k_m", "output.weight", "Q6_K"),
        ("q4_0", "output.weight", "Q6_K"),
        ("q8_0", "output.weight", "Q8_0"),
        ("q4_k_m", "token_embd.weight", "Q4_K"),
        ("q4_k_m", "blk.4.attn_q.weight", "Q4_K"),
        ("q5_k_m", "blk.4.ffn_up.weight", "Q5_K"),
        ("iq4_xs", "blk.9.attn_v.weight", "Q5_K"),
        ("q4_k_s", "blk.3.attn_v.weight", "Q5_K"),
        ("q3_k_m", "blk.9.attn_output.weight", "Q4_K"),
        ("q3_k_m", "blk.9.ffn_gate.weight", "Q3_K"),
        ("bf16", "blk.9.ffn_gate.weight", "BF16"),
    ],
)
def test_a_tensor_has_the_format_of_its_part(kind: str, name: str, expected: str) -> None:
    assert tensor_type(kind, name, (64, 512), LLAMA) == expected


def test_a_tied_embedding_is_stored_as_a_head() -> None:
    assert tensor_type("q4_k_m", "token_embd.weight", (64, 512), TIED) == "Q6_K"


@pytest.mark.parametrize(
    ("kind", "columns", "expected"),
    [
        ("q4_k_m", 576, "Q5_0"),
        ("q5_k_m", 576, "Q5_1"),
        ("q6_k", 576, "Q8_0"),
        ("q3_k_m", 576, "Q4_0"),
        ("iq4_xs", 576, "IQ4_NL"),
        ("q4_k_m", 80, "F16"),
        ("q8_0", 80, "F16"),
        ("q4_0", 80, "F16"),
        ("f32", 80, "F32"),
    ],
)
def test_rows_that_do_not_divide_fall_back(kind: str, columns: int, expected: str) -> None:
    assert tensor_type(kind, "blk.4.attn_q.weight", (64, columns), LLAMA) == expected
    if expected == "Q5_0":
        assert tensor_type(kind, "blk.0.attn_v.weight", (64, columns), LLAMA) == "Q8_0"
        assert tensor_type(kind, "output.weight", (64, columns), LLAMA) == "Q8_0"


def test_values_that_eight_heads_share_get_more_in_the_largest() -> None:
    large = Shape("llama", 80, 64, 8, tied=False)
    assert tensor_type("q4_k_m", "blk.12.attn_v.weight", (64, 512), large) == "Q6_K"
    assert tensor_type("q4_k_m", "blk.13.attn_v.weight", (64, 512), large) == "Q5_K"
