"""The files that a recipe can ask for, one section a kind: `Export` is their union, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune.recipe.section import Section

# fmt: off
Quantization = Literal[
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
    "iq4_nl", "iq4_xs", "q3_k_m",
]
# fmt: on
QUANTIZATION = (
    "Number format of the weights. f16 and bf16 keep them; q8_0 halves the file for next to nothing; q4_k_m is what "
    "phones and laptops mostly run. Rows that a format does not divide are kept in a larger one, and the true bits a "
    "weight are reported."
)
KL = (
    "Verification bound: mean KL divergence, in nats, from the trained model's predictions; unset means that of the "
    "format: float32 1e-5; float16, f32 and f16 1e-4; q8_0 1e-3; bfloat16 and bf16 2e-3; q6_k 0.01; q5 0.03; q4 0.1; "
    "q3 0.5."
)
TOP1 = (
    "Verification bound: share of positions where both predict the same token; unset means that of the format: "
    "float32 0.999; float16, f32 and f16 0.995; bfloat16, bf16 and q8_0 0.97; none for coarser ones."
)


class ProvenFile(Section):
    """What all files have in common: how near the trained model they must stay."""

    max_kl: float | None = Field(None, gt=0, description=KL)
    min_top1: float | None = Field(None, gt=0, le=1, description=TOP1)


class MergedExport(ProvenFile):
    """The adapter folded into the base: a plain safetensors folder."""

    kind: Literal["merged"] = "merged"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format of the file; `auto` means that of `model.dtype`."
    )


class LlamaCppFile(ProvenFile):
    """What files for llama.cpp have in common."""

    quantization: Quantization = Field("q8_0", description=QUANTIZATION)
    task_items: int | None = Field(
        None,
        ge=0,
        description="At most this many of the evaluation's test items are answered by the file, paired with the tuned "
        "model's answers; 0 leaves the task out, unset takes all of them.",
    )


class GgufExport(LlamaCppFile):
    """One file for llama.cpp and all that is built on it: Ollama, LM Studio, phones."""

    kind: Literal["gguf"] = "gguf"


class OllamaExport(LlamaCppFile):
    """A folder for `ollama create`: a GGUF file and a Modelfile whose template is proven to be the model's own."""

    kind: Literal["ollama"] = "ollama"
    num_ctx: int | None = Field(
        None, ge=16, description="Context in tokens; unset means that of the model, 8192 at the most."
    )
    temperature: float = Field(0.0, ge=0, description="How much chance there is in an answer; 0 is what was verified.")


Export = Annotated[MergedExport | GgufExport | OllamaExport, Field(discriminator="kind")]
