"""Ship the merged model: fold the adapter in, save, load from disk again, prove it, and keep what proves closest."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune.exporting.merge import DEQUANTISED, folded, merge_bases, save_merged, trained_model
from finetune.exporting.verify import Observation, ProofRow, Verification, observe, verify
from finetune.hardware import Machine, resolve_dtype
from finetune.models import Base, attach_trained, folder_base, load_model, quantization
from finetune.recipe.schema import MergedExport, Recipe
from finetune.rundir import staged_folder
from finetune.runtimes import TransformersRuntime

# Mean KL and share of equal likeliest tokens that a number format must keep. Both models compute in float32, so that
# the weights are compared and not the noise of the arithmetic (bfloat16's alone is a KL of 1.6e-3). Measured with
# SmolLM2-135M, LoRA, 1,000 positions: float32 5e-8 and 100 %, float16 1.4e-6 and 99.9 %, bfloat16 2.1e-4 and 98.7 %.
BOUNDS = {torch.float32: (1e-5, 0.999), torch.float16: (1e-4, 0.995), torch.bfloat16: (2e-3, 0.97)}


def export_merged(
    recipe: Recipe,
    section: MergedExport,
    *,
    base: Base,
    trained_folder: Path,
    tokenizer: Any,
    rows: Sequence[ProofRow],
    stop: Sequence[int],
    target: Path,
    machine: Machine,
) -> Verification:
    """Write the merged model to `target` and prove it.

    For a quantised base both ways of merging are tried, into the weights that training saw and into the original
    ones, and the one whose predictions are closer to the trained model's is kept.

    Args:
        recipe: the run's recipe.
        section: number format and bounds.
        base: what was tuned.
        trained_folder: the run's `adapter/` or `weights/`.
        tokenizer: saved with the model.
        rows: real rows of the run.
        stop: tokens that end an answer.
        target: the folder to write.
        machine: what computes.

    Raises:
        FinetuneError: it cannot be merged or written, or predicts NaN.
    """
    dtype = resolve_dtype(recipe.model.dtype if section.dtype == "auto" else section.dtype, machine)
    kl, top1 = BOUNDS[dtype]
    bounds = (section.max_kl or kl, section.min_top1 or top1)
    trained: Observation | None = None
    proofs: dict[Path, Verification] = {}
    try:
        for into in merge_bases(recipe):
            candidate = target.with_name(f".{target.name}-{into}")
            model = trained_model(recipe, base, trained_folder, into=into, machine=machine)
            if trained is None:
                trained = _observe_trained(recipe, base, trained_folder, model, tokenizer, rows, stop, machine)
            save_merged(folded(model, trained_folder), tokenizer, candidate, dtype=dtype, stop=stop)
            del model
            gc.collect()
            proofs[candidate] = _prove(candidate, trained, tokenizer, stop, bounds, machine, into)
        kept = min(proofs, key=lambda candidate: proofs[candidate].kl)
        with staged_folder(target) as aside:
            for path in kept.iterdir():
                path.rename(aside / path.name)
    finally:
        for into in merge_bases(recipe):
            shutil.rmtree(target.with_name(f".{target.name}-{into}"), ignore_errors=True)
    return replace(proofs[kept], path=str(target), note=_compared(list(proofs.values()), proofs[kept]))


def _observe_trained(
    recipe: Recipe,
    base: Base,
    trained_folder: Path,
    model: Any,
    tokenizer: Any,
    rows: Sequence[ProofRow],
    stop: Sequence[int],
    machine: Machine,
) -> Observation:
    """Record the model as it was trained: for a quantised base that is not the one about to be merged."""
    if merge_bases(recipe)[0] == DEQUANTISED:
        quantised = load_model(
            base, dtype=torch.float32, device=machine.device, quantization=quantization(recipe.method)
        )
        model = attach_trained(quantised, trained_folder)
    return observe(TransformersRuntime(model.eval(), tokenizer, name="the trained model"), rows, stop=stop)


def _prove(
    folder: Path,
    trained: Observation,
    tokenizer: Any,
    stop: Sequence[int],
    bounds: tuple[float, float],
    machine: Machine,
    into: str,
) -> Verification:
    model = load_model(folder_base(folder), dtype=torch.float32, device=machine.device)
    return verify(
        trained,
        TransformersRuntime(model.eval(), tokenizer, name="transformers"),
        path=str(folder),
        stop=stop,
        max_kl=bounds[0],
        min_top1=bounds[1],
        note=f"merged into the {into} base",
    )


def _compared(tried: Sequence[Verification], kept: Verification) -> str:
    if len(tried) == 1:
        return ""
    return f"{kept.note} (tried: " + "; ".join(f"{proof.note}, KL {proof.kl:.1e}" for proof in tried) + ")"
