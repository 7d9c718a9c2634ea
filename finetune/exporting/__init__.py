"""Exporting: files to ship, each one loaded again and compared with the trained model."""

from finetune.exporting.card import card_markdown
from finetune.exporting.merged import export_merged
from finetune.exporting.verify import ProofRow, Verification, verify

__all__ = ["ProofRow", "Verification", "card_markdown", "export_merged", "verify"]
