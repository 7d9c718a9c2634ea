"""Exporting: files to ship, each one loaded again and compared with the trained model."""

from finetune.exporting.card import card_markdown
from finetune.exporting.llama_file import export_gguf, prove_file
from finetune.exporting.merged import export_merged, prove_folder
from finetune.exporting.ollama import export_ollama, prove_modelfile
from finetune.exporting.trained import Trained, conversations_of
from finetune.exporting.verify import ProofRow, Verification, verify

__all__ = [
    "ProofRow",
    "Trained",
    "Verification",
    "card_markdown",
    "conversations_of",
    "export_gguf",
    "export_merged",
    "export_ollama",
    "prove_file",
    "prove_folder",
    "prove_modelfile",
    "verify",
]
