"""The cache of tokens: taken by content alone, whole or not at all, and never larger than it may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.rows import Message, TokenRow
from finetune.data.store import Store
from finetune.data.tokenising import token_cache
from finetune.data.tokenising.token_cache import TokenCache, content_key
from tests.tiny import CHATML, tiny_tokenizer

CLASSES = (TokenRow, Message)


def rows(count: int = 20) -> list[TokenRow]:
    return [TokenRow(f"r{n}", np.arange(n, dtype=np.int32), np.arange(n) % 2 == 0) for n in range(count)]


def same(found: Any, wanted: list[TokenRow]) -> bool:
    return [(r.id, r.input_ids.tolist(), r.trained.tolist()) for r in found] == [
        (r.id, r.input_ids.tolist(), r.trained.tolist()) for r in wanted
    ]


@pytest.mark.parametrize("memory", [0, 1 << 24])
def test_what_was_kept_is_found(memory: int, tmp_path: Path) -> None:
    cache = TokenCache(tmp_path / "tokens", CLASSES)
    assert cache.find("k") is None
    stores: dict[str, Store[Any]] = {
        "train": Store(rows(), memory=memory, classes=CLASSES),
        "test": Store([Message("user", "a")], memory=memory, classes=CLASSES),
        "validation": Store((), memory=memory, classes=CLASSES),
    }
    assert cache.keep("k", stores, {"dropped": 3})
    assert [path.name for path in cache.path("k").parent.iterdir()] == ["k.tokens"]
    found = TokenCache(tmp_path / "tokens", CLASSES).find("k")
    assert found is not None
    assert found[1] == {"dropped": 3}
    assert list(found[0]) == ["train", "test", "validation"]
    assert same(found[0]["train"], rows())
    assert same([found[0]["train"][7]], [rows()[7]])
    assert list(found[0]["test"]) == [Message("user", "a")]
    assert len(found[0]["validation"]) == 0
    assert cache.find("other") is None


def test_a_damaged_entry_is_none_and_goes(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, CLASSES)
    stores = {"train": Store(rows(), classes=CLASSES)}
    cache.keep("k", stores, None)
    whole = cache.path("k").read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 97)):
        cache.path("k").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.find("k") is None
        assert not cache.path("k").exists()
    for size in (0, 10, 50, len(whole) - 1):
        cache.path("k").write_bytes(whole[:size])
        assert cache.find("k") is None
    cache.path("k").write_bytes(whole)
    assert cache.find("k") is not None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    stores = {"train": Store(rows(), classes=CLASSES)}
    TokenCache(tmp_path, CLASSES).keep("first", stores, None)
    size = (tmp_path / "first.tokens").stat().st_size
    cache = TokenCache(tmp_path, CLASSES, limit=3 * size)
    for age, name in ((300, "first"), (200, "second"), (100, "third")):
        cache.keep(name, stores, None)
        os.utime(cache.path(name), (1e9 - age, 1e9 - age))
    assert cache.find("first") is not None  # used again, so it stays
    assert cache.keep("fourth", stores, None)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["first", "fourth", "third"]
    assert not TokenCache(tmp_path, CLASSES, limit=10).keep("fifth", stores, None)
    assert not cache.path("fifth").exists()


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = TokenCache(tmp_path / "file" / "tokens", CLASSES)
    assert not cache.keep("k", {"train": Store(rows(), classes=CLASSES)}, None)
    assert cache.find("k") is None
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    assert not TokenCache(tmp_path, CLASSES).keep("k", {"train": Store([deep])}, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_whatever_decides_the_tokens_decides_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings, files = {"data": {"max_length": 64}}, {"a.jsonl": "00ff"}
    key = content_key(settings, files, tiny_tokenizer(), CHATML)
    assert key == content_key(settings, dict(files), tiny_tokenizer(), CHATML)
    more = tiny_tokenizer()
    more.add_tokens(["extra"])
    other_eos = tiny_tokenizer()
    other_eos.eos_token = "<|endoftext|>"
    others = [
        content_key({"data": {"max_length": 65}}, files, tiny_tokenizer(), CHATML),
        content_key(settings, {"a.jsonl": "00fe"}, tiny_tokenizer(), CHATML),
        content_key(settings, {"b.jsonl": "00ff"}, tiny_tokenizer(), CHATML),
        content_key(settings, files, more, CHATML),
        content_key(settings, files, other_eos, CHATML),
        content_key(settings, files, tiny_tokenizer(), CHATML + " "),
        content_key(settings, files, tiny_tokenizer(), CHATML, dated=True),
    ]
    copy = tmp_path / "data" / "token_cache.py"
    copy.parent.mkdir()
    copy.write_text("changed code")
    monkeypatch.setattr(token_cache, "__file__", str(copy))
    others.append(content_key(settings, files, tiny_tokenizer(), CHATML))
    assert len({key, *others}) == 9
