"""The tensors of a model folder, read one at a time: `Weights(folder)` knows names and shapes, `rows` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from finetune.errors import FinetuneError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Weights:
    """What the safetensors shards of a folder hold.

    A shard is opened anew for each tensor: pages of a mapped file count as this process's memory until it is closed.

    Args:
        folder: a model or adapter folder.
        single: the file's name where there is only one.

    Raises:
        FinetuneError: no weights, a shard is missing, truncated or no safetensors file.
    """

    def __init__(self, folder: Path, *, single: str = SINGLE) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in _shards(folder, single):
            with _opened(path) as shard:
                for name in shard.keys():  # noqa: SIM118 - safe_open is no mapping
                    self.files[name] = path
                    self.shapes[name] = tuple(shard.get_slice(name).get_shape())

    def rows(self, name: str, chunk: int) -> Iterator[torch.Tensor]:
        """Yield a matrix some rows at a time, about `chunk` numbers each; a vector whole."""
        shape = self.shapes[name]
        if len(shape) < 2:
            yield self.whole(name)
            return
        step = max(1, chunk // shape[1])
        for start in range(0, shape[0], step):
            with _opened(self.files[name]) as shard:
                yield shard.get_slice(name)[start : start + step]

    def whole(self, name: str) -> torch.Tensor:
        with _opened(self.files[name]) as shard:
            tensor: torch.Tensor = shard.get_tensor(name)
            return tensor


def _shards(folder: Path, single: str) -> list[Path]:
    index = folder / INDEX
    if (folder / single).is_file():
        return [folder / single]
    if not index.is_file():
        raise FinetuneError(
            f"there are no weights here (no {single})",
            where=str(folder),
            fix="give a folder written by save_pretrained",
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise FinetuneError(f"the index of the weights cannot be read: {error}", where=str(index)) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FinetuneError(
            f"{len(missing)} of {len(names)} weight files are missing: {missing[0]!r} ...",
            where=str(folder),
            fix="fetch or write the folder again",
        )
    return [folder / name for name in names]


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise FinetuneError(
            f"the weights cannot be read: {error}", where=str(path), fix="fetch or write the folder again"
        ) from error
