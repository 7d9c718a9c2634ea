"""MMLU: multiple choice in 57 subjects (Hendrycks et al. 2021, arXiv:2009.03300), as CSV without a header."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from finetune.data.benchmarks.benchmark import Benchmark, Fields, choose, either, has
from finetune.data.formats.contents import text_of, texts_of
from finetune.data.reading.sources import Source, read_rows
from finetune.data.rows import Content

_COLUMNS = ("question", "A", "B", "C", "D", "letter")


def _read(file: str) -> Source:
    """Read a CSV and name its six columns; the subject is in the file's name."""
    if not file.endswith(".csv"):
        return read_rows(file)
    subject = re.sub(r"_(test|val|dev)$", "", Path(file).stem).replace("_", " ")
    source = read_rows(file, header=False)
    rows = [
        replace(row, fields={**dict(zip(_COLUMNS, row.fields.values(), strict=False)), "subject": subject})
        for row in source.rows
    ]
    return replace(source, rows=rows, notes=())


def _content(fields: Fields) -> Content:
    question = text_of(fields, "question", empty="empty prompt")
    if "choices" in fields:  # the hub's copy
        return choose(question, texts_of(fields, "choices", empty="empty prompt"), fields["answer"])
    options = [text_of(fields, name, empty="empty prompt") for name in "ABCD"]
    letter = text_of(fields, "letter", empty="empty answer").strip()
    return choose(question, options, ascii_uppercase.find(letter) if len(letter) == 1 else letter)


MMLU = Benchmark(
    name="mmlu",
    what="multiple choice in one or more of 57 subjects",
    files={
        "train": ("**/auxiliary_train/*.csv", "**/*_dev.csv"),
        "validation": ("**/*_val.csv",),
        "test": ("**/*_test.csv",),
    },
    fits=either(
        has("letter", also=lambda fields: fields["letter"] in ("A", "B", "C", "D")),
        has("question", "subject", "choices", "answer"),
    ),
    content=_content,
    scorer="choice",
    hub="cais/mmlu",
    read=_read,
)
