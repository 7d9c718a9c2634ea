"""A LoRA adapter alone as a GGUF file, put on a base while it runs: `convert_adapter(adapter, base, target)`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune.errors import FinetuneError, Problem
from finetune.exporting.gguf import writing
from finetune.exporting.gguf.families import Family, family_of
from finetune.exporting.gguf.weights import Weights
from finetune.hardware import require_disk
from finetune.rundir import staged_file

ADAPTER = "adapter_model.safetensors"
PART = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one module, and what their product is multiplied by."""

    module: str
    down: str
    up: str
    scale: float


def convert_adapter(adapter_folder: Path, base_folder: Path, target: Path) -> writing.GgufFile:
    """Turn a LoRA adapter into a GGUF adapter in float32.

    Args:
        adapter_folder: as PEFT's `save_pretrained` writes it.
        base_folder: the model that it was trained on; its shapes are compared.
        target: the file to write, whole or not at all.

    Raises:
        FinetuneError: more than a plain LoRA, another base, or no space.
    """
    writing.require_gguf()
    settings = _settings(adapter_folder)
    config = writing.read_config(base_folder)
    family = family_of(config, where=str(base_folder))
    weights = Weights(adapter_folder, single=ADAPTER)
    pairs = _pairs(weights, settings, config)
    _require_base(pairs, weights, Weights(base_folder), adapter_folder, base_folder)
    alpha = float(settings["lora_alpha"])
    tensors = _plan(pairs, weights, alpha, config, family)
    require_disk(target.parent, sum(tensor.size for tensor in tensors), "the adapter")
    with staged_file(target) as aside:
        writer = writing.new_writer(aside, family.arch)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        writing.write_tensors(writer, tensors, "f32", where=str(adapter_folder))
        size = aside.stat().st_size
    return writing.summary(target, "f32", size, tensors)


def _settings(folder: Path) -> Mapping[str, Any]:
    """Read adapter_config.json and refuse what a GGUF adapter cannot hold, all at once."""
    file = folder / "adapter_config.json"
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinetuneError(
            f"there is no adapter here that could be read: {error}", where=str(file), fix="give a run's adapter folder"
        ) from error
    unsupported = {
        f"the method {settings.get('peft_type')!r}": settings.get("peft_type") != "LORA",
        "DoRA": settings.get("use_dora"),
        f"whole modules (modules_to_save {settings.get('modules_to_save')})": settings.get("modules_to_save"),
        "trained rows of the embedding (trainable_token_indices)": settings.get("trainable_token_indices"),
        f"biases (bias {settings.get('bias')!r})": settings.get("bias", "none") != "none",
        "biases (lora_bias)": settings.get("lora_bias"),
        "a transposed base (fan_in_fan_out)": settings.get("fan_in_fan_out"),
    }
    problems = [
        Problem(str(file), f"a GGUF adapter cannot hold {what}", "export the merged model as GGUF instead")
        for what, found in unsupported.items()
        if found
    ]
    if problems:
        raise FinetuneError.of(problems)
    return settings


def _pairs(weights: Weights, settings: Mapping[str, Any], config: Any) -> list[Pair]:
    parts: dict[str, dict[str, str]] = {}
    for name in weights.shapes:
        found = PART.fullmatch(name)
        if found is None or (found["module"] == "lm_head" and config.tie_word_embeddings):
            raise FinetuneError(
                f"a GGUF adapter cannot hold {name!r}",
                where=str(weights.files[name]),
                fix="export the merged model as GGUF instead",
            )
        parts.setdefault(found["module"], {})[found["side"]] = name
    return [
        Pair(module, sides["A"], sides["B"], _scale(module, weights.shapes[sides["A"]][0], settings))
        for module, sides in parts.items()
        if len(sides) == 2 or _half(module, weights.folder)
    ]


def _half(module: str, folder: Path) -> bool:
    raise FinetuneError(
        f"the adapter has only one of the two matrices of {module!r}", where=str(folder), fix="train or fetch it again"
    )


def _scale(module: str, rank: int, settings: Mapping[str, Any]) -> float:
    """What PEFT multiplies this module's product by: alpha over the rank, or over its root (rsLoRA)."""
    alpha = settings["lora_alpha"]
    for pattern, own in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = own
            break
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _require_base(pairs: list[Pair], adapter: Weights, base: Weights, adapter_folder: Path, base_folder: Path) -> None:
    for pair in pairs:
        shape = base.shapes.get(f"{pair.module}.weight")
        own = (adapter.shapes[pair.up][0], adapter.shapes[pair.down][1])
        if shape != own:
            found = "has none" if shape is None else f"has one of {shape}"
            raise FinetuneError(
                f"the adapter changes {pair.module!r} of shape {own}, the base {found}",
                where=str(adapter_folder),
                fix=f"is {base_folder.name!r} the base that it was trained on?",
            )


def _plan(pairs: list[Pair], weights: Weights, alpha: float, config: Any, family: Family) -> list[writing.Tensor]:
    names = writing.tensor_names(family, config.num_hidden_layers)
    planned = []
    for pair in pairs:
        name = names(f"{pair.module}.weight")
        if name is None:
            raise FinetuneError(
                f"the module {pair.module!r} has no place in a GGUF file of {family.arch}", where=str(weights.folder)
            )
        # llama.cpp multiplies by alpha over each pair's rank; what PEFT does otherwise goes into the second matrix
        factor = pair.scale * weights.shapes[pair.down][0] / alpha
        heads = writing.paired_heads(f"{pair.module}.weight", config, family)
        planned += [
            writing.Tensor(
                f"{name}.lora_a", weights.shapes[pair.down], "F32", partial(_read, weights, pair.down, 1.0, 0)
            ),
            writing.Tensor(
                f"{name}.lora_b", weights.shapes[pair.up], "F32", partial(_read, weights, pair.up, factor, heads)
            ),
        ]
    return planned


def _read(weights: Weights, name: str, factor: float, heads: int) -> Any:
    rows = weights.whole(name).to(torch.float32) * factor
    yield writing.paired(rows, heads) if heads else rows
