"""MedMCQA: questions of Indian medical entrance examinations (Pal et al. 2022, arXiv:2203.14371).

The original counts the right option from 1, the hub's copy from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from finetune.data.benchmarks.benchmark import Benchmark, Fields, Split, by_hash, choose, has
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content, Row

_OPTIONS = ("opa", "opb", "opc", "opd")


def _rows(record: Row) -> Iterator[Row]:
    """Count the right option from 0."""
    right = record.fields["cop"]
    hub = record.origin.file.startswith("hub:") or record.origin.file.endswith(".parquet")
    yield replace(record, fields={**record.fields, "right": right if hub or not isinstance(right, int) else right - 1})


def _split(row: Row) -> Split:
    return by_hash(str(row.fields["id"]))


def _content(fields: Fields) -> Content:
    options = [text_of(fields, name, empty="empty prompt") for name in _OPTIONS]
    return choose(text_of(fields, "question", empty="empty prompt"), options, fields["right"])


MEDMCQA = Benchmark(
    name="medmcqa",
    what="multiple choice from medical entrance examinations",
    files={"train": ("train.json",), "test": ("dev.json",)},
    fits=has("question", "cop", "id", *_OPTIONS),
    content=_content,
    scorer="choice",
    hub="openlifescienceai/medmcqa",
    leak_fields=("exp",),
    split=_split,
    rows=_rows,
)
