"""MedQuAD: questions of patients with answers of the NIH's pages, an XML file a topic (Ben Abacha et al. 2019).

Folders whose answers were taken out for copyright have empty ones; those rows are refused and counted.
"""

from __future__ import annotations

from dataclasses import replace

from finetune.data.benchmarks.benchmark import Benchmark, Fields, Split, by_hash, either, exchange, has
from finetune.data.formats.contents import text_of
from finetune.data.reading.sources import Source, read_rows, read_text
from finetune.data.rows import Content, Row


def _read(file: str) -> Source:
    """Read one document: a row a question, with the names of the hub's copy."""
    if not file.endswith(".xml"):
        return read_rows(file)
    top = "DiseaseFile" if "<DiseaseFile " in read_text(file) else "Document"  # one file of the CDC's is named so
    source = read_rows(f"{file}::/{top}/QAPairs/QAPair")
    return replace(source, rows=[_named(row, top) for row in source.rows])


def _named(row: Row, top: str) -> Row:
    given = row.fields
    document = f"{given.get(f'{top}.source')}:{given.get(f'{top}.id') or given.get(f'{top}.fid')}"
    fields = {
        "question": given.get("Question"),
        "answer": given.get("Answer"),
        "question_type": given.get("Question.qtype"),
        "question_focus": given.get(f"{top}.Focus"),
        "document": document,
    }
    return replace(row, fields=fields, key=f"{document}:{given.get('pid')}")


def _split(row: Row) -> Split:
    return by_hash(str(row.fields.get("document", row.fields.get("document_id"))))


def _content(fields: Fields) -> Content:
    question = text_of(fields, "question", empty="empty prompt")
    return exchange(question, text_of(fields, "answer", empty="empty answer"))


MEDQUAD = Benchmark(
    name="medquad",
    what="questions of patients, answered by pages of the National Institutes of Health",
    files={"": ("**/*_QA*/*.xml",)},
    fits=either(has("question", "answer", "document"), has("question", "answer", "document_id", "question_focus")),
    content=_content,
    scorer="rouge_l",
    hub="lavita/MedQuAD",
    group="document",
    split=_split,
    read=_read,
)
