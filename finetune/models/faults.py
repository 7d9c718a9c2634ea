"""What goes wrong when transformers reads a model's files, for the errors that `base` and `gguf` raise."""

from __future__ import annotations

import struct
from typing import Any

from finetune.errors import FinetuneError


def unreadable() -> tuple[type[Exception], ...]:
    """Return the exceptions that transformers raises for files that are missing, damaged or of an unknown kind."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    damaged = ValueError, KeyError, IndexError, OverflowError, RuntimeError, struct.error
    return *damaged, OSError, ImportError, SafetensorError, StrictDataclassError


def require_all_weights(report: dict[str, Any], where: str) -> None:
    """Refuse a model that transformers would fill up with random numbers.

    Args:
        report: what `from_pretrained(output_loading_info=True)` returns beside the model.
        where: place of the value in the recipe, or the file.

    Raises:
        FinetuneError: weights are missing.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise FinetuneError(
            f"the weights lack {len(missing)} of the model's tensors, among them {missing[0]!r}",
            where=where,
            fix="fetch the model again, or use a checkpoint saved for causal language modelling",
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, and the second where the first only announces it."""
    first, *rest = (line.strip() for line in (str(error).strip() or type(error).__name__).splitlines())
    return f"{first} {rest[0]}" if rest and first.endswith(":") else first


def remedy(error: BaseException, otherwise: str = "") -> str:
    """Return what to do about an error: models that bring code of their own have one remedy for all."""
    if "custom code" in str(error):
        return "read that code, then set model.trust_remote_code: true and model.revision to its commit"
    return otherwise
