"""Fold a trained adapter into its base: a plain model folder that needs no PEFT.

The arithmetic is done in float32 and cast once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from finetune.errors import FinetuneError
from finetune.hardware import require_disk
from finetune.models import Base, attach_trained, load_model, quantization
from finetune.recipe.schema import FullMethod, QloraMethod, Recipe
from finetune.rundir import staged_folder

# Where a quantised base leaves two ways: the weights it was quantised from, or the ones that training saw
ORIGINAL, DEQUANTISED = "original", "dequantised"


def merge_bases(recipe: Recipe) -> tuple[str, ...]:
    """Return the bases that an adapter of this recipe can be folded into."""
    return (DEQUANTISED, ORIGINAL) if isinstance(recipe.method, QloraMethod) else (ORIGINAL,)


def merged_model(recipe: Recipe, base: Base, trained: Path, *, into: str, device: str) -> Any:
    """Return the merged model, in float32.

    Args:
        recipe: says the method and its quantisation.
        base: what was tuned.
        trained: the run's `adapter/` or `weights/`.
        into: one of `merge_bases`.
        device: where to compute.

    Raises:
        FinetuneError: adapter and base do not belong together, or the adapter holds NaN.
    """
    if isinstance(recipe.method, FullMethod):
        own = Base(
            name=trained.name, path=str(trained), revision=None, fingerprint="", where=str(trained),
            trust_remote_code=base.trust_remote_code,
        )  # fmt: skip
        return load_model(own, dtype=torch.float32, device=device)
    if into == DEQUANTISED:
        assert isinstance(recipe.method, QloraMethod)  # noqa: S101 - merge_bases offers it to no other method
        model = load_model(base, dtype=torch.float32, device=device, quantization=quantization(recipe.method))
        model = model.dequantize(dtype=torch.float32)
    else:
        model = load_model(base, dtype=torch.float32, device=device)
    tuned = attach_trained(model, trained)
    try:
        return tuned.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise FinetuneError(f"the adapter cannot be merged: {error}", where=str(trained)) from error


def save_merged(model: Any, tokenizer: Any, target: Path, *, dtype: torch.dtype, stop: Sequence[int]) -> None:
    """Cast a merged model and save it whole or not at all.

    Args:
        model: the merged model; cast in place.
        tokenizer: saved with its chat template.
        target: the folder to write.
        dtype: number format of the file.
        stop: tokens that end an answer; they become the model's end-of-text tokens, so that whoever serves the
            folder stops where training did.

    Raises:
        FinetuneError: no space, no permission.
    """
    width = torch.empty((), dtype=dtype).element_size()
    require_disk(target.parent, int(1.05 * width * sum(p.numel() for p in model.parameters())), "the merged model")
    model.to(dtype)
    model.config.dtype = dtype
    model.generation_config.eos_token_id = list(stop)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with staged_folder(target) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
