"""Rows of a data set on the Hugging Face hub, or of its copy in the local cache: `read_hub("hub:OWNER/NAME")`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.data.reading.json_values import checked_row
from finetune.data.reading.records import Records
from finetune.data.rows import Origin, Rejected, Row
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from datasets import Dataset

_HUB = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<config>[^:@]+))?(?::(?P<split>[^:@]+))?")


class Fingerprint:
    """The hash of rows as they go by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, fields: dict[str, Any]) -> None:
        self._digest.update(json.dumps(fields, sort_keys=True, default=str).encode())

    def sha256(self) -> str:
        return self._digest.hexdigest()


def read_hub(spec: str) -> tuple[Records, Fingerprint]:
    """Read a data set of the hub.

    Args:
        spec: `hub:OWNER/NAME` with optional `@config` and `:split`.

    Returns:
        the records, and their hash, which is whole when all have been gone through.

    Raises:
        FinetuneError: the name is none, the data set cannot be loaded, or has no such split or no rows.
    """
    found = _HUB.fullmatch(spec)
    if found is None:
        raise FinetuneError(f"not a hub data set: {spec!r}", fix="write hub:OWNER/NAME, hub:OWNER/NAME@CONFIG:SPLIT")
    data, split = _load(spec, *found.group("name", "config", "split"))
    fingerprint = Fingerprint()
    return Records(container=f"hub data set, split {split!r}", items=_rows(spec, data, fingerprint)), fingerprint


def _rows(spec: str, data: Dataset, fingerprint: Fingerprint) -> Iterator[Row | Rejected]:
    number = 0
    for number, fields in enumerate(data, 1):
        fingerprint.add(fields)
        yield checked_row(Origin(spec, number), dict(fields))
    if not number:
        raise FinetuneError("no rows: the data set is empty", where=spec)


def _load(spec: str, name: str, config: str | None, split: str | None) -> tuple[Dataset, str]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        splits = datasets.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FinetuneError(
            f"the hub data set cannot be loaded: {reason}",
            where=spec,
            fix="check the name and the network; without a network, download it first "
            f"(`hf download {name} --repo-type dataset --local-dir DIR`) and name its files",
        ) from None
    wanted = split or ("train" if "train" in splits or len(splits) > 1 else next(iter(splits)))
    if wanted not in splits:
        fix = f"its splits: {', '.join(map(str, splits))}; write one of them after the name, as in hub:{name}:SPLIT"
        raise FinetuneError(f"the hub data set has no split {wanted!r}", where=spec, fix=fix)
    return splits[wanted], wanted
