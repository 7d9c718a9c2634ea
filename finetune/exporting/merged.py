"""Ship the merged model: fold the adapter in, save, load from disk again, prove it, and keep what proves closest."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetune.exporting.merge import (
    DEQUANTISED,
    NEAREST,
    STOCHASTIC,
    folded,
    merge_bases,
    save_merged,
    trained_model,
)
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


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make the file: which weights the adapter is folded into, and how the sum is rounded."""

    into: str
    rounding: str = NEAREST

    @property
    def folder_name(self) -> str:
        return f"{self.into}-{self.rounding}"

    def sentence(self) -> str:
        rounded = "" if self.rounding == NEAREST else ", rounded up or down by chance"
        return f"merged into the {self.into} base{rounded}"


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
    ones; where bfloat16 misses its bounds, stochastic rounding is tried as well. The file whose predictions are
    closest to the trained model's is kept.

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
    seen: list[Observation] = []
    proofs: dict[Way, Verification] = {}

    def attempt(way: Way) -> None:
        model = trained_model(recipe, base, trained_folder, into=way.into, machine=machine)
        if not seen:
            seen.append(_observe_trained(recipe, base, trained_folder, model, tokenizer, rows, stop, machine))
        folder = _aside(target, way)
        save_merged(folded(model, trained_folder), tokenizer, folder, dtype=dtype, stop=stop, rounding=way.rounding)
        del model
        gc.collect()
        proofs[way] = _prove(folder, seen[0], tokenizer, stop, bounds, machine, way)

    def closest() -> Way:
        return min(proofs, key=lambda way: proofs[way].kl)

    try:
        for into in merge_bases(recipe):
            attempt(Way(into))
        if dtype == torch.bfloat16 and not proofs[closest()].passed:
            attempt(Way(closest().into, STOCHASTIC))
        with staged_folder(target) as aside:
            for path in _aside(target, closest()).iterdir():
                path.rename(aside / path.name)
    finally:
        for folder in target.parent.glob(_aside(target, None).name):
            shutil.rmtree(folder, ignore_errors=True)
    kept = proofs[closest()]
    return replace(kept, path=str(target), note=_compared(list(proofs.values()), kept))


def _aside(target: Path, way: Way | None) -> Path:
    """Return where a try is written; without a way, the pattern of all of them."""
    return target.with_name(f".{target.name}-try-{way.folder_name if way else '*'}")


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
    way: Way,
) -> Verification:
    model = load_model(folder_base(folder), dtype=torch.float32, device=machine.device)
    return verify(
        trained,
        TransformersRuntime(model.eval(), tokenizer, name="transformers"),
        path=str(folder),
        stop=stop,
        max_kl=bounds[0],
        min_top1=bounds[1],
        note=way.sentence(),
    )


def _compared(tried: Sequence[Verification], kept: Verification) -> str:
    if len(tried) == 1:
        return ""
    return f"{kept.note} (tried: " + "; ".join(f"{proof.note}, KL {proof.kl:.1e}" for proof in tried) + ")"
