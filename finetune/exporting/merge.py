"""Fold a trained adapter into its base: a plain model folder that needs no PEFT.

The arithmetic is done in float32 and cast once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from finetune.errors import FinetuneError
from finetune.hardware import Machine, require_disk, resolve_dtype
from finetune.models import Base, attach_trained, folder_base, load_model, quantization
from finetune.recipe.schema import FullMethod, QloraMethod, Recipe
from finetune.rundir import staged_folder

# Where a quantised base leaves two ways: the weights it was quantised from, or the ones that training saw
ORIGINAL, DEQUANTISED = "original", "dequantised"


def merge_bases(recipe: Recipe) -> tuple[str, ...]:
    """Return the bases that an adapter of this recipe can be folded into."""
    return (DEQUANTISED, ORIGINAL) if isinstance(recipe.method, QloraMethod) else (ORIGINAL,)


def trained_model(recipe: Recipe, base: Base, trained: Path, *, into: str, machine: Machine) -> Any:
    """Return the trained model with the arithmetic in float32: a PeftModel, or with `full` the trained weights.

    The frozen weights are those that training saw, rounded to its number format: measured with SmolLM2-135M and
    LoRA, merging into the unrounded ones costs a mean KL of 8e-5 nats, into these 5e-8.

    Args:
        recipe: says the method, its quantisation and the number format.
        base: what was tuned.
        trained: the run's `adapter/` or `weights/`.
        into: one of `merge_bases`.
        machine: where to compute.

    Raises:
        FinetuneError: adapter and base do not belong together.
    """
    if isinstance(recipe.method, FullMethod):
        return load_model(folder_base(trained), dtype=torch.float32, device=machine.device)
    if into == DEQUANTISED:
        model = load_model(
            base, dtype=torch.float32, device=machine.device, quantization=quantization(recipe.method)
        ).dequantize(dtype=torch.float32)
    else:
        dtype = resolve_dtype(recipe.model.dtype, machine)
        model = load_model(base, dtype=dtype, device=machine.device).float()
    return attach_trained(model, trained)


def folded(model: Any, trained: Path) -> Any:
    """Fold the adapter into a trained model's weights; a model without one is returned as it is.

    Raises:
        FinetuneError: the adapter holds NaN.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    try:
        return model.merge_and_unload(safe_merge=True)
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
