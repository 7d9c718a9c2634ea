"""Base models and their tokenizers, and which weights of them learn."""

from finetune.models.adapters import Trainable, attach, attach_trained, check_method, count_trainable
from finetune.models.base import Base, folder_base, load_model, load_tokenizer, quantization, resolve_base

__all__ = [
    "Base",
    "Trainable",
    "attach",
    "attach_trained",
    "check_method",
    "count_trainable",
    "folder_base",
    "load_model",
    "load_tokenizer",
    "quantization",
    "resolve_base",
]
