"""CLINC150: what a user wants, out of 150 intents, or none of them (Larson et al. 2019, arXiv:1909.02027)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from finetune.data.benchmarks.benchmark import Benchmark, Fields, Split, exchange, has, json_beside
from finetune.data.formats.contents import text_of
from finetune.data.formats.conversations import RowRefused
from finetune.data.reading.sources import Source, read_rows
from finetune.data.rows import Content, Origin, Rejected, Row
from finetune.errors import FinetuneError

_SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}


def _read(file: str) -> Source:
    """Read the one JSON object of lists of [text, intent], under `train`, `val`, `test` and `oos_` before each."""
    if not file.endswith(".json"):
        return read_rows(file)
    document = json_beside(file)
    if not isinstance(document, dict) or not all(isinstance(pairs, list) for pairs in document.values()):
        raise FinetuneError("no object of lists of [text, intent]", where=file, fix="fetch CLINC's data_full.json")
    rows: list[Row] = []
    rejected: list[Rejected] = []
    for part, pairs in document.items():
        for number, pair in enumerate(pairs, 1):
            if isinstance(pair, list) and len(pair) == 2:
                fields = {"text": pair[0], "intent": pair[1], "split": part.removeprefix("oos_")}
                rows.append(Row(Origin(file, 0), fields, key=f"{part}:{number}"))
            else:
                rejected.append(
                    Rejected(Origin(file, 0), "no text and intent", f"item {number} of {part!r} is {pair!r}")
                )
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return Source(rows, rejected, {file: digest}, "JSON object of lists")


def _split(row: Row) -> Split | None:
    return _SPLITS.get(str(row.fields.get("split")))


def _fits(records: Sequence[Fields]) -> bool:
    return has("text", "intent")(records) and any("split" in fields or _known(fields["intent"]) for fields in records)


def _known(intent: object) -> bool:
    return intent in {"oos", "translate", "transfer", "exchange_rate", "yes", "timezone", "calories", "smart_home"}


def _content(fields: Fields) -> Content:
    if isinstance(fields["intent"], int):
        raise RowRefused("intent without its name", f"column 'intent' is {fields['intent']!r}, a number of the hub's")
    intent = text_of(fields, "intent", empty="empty answer")
    message = text_of(fields, "text", empty="empty prompt")
    ask = "Name the intent of the user's message; say oos if it has none of the known ones."
    return exchange(f"{ask}\n\n{message}", intent, label=intent)


CLINC = Benchmark(
    name="clinc",
    what="150 intents in ten domains, and messages that have none of them",
    files={"": ("data_full.json",)},
    fits=_fits,
    content=_content,
    scorer="label",
    hub="clinc/clinc_oos",
    split=_split,
    read=_read,
)
