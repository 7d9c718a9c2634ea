"""HH-RLHF: pairs of transcripts, the better one and the worse one (Bai et al. 2022, arXiv:2204.05862).

Its authors meant it for preferences, not for learning to talk. Rows without a place of their own in a split are
divided by the SHA-1 of their prompt.
"""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Split, by_hash, has
from finetune.data.formats.preferences import preference_converter
from finetune.data.rows import Row
from finetune.recipe.schema import DataSection

_START = "\n\nHuman:"


def _split(row: Row) -> Split:
    return by_hash(str(row.fields["chosen"]).rpartition("\n\nAssistant:")[0])


HH_RLHF = Benchmark(
    name="hh_rlhf",
    what="transcripts with a better and a worse last answer",
    files={"train": ("**/train.jsonl.gz",), "test": ("**/test.jsonl.gz",)},
    fits=has(
        "chosen",
        "rejected",
        also=lambda fields: all(str(fields[side]).startswith(_START) for side in ("chosen", "rejected")),
    ),
    content=preference_converter({"chosen": "chosen", "rejected": "rejected"}, DataSection(train=".")),
    scorer="auto",
    hub="Anthropic/hh-rlhf",
    split=_split,
)
