"""MTS-Dialog: a doctor's talk with a patient, and the section of the note on it (Ben Abacha et al. 2023)."""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content


def _content(fields: Fields) -> Content:
    dialogue = text_of(fields, "dialogue", empty="empty prompt")
    header = text_of(fields, "section_header", empty="empty prompt")
    prompt = f"{dialogue}\n\nWrite the section {header} of the clinical note on this conversation."
    return exchange(prompt, text_of(fields, "section_text", empty="empty answer"))


MTS_DIALOG = Benchmark(
    name="mts_dialog",
    what="sections of clinical notes, written from conversations",
    files={
        "train": ("MTS-Dialog-TrainingSet.csv",),
        "validation": ("MTS-Dialog-ValidationSet.csv",),
        "test": ("MTS-Dialog-TestSet-*.csv",),
    },
    fits=has("ID", "section_header", "section_text", "dialogue"),
    content=_content,
    scorer="rouge_l",
    hub="har1/MTS_Dialogue-Clinical_Note",
)
