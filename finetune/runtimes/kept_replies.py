"""What endpoints said, kept in a JSON Lines file as it comes, so that no paid answer is lost: `KeptReplies(path)`."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError
from finetune.runtimes.chat_service import Said

_FIELDS = frozenset(one.name for one in fields(Said))


class KeptReplies:
    """Answers by the hash of the request they answer. Threads may add at once.

    Args:
        path: the file; None keeps them in memory only.

    Raises:
        FinetuneError: the file cannot be read, or a line other than a last half one is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._said: dict[str, Said] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._said)

    def __contains__(self, key: str) -> bool:
        return key in self._said

    def __getitem__(self, key: str) -> Said:
        return self._said[key]

    def add(self, key: str, item: str, said: Said) -> None:
        """Keep an answer, on disk before this returns.

        Args:
            key: hash of the request.
            item: id of the item, for whoever reads the file.
            said: the answer.

        Raises:
            FinetuneError: the file cannot be written.
        """
        with self._lock:
            if self.path is not None:
                self._append(self.path, {"request": key, "item": item, **asdict(said)})
            self._said[key] = said

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise FinetuneError(
                f"cannot write {path.name!r}: {error.strerror or error}",
                where=str(path.parent),
                fix="check permissions and free space there",
            ) from error

    def _read(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
            whole = raw.rfind(b"\n") + 1
            if whole < len(raw):
                # The end of a process that was killed while it wrote; the next answer must not be glued to it
                with path.open("r+b") as file:
                    file.truncate(whole)
        except OSError as error:
            raise FinetuneError(f"cannot read {path.name!r}: {error.strerror or error}", where=str(path)) from error
        for number, line in enumerate(raw[:whole].split(b"\n")[:-1], 1):
            try:
                record = json.loads(line)
                self._said[record["request"]] = Said(**{name: record[name] for name in _FIELDS})
            except (ValueError, TypeError, KeyError):
                raise FinetuneError(
                    "this line is no answer of an endpoint", where=f"{path}:{number}", fix="remove the line"
                ) from None
