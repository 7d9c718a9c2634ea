"""A first recipe for somebody's data: `finetune init` recognises the format and writes its decisions with reasons."""

from __future__ import annotations

import glob
from pathlib import Path

import yaml

from finetune.data.formats import to_examples
from finetune.data.prepare import require_rows
from finetune.data.recognise import recognise
from finetune.data.sources import read_rows
from finetune.errors import FinetuneError
from finetune.recipe import DataSection
from finetune.rundir import write_text

# Words a token holds in English prose, on the low side
CHARACTERS_PER_TOKEN = 3.0
# Raw text is cut anyway: pieces that every base model has the context for
LONGEST_PIECE = 1024


def write_starter(data: str, base: str, target: Path) -> str:
    """Write a recipe for the rows in `data`.

    Args:
        data: a file or a glob.
        base: the base model.
        target: the recipe's file; it must not exist.

    Returns:
        What was recognised and why, in a sentence.

    Raises:
        FinetuneError: the data cannot be read or recognised, or `target` exists.
    """
    if target.exists():
        raise FinetuneError("this file exists already", where=str(target), fix="give another name with --out")
    source = read_rows(data, where="--data")
    section = DataSection(train=data)
    require_rows(source.rows, source.rejected)
    recognition = recognise(source.rows, section, where="--data")
    examples, refused = to_examples(source.rows, recognition, section)
    rejected = [*source.rejected, *refused]
    require_rows(examples, rejected)
    pretrain = recognition.format == "text"
    longest = max(len(example.everything_said()) for example in examples) / CHARACTERS_PER_TOKEN
    length = min(_round_up(longest), LONGEST_PIECE) if pretrain else _round_up(longest)
    longer = "; longer texts are cut into pieces" if pretrain else ""
    lines = [
        f"# {len(examples):,} rows of {Path(data).name}, read as {recognition.format}: {recognition.why}",
        *([f"# {len(rejected):,} rows cannot be used as they are; `finetune check` names them"] if rejected else []),
        "model:",
        f"  base: {_scalar(_place(base, target))}",
        "data:",
        f"  train: {_scalar(_place(data, target))}",
        f"  format: {recognition.format}",
        *(["  columns: " + _flow(recognition.columns)] if recognition.columns else []),
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
    is_path = glob.has_magic(name) or Path(name).exists()
    if name.startswith(("hub:", "package:")) or not is_path:
        return name
    path, folder = Path(name).resolve(), target.resolve().parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


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
