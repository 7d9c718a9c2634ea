"""Rows of tokens kept between runs, found by content: `TokenCache(folder).find(key)`.

An entry is one file, written aside and renamed, with a hash at its end. One that is damaged is as good as none. The
entries that were not used for longest go when all together become too large.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.store import Store
from finetune.data.wire import Wire
from finetune.errors import FinetuneError
from finetune.rundir import staged_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMIT = 20 * 1024**3
_MAGIC = b"finetune tokens\n"
_BLOCK = 1 << 20


def content_key(
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    *,
    dated: bool = False,
) -> str:
    """Return a hash of all that decides a corpus's tokens, this package's code among it.

    Args:
        settings: what the recipe says of the data.
        files: name -> SHA-256 of its bytes; the name decides the rows' ids.
        tokenizer: of the base model.
        template: the chat template's text; empty for raw text.
        dated: the template may write today's date.
    """
    code = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        code.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    facts = {
        "settings": settings,
        "files": list(files.items()),
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "specials": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": template,
        "code": code.hexdigest(),
        "libraries": {name: metadata.version(name) for name in ("transformers", "tokenizers", "jinja2")},
        "day": datetime.now().astimezone().date().isoformat() if dated else "",
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


class TokenCache:
    """Entries in a folder, each named by its key.

    Args:
        folder: made when it is first written to.
        classes: dataclasses that occur in the entries, always in the same order.
        limit: bytes of all entries together.
    """

    def __init__(self, folder: Path, classes: Sequence[type], *, limit: int = LIMIT) -> None:
        self._folder = folder
        self._classes = tuple(classes)
        self._limit = limit

    def path(self, key: str) -> Path:
        return self._folder / f"{key}.tokens"

    def find(self, key: str) -> tuple[dict[str, Store[Any]], Any] | None:
        """Return the stores and the account of an entry, or None where there is no whole one."""
        path = self.path(key)
        try:
            contents = self._contents(path)
            if contents is None:
                path.unlink(missing_ok=True)
                return None
            stores: dict[str, Store[Any]] = {
                name: Store.opened(path, place, written, count, classes=self._classes)
                for name, (place, written, count) in contents["stores"].items()
            }
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used stays
        return stores, contents["account"]

    def keep(self, key: str, stores: Mapping[str, Store[Any]], account: Any) -> bool:
        """Write an entry; tells whether it could be kept. A full disk or a foreign folder is no reason to stop."""
        size = sum(store.size for store in stores.values())
        if size > self._limit:
            return False
        try:
            self._prune(self._limit - size)
            with staged_file(self.path(key)) as aside:
                self._write(aside, stores, account)
        except (FinetuneError, OSError, TypeError, ValueError):
            return False
        return True

    def _write(self, path: Path, stores: Mapping[str, Store[Any]], account: Any) -> None:
        with path.open("wb") as file:
            file.write(_MAGIC)
            places = {}
            for name, store in stores.items():
                places[name] = (file.tell(), *store.write_to(file))
            end = file.tell()
            file.write(Wire(self._classes).pack({"stores": places, "account": account}))
            file.write(end.to_bytes(8, "little"))
        digest = _digest(path, path.stat().st_size)
        with path.open("ab") as file:
            file.write(digest)

    def _contents(self, path: Path) -> dict[str, Any] | None:
        """What stands at the end of an entry; None if any of its bytes is not as it was written."""
        size = path.stat().st_size - 32
        if size < len(_MAGIC) + 8:
            return None
        with path.open("rb") as file:
            file.seek(size)
            if _digest(path, size) != file.read(32):
                return None
            file.seek(size - 8)
            end = int.from_bytes(file.read(8), "little")
            file.seek(end)
            found: dict[str, Any] = Wire(self._classes).unpack(file.read(size - 8 - end))
            return found

    def _prune(self, room: int) -> None:
        """Remove the entries that were not used for longest until the rest fit in `room` bytes."""
        entries = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*.tokens")]
        held = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if held <= room:
                return
            path.unlink(missing_ok=True)
            held -= size


def _digest(path: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    return digest.digest()
