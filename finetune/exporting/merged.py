"""Ship the merged model: fold the adapter in, save, load from disk again, prove it, and keep what proves closest."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finetune.exporting.merge import merge_bases, merged_model, save_merged
from finetune.exporting.verify import ProofRow, Verification, verify
from finetune.hardware import Machine, resolve_dtype
from finetune.models import Base, load_model
from finetune.recipe.schema import MergedExport, Recipe
from finetune.rundir import staged_folder
from finetune.runtimes import Runtime, TransformersRuntime


def export_merged(
    recipe: Recipe,
    section: MergedExport,
    *,
    base: Base,
    trained_folder: Path,
    trained: Runtime,
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
        trained: the trained model, answering.
        tokenizer: saved with the model.
        rows: real rows of the run.
        stop: tokens that end an answer.
        target: the folder to write.
        machine: what computes.

    Raises:
        FinetuneError: it cannot be merged or written.
    """
    dtype = resolve_dtype(recipe.model.dtype if section.dtype == "auto" else section.dtype, machine)
    proofs: dict[Path, Verification] = {}
    for into in merge_bases(recipe):
        candidate = target.with_name(f".{target.name}-{into}")
        model = merged_model(recipe, base, trained_folder, into=into, device=machine.device)
        save_merged(model, tokenizer, candidate, dtype=dtype, stop=stop)
        del model
        gc.collect()
        proofs[candidate] = _prove(candidate, recipe, section, trained, tokenizer, rows, stop, machine, into)
    kept = min(proofs, key=lambda candidate: proofs[candidate].kl)
    note = "; ".join(f"{proof.note}: KL {proof.kl:.1e}" for proof in proofs.values()) if len(proofs) > 1 else ""
    with staged_folder(target) as aside:
        for path in kept.iterdir():
            path.rename(aside / path.name)
    for candidate in proofs:
        shutil.rmtree(candidate)
    return replace(proofs[kept], path=str(target), note=f"{proofs[kept].note} ({note})" if note else "")


def _prove(
    folder: Path,
    recipe: Recipe,
    section: MergedExport,
    trained: Runtime,
    tokenizer: Any,
    rows: Sequence[ProofRow],
    stop: Sequence[int],
    machine: Machine,
    into: str,
) -> Verification:
    shipped = load_runtime(folder, tokenizer, machine, resolve_dtype(recipe.model.dtype, machine))
    return verify(
        trained,
        shipped,
        rows,
        path=str(folder),
        stop=stop,
        max_kl=section.max_kl,
        min_top1=section.min_top1,
        note=f"merged into the {into} base",
    )


def load_runtime(folder: Path, tokenizer: Any, machine: Machine, dtype: torch.dtype) -> TransformersRuntime:
    """Load a merged folder from disk as whoever serves it would."""
    own = Base(name=folder.name, path=str(folder), revision=None, fingerprint="", where=str(folder))
    model = load_model(own, dtype=dtype, device=machine.device)
    return TransformersRuntime(model.eval(), tokenizer, name="transformers")
