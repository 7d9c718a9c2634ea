"""TAT-QA: questions over a table of a financial report and its paragraphs (Zhu et al. 2021, arXiv:2105.07624).

An answer of several spans is one span a line; a scale (thousand, million, percent) stands after a number.
"""

from __future__ import annotations

from collections.abc import Iterator

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has
from finetune.data.formats.contents import text_of, texts_of
from finetune.data.rows import Content, Rejected, Row

_ASK = "Answer shortly, several spans one a line, a number with its scale (thousand, million, billion, percent) if any."


def _rows(record: Row) -> Iterator[Row | Rejected]:
    """Make a row of each question, with its table and paragraphs."""
    paragraphs = sorted(record.fields["paragraphs"], key=lambda paragraph: int(paragraph["order"]))
    shared = {
        "document": record.fields["table"]["uid"],
        "table": "\n".join(" | ".join(map(str, cells)) for cells in record.fields["table"]["table"]),
        "paragraphs": "\n".join(paragraph["text"] for paragraph in paragraphs),
    }
    questions = record.fields["questions"]
    if not questions:
        yield Rejected(record.origin, "no questions", "the table has no questions")
    for question in questions:
        yield Row(record.origin, {**shared, **question}, key=question["uid"])


def _content(fields: Fields) -> Content:
    question = text_of(fields, "question", empty="empty prompt")
    spans = texts_of(fields, "answer", empty="empty answer")
    scale = f" {fields['scale']}" if fields.get("scale") else ""
    prompt = f"{fields['paragraphs']}\n\n{fields['table']}\n\nQuestion: {question}\n{_ASK}"
    return exchange(prompt, "\n".join(span + scale for span in spans))


TATQA = Benchmark(
    name="tatqa",
    what="questions over a financial table and its paragraphs",
    files={
        "train": ("tatqa_dataset_train.json",),
        "validation": ("tatqa_dataset_dev.json",),
        "test": ("tatqa_dataset_test_gold.json",),
    },
    fits=has("table", "paragraphs", "questions"),
    content=_content,
    scorer="tatqa",
    hub="next-tat/TAT-QA",
    leak_fields=("derivation", "answer_type", "answer_from", "rel_paragraphs", "facts", "mappings", "tree_derivation"),
    group="document",
    rows=_rows,
)
