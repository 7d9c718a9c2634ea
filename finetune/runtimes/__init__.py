"""Whoever answers: models behind one small protocol, so that evaluation, export proofs and chat need not know which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.runtimes.endpoint import Bill, EndpointRuntime, Reply, remarks
from finetune.runtimes.llama_cpp import LlamaCppRuntime
from finetune.runtimes.protocol import Generation, Runtime

if TYPE_CHECKING:
    from finetune.runtimes.transformers_runtime import TransformersRuntime

__all__ = [
    "Bill",
    "EndpointRuntime",
    "Generation",
    "LlamaCppRuntime",
    "Reply",
    "Runtime",
    "TransformersRuntime",
    "remarks",
]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds, and transformers warns as it is imported
    if name == "TransformersRuntime":
        from finetune.runtimes.transformers_runtime import TransformersRuntime

        return TransformersRuntime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
