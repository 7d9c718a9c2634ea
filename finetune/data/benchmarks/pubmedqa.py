"""PubMedQA: is it so, by this abstract? (Jin et al. 2019, arXiv:1909.06146); the conclusions are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finetune.data.benchmarks.benchmark import Benchmark, Fields, Split, either, exchange, has
from finetune.data.formats.contents import text_of, texts_of
from finetune.data.reading.sources import Source, read_rows
from finetune.data.rows import Content, Row
from finetune.data.splits import load_test_ids


def _read(file: str) -> Source:
    """Read the questions; the file of the official test ids, where it lies beside them, tells their split."""
    source = read_rows(file)
    official = Path(file).with_name("test_ground_truth.json")
    if not official.is_file():
        return source
    test = load_test_ids(str(official))
    rows = [replace(row, fields={**row.fields, "split": "test" if row.key in test else "train"}) for row in source.rows]
    return replace(source, rows=rows)


def _split(row: Row) -> Split | None:
    return row.fields.get("split")


def _content(fields: Fields) -> Content:
    if "question" in fields:  # the hub's copy
        fields = {"QUESTION": fields["question"], "CONTEXTS": fields["context"]["contexts"], **fields}
    passages = " ".join(texts_of(fields, "CONTEXTS", empty="empty prompt"))
    question = text_of(fields, "QUESTION", empty="empty prompt")
    answer = text_of(fields, "final_decision", empty="empty answer")
    return exchange(f"{passages}\n\nQuestion: {question}\nAnswer yes, no or maybe.", answer, label=answer)


PUBMEDQA = Benchmark(
    name="pubmedqa",
    what="yes, no or maybe, by a medical abstract without its conclusion",
    files={"": ("ori_pqal.json",)},
    fits=either(has("QUESTION", "CONTEXTS", "final_decision"), has("question", "context", "final_decision")),
    content=_content,
    scorer="label",
    hub="qiaojin/PubMedQA",
    leak_fields=("LONG_ANSWER", "long_answer", "reasoning_required_pred", "reasoning_free_pred"),
    split=_split,
    read=_read,
)
