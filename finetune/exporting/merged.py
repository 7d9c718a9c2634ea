"""Ship the merged model: fold the adapter in, save, load from disk again, prove it, and keep what proves closest."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finetune.exporting.bounds import FOLDERS
from finetune.exporting.merge import (
    DEQUANTISED,
    NEAREST,
    ORIGINAL,
    STOCHASTIC,
    folded,
    merge_bases,
    save_merged,
    trained_model,
)
from finetune.exporting.prompts import compare_folder, missing_stops
from finetune.exporting.trained import Trained
from finetune.exporting.verify import Verification, verify
from finetune.hardware import resolve_dtype
from finetune.models import folder_base, load_model, load_tokenizer
from finetune.recipe.schema import MergedExport
from finetune.rundir import staged_folder
from finetune.runtimes import TransformersRuntime


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


def export_merged(section: MergedExport, trained: Trained, target: Path) -> Verification:
    """Write the merged model to `target` and prove it.

    For a quantised base both ways of merging are tried, into the weights that training saw and into the original
    ones, and the closer one is kept. bfloat16 that misses its bounds is rounded by chance as well.

    Args:
        section: number format and bounds.
        trained: what was trained.
        target: the folder to write.

    Raises:
        FinetuneError: it cannot be merged or written, or predicts NaN.
    """
    recipe = trained.recipe
    dtype = resolve_dtype(recipe.model.dtype if section.dtype == "auto" else section.dtype, trained.machine)
    usual = FOLDERS[str(dtype).removeprefix("torch.")]
    bounds = (section.max_kl or usual.max_kl, section.min_top1 or usual.min_top1)
    proofs: dict[Way, Verification] = {}

    def attempt(way: Way) -> None:
        model = trained_model(recipe, trained.base, trained.folder, into=way.into, machine=trained.machine)
        if not trained.is_observed and merge_bases(recipe)[0] != DEQUANTISED:
            trained.observe(model)
        folder, tokenizer = _aside(target, way), trained.tokenizer
        merged = folded(model, trained.folder)
        save_merged(merged, tokenizer, folder, dtype=dtype, stop=trained.stop, rounding=way.rounding, base=trained.base)
        del model, merged
        gc.collect()
        proofs[way] = prove_folder(folder, trained, bounds, note=way.sentence())

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


def prove_folder(folder: Path, trained: Trained, bounds: tuple[float, float], *, note: str = "") -> Verification:
    """Compare a model folder, loaded from disk in transformers, with what was trained.

    Args:
        folder: the exported folder.
        trained: what was trained.
        bounds: for the mean KL and for the share of equal likeliest tokens.
        note: added to the report.

    Raises:
        FinetuneError: the folder cannot be loaded, or predicts NaN.
    """
    seen, shipped = trained.observed, folder_base(folder)
    tokenizer, _ = load_tokenizer(shipped, conversations=any(one.messages for one in trained.conversations))
    started = time.perf_counter()
    model = load_model(shipped, dtype=torch.float32, device=trained.machine.device)
    load_seconds = time.perf_counter() - started
    proof = verify(
        seen,
        TransformersRuntime(model.eval(), tokenizer, name="transformers"),
        path=str(folder),
        stop=trained.stop,
        max_kl=bounds[0],
        min_top1=bounds[1],
        note=note,
    )
    parity = compare_folder(trained.conversations, tokenizer, trained.renderer(tokenizer))
    stops = model.generation_config.eos_token_id
    found = missing_stops(trained.ends, stops if isinstance(stops, list) else [stops], tokenizer)
    return proof.knowing(
        prompt_parity=parity.share,
        conversations=parity.conversations,
        problems=(*parity.problems, *found),
        size=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        load_seconds=load_seconds,
    )


def _compared(tried: Sequence[Verification], kept: Verification) -> str:
    if len(tried) == 1:
        return kept.note.removeprefix(Way(ORIGINAL).sentence()).removeprefix("; ")
    return f"{kept.note} (tried: " + "; ".join(f"{proof.note}, KL {proof.kl:.1e}" for proof in tried) + ")"
