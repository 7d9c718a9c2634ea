"""GGUF files for llama.cpp: `convert(folder, target, kind="q8_0")` turns a merged model folder into one file."""

from finetune.exporting.gguf.lora import convert_adapter
from finetune.exporting.gguf.mixes import KINDS
from finetune.exporting.gguf.writing import GgufFile, convert

__all__ = ["KINDS", "GgufFile", "convert", "convert_adapter"]
