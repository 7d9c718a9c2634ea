"""Whoever answers: models behind one small protocol, so that evaluation, export proofs and chat need not know which."""

from finetune.runtimes.endpoint import Bill, EndpointRuntime, Reply, remarks
from finetune.runtimes.llama_cpp import LlamaCppRuntime
from finetune.runtimes.protocol import Generation, Runtime
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
