"""Hashed shingles are the sets of words and characters that they stand for, and near duplicates lie on disk as well."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.near_duplicates import near_duplicates, normalise, without_common_ends
from finetune.data.shingles import blocks, form, shingles
from finetune.data.store import Store

TEXTS = st.lists(st.text(st.sampled_from("ab cdé \U0001f600"), max_size=30).map(normalise), max_size=8)


def plain(text: str, *, words: bool) -> set[str]:
    """Shingles as they are defined."""
    if words:
        parts = text.split(" ")
        return {" ".join(parts[start : start + 3]) for start in range(max(1, len(parts) - 2))}
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


@settings(deadline=None)
@given(TEXTS, st.booleans())
def test_hashes_stand_for_shingles(texts: list[str], words: bool) -> None:
    found = shingles(texts, words=words)
    assert len(found) == len(texts)
    named: dict[int, str] = {}
    for place, text in enumerate(texts):
        wanted = plain(text, words=words)
        assert len(found.of(place)) == len(wanted)
        alone = shingles([text], words=words).of(0)
        assert found.of(place).tolist() == alone.tolist()
        for shingle in wanted:
            (number,) = shingles([shingle], words=words).of(0).tolist()
            assert number in alone.tolist()
            assert named.setdefault(number, shingle) == shingle


def test_what_most_texts_share_is_their_form() -> None:
    draw = random.Random(0)
    names = [f"{draw.randrange(10**6)} {draw.randrange(10**6)} {draw.randrange(10**6)}" for _ in range(80)]
    texts = [normalise(f"please tell me all about customer {name}", fold_digits=False) for name in names]
    shared = form(texts, words=True, share=0.1)
    assert len(shared) == 4  # 'please tell me' to 'all about customer'
    counts = Counter(shingle for text in texts for shingle in plain(text, words=True))
    assert sum(count > 50 for count in counts.values()) == 4
    kept = shingles(texts, words=True).without(shared)
    assert [len(kept.of(place)) for place in range(80)] == [3] * 80
    silent = shingles(["please tell me all"], words=True).without(shared)
    assert len(silent.of(0)) == 2  # it says nothing else
    assert len(form(texts[:50], words=True, share=0.1)) == 0


def test_blocks_hold_every_text_in_order() -> None:
    texts = ["x" * size for size in (10, 600_000, 0, 400_000, 200_000, 5)]
    found = list(blocks(texts))
    assert [text for block in found for text in block] == texts
    assert [len(block) for block in found] == [2, 3, 1]


def test_texts_on_disk_are_likened_as_those_in_memory_are() -> None:
    draw = random.Random(1)
    words = [one + other + one for one in "abcdefghijklmnopq" for other in "rstuvwxyzabcdefgh"]
    texts = [" ".join(draw.choices(words, k=draw.choice([1, 5, 18, 60]))) for _ in range(300)]
    texts += [f"{text.upper()}!" for text in texts[:60]] + [f"{text} end" for text in texts[60:90]]
    wanted = near_duplicates(texts)
    assert near_duplicates(Store(texts, memory=0)) == wanted
    assert near_duplicates(iter(texts)) == wanted
    assert 200 < len(set(wanted)) < 320
    framed = [f"Say it again: {text} now please" for text in texts]
    assert list(without_common_ends(Store(framed, memory=0))) == without_common_ends(framed) != framed
    assert near_duplicates([]) == []
    assert without_common_ends([]) == []
    assert np.array_equal(near_duplicates(["a", "A!", "b"]), [0, 0, 1])
