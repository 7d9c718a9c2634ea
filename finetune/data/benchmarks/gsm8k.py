"""GSM8K: grade-school mathematics in words (Cobbe et al. 2021, arXiv:2110.14168); the answer stands after `####`."""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Fields, exchange, has
from finetune.data.formats.contents import text_of
from finetune.data.rows import Content


def _content(fields: Fields) -> Content:
    return exchange(text_of(fields, "question", empty="empty prompt"), text_of(fields, "answer", empty="empty answer"))


GSM8K = Benchmark(
    name="gsm8k",
    what="grade-school mathematics; the number after #### is the answer",
    files={"train": ("train.jsonl",), "test": ("test.jsonl",)},
    fits=has("question", "answer", also=lambda fields: "\n#### " in str(fields["answer"])),
    content=_content,
    scorer="number",
    hub="openai/gsm8k",
)
