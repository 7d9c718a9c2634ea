"""LegalBench: small legal judgements, a folder a task (Guha et al. 2023, arXiv:2308.11462).

The prompt is the task's own base_prompt.txt without its worked examples. Columns vary: the answer is `label` in older
releases and `answer` in newer ones.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has, repeats
from finetune.data.formats.contents import text_of
from finetune.data.formats.conversations import RowRefused
from finetune.data.reading.sources import Source, read_rows, read_text
from finetune.data.rows import Content

_PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def _read(file: str) -> Source:
    """Read a task's rows, each with the name of its task and the task's prompt."""
    source = read_rows(file)
    written = Path(file).with_name("base_prompt.txt")
    if not written.is_file():
        return source
    blocks = re.split(r"\n[ \t]*\n", read_text(str(written)).strip())
    about = {"task": Path(file).parent.name, "prompt": "\n\n".join(dict.fromkeys((blocks[0], blocks[-1])))}
    return replace(source, rows=[replace(row, fields={**row.fields, **about}) for row in source.rows])


def _content(fields: Fields) -> Content:
    answer = text_of(fields, "answer" if "answer" in fields else "label", empty="empty answer").strip()

    def filled(place: re.Match[str]) -> str:
        return text_of(fields, place.group(1), empty="empty prompt")

    prompt = text_of(fields, "prompt", empty="empty prompt")
    if not _PLACE.search(prompt):
        raise RowRefused("no place for the text", "the task's base_prompt.txt ends in no block with {{text}}")
    return exchange(_PLACE.sub(filled, prompt), answer, label=answer, task=fields.get("task"))


LEGALBENCH = Benchmark(
    name="legalbench",
    what="legal judgements, one task a folder",
    files={"train": ("**/train.tsv", "**/train_head.tsv"), "test": ("**/test.tsv",)},
    fits=has("task", "prompt", also=lambda fields: "label" in fields or "answer" in fields),
    content=_content,
    scorer="balanced",
    read=_read,
    check=repeats("task", "text"),
)
