"""A first recipe for somebody's data: `finetune init` recognises the format and writes its decisions with reasons."""

from __future__ import annotations

import glob
from dataclasses import replace
from pathlib import Path

import yaml

from finetune.data.formats.recognise import RAW_FORMATS
from finetune.data.mixtures import read_source
from finetune.errors import FinetuneError
from finetune.recipe import DataSection
from finetune.recipe.data_names import split_name
from finetune.rundir import write_text

# Words a token holds in English prose, on the low side
CHARACTERS_PER_TOKEN = 3.0
# Raw text is cut anyway: pieces that every base model has the context for
LONGEST_PIECE = 1024


def write_starter(data: str, base: str, target: Path) -> str:
    """Write a recipe for the rows in `data`.

    Args:
        data: a file, a folder or a glob, as under `data.train`.
        base: the base model.
        target: the recipe's file; it must not exist.

    Returns:
        What was recognised and why, in a sentence.

    Raises:
        FinetuneError: the data cannot be read or recognised, or `target` exists.
    """
    if target.exists():
        raise FinetuneError("this file exists already", where=str(target), fix="give another name with --out")
    part = read_source(DataSection(train=data), where="--data")
    recognition, unused = part.recognition, len(part.dropped)
    examples = [example for found in part.examples.values() for example in found]
    pretrain = recognition.format in RAW_FORMATS
    longest = max(len(example.everything_said()) for example in examples) / CHARACTERS_PER_TOKEN
    length = min(_round_up(longest), LONGEST_PIECE) if pretrain else _round_up(longest)
    longer = "; longer texts are cut into pieces" if pretrain else ""
    lines = [
        f"# {len(examples):,} rows of {Path(data).name}, read as {recognition.format}: {recognition.why}",
        *([f"# {unused:,} rows cannot be used as they are; `finetune check` names them"] if unused else []),
        *(f"# {' '.join(note.what.split())}" for note in recognition.notes),
        "model:",
        f"  base: {_scalar(_place(base, target))}",
        "data:",
        f"  train: {_scalar(_place(data, target))}",
        f"  format: {recognition.format}",
        *(["  columns: " + _flow(recognition.columns)] if recognition.columns else []),
        *([f"  answer_is: {recognition.decided['answer_is']}"] if "answer_is" in recognition.decided else []),
        f"  max_length: {length}  # the longest row has about {int(longest):,} tokens{longer}",
        *(["objective: {kind: pretrain}"] if pretrain else []),
        "method: {kind: lora}  # small files, little memory; qlora where the base does not fit, full with much data",
        "train:",
        "  epochs: 2  # with a validation split the best checkpoint is kept, so one too many does no harm",
        "",
    ]
    write_text(target, "\n".join(lines))
    return f"{len(examples):,} rows read as {recognition.format} ({recognition.why})"


def _place(name: str, target: Path) -> str:
    """Return a path as the recipe in `target` has to say it: from its own folder; other names stay as they are."""
    said = split_name(name)
    is_path = glob.has_magic(said.path) or Path(said.path).exists()
    if name.startswith(("hub:", "package:")) or not is_path:
        return name
    path, folder = Path(said.path).resolve(), target.resolve().parent
    return str(replace(said, path=str(path.relative_to(folder) if path.is_relative_to(folder) else path)))


def _round_up(tokens: float) -> int:
    """Return the next power of two with some room for the template, at least 256."""
    size = 256
    while size < tokens + 64:
        size *= 2
    return size


def _scalar(value: str) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).splitlines()[0]


def _flow(values: dict[str, str]) -> str:
    return yaml.safe_dump(values, default_flow_style=True, allow_unicode=True, width=10_000).strip()
