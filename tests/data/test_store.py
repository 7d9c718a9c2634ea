"""Stores give back exactly what was put in, from memory and from disk, by index, slice and iteration."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.rows import Example, Message, Origin, Row, TokenRow
from finetune.data.store import MEMORY, Store, View
from finetune.data.wire import Wire
from finetune.errors import FinetuneError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(categories=None))
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(timezone.utc))
    | st.dates()
    | st.times()
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(st.characters(categories=None)) | st.integers(), inner)
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The value with the type of everything in it: True == 1 == 1.0, and none may stand for another."""
    if isinstance(value, dict):
        return dict, [(kinds(name), kinds(inner)) for name, inner in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [kinds(inner) for inner in value]
    return type(value), math.copysign(1, value) if isinstance(value, float) else None, value


def example(number: int) -> Example:
    said = (Message("user", f"Where is parcel {number}?"), Message("assistant", "On its way.", learn=number % 2 == 0))
    return Example(id=f"r:{number}", origin=Origin("a.jsonl", number), messages=said, metadata={"n": number, "x": 0.5})


@given(VALUES)
def test_values_come_back_in_value_and_type(value: Any) -> None:
    wire = Wire()
    assert kinds(wire.unpack(wire.pack(value))) == kinds(value)


def test_what_json_cannot_hold_comes_back_too() -> None:
    wire = Wire()
    value = wire.unpack(wire.pack([math.nan, -math.inf, "\ud800", 2**70, (1,), b"\0", {1: 2}]))
    assert math.isnan(value[0])
    assert value[1:] == [-math.inf, "\ud800", 2**70, (1,), b"\0", {1: 2}]
    times = [datetime(2026, 1, 2, 3), date(2026, 1, 2), time(3, 4), timedelta(-1, 2, 3), Decimal("1.20")]
    assert kinds(wire.unpack(wire.pack(times))) == kinds(times)


def test_another_process_reads_with_the_classes_in_the_same_order() -> None:
    written = Wire([Origin, Row]).pack(Row(Origin("a", 3), {"b": 1}))
    assert Wire([Origin, Row]).unpack(written) == Row(Origin("a", 3), {"b": 1})
    with pytest.raises(TypeError, match=r"^object cannot be written$"):
        Wire().pack([object()])
    wire = Wire()
    readable: Any = []
    for _ in range(1500):  # whatever can be written can be read
        readable = [readable]
        try:
            written = wire.pack(readable)
        except ValueError:
            break
        assert wire.unpack(written)
    else:
        pytest.fail("nothing was nested too deeply")
    with pytest.raises(TypeError):
        wire.pack([1, object()])
    assert wire.pack([1]) == Wire().pack([1])


@pytest.mark.parametrize("memory", [0, 2000, MEMORY])
def test_items_come_back_wherever_they_are(memory: int, tmp_path: Path) -> None:
    wanted = [example(number) for number in range(100)]
    store = Store(wanted, memory=memory, folder=tmp_path)
    assert store.on_disk == (memory < MEMORY)
    assert list(tmp_path.iterdir()) == []  # unnamed: nothing is left even after kill -9
    assert len(store) == 100
    assert list(store) == wanted
    assert [store[7], store[-1], store[0]] == [wanted[7], wanted[-1], wanted[0]]
    assert list(store[10:20:3]) == wanted[10:20:3]
    assert list(store[10:20][::-1]) == wanted[10:20][::-1]
    assert list(store.select([5, 1, 5])) == [wanted[5], wanted[1], wanted[5]]
    store.append(example(100))
    assert store[100] == example(100)
    with pytest.raises(IndexError):
        store[101]
    store.close()
    assert len(store) == 0


def test_tokens_come_back_as_arrays() -> None:
    rows = [TokenRow(f"r{size}", np.arange(size, dtype=np.int32), np.arange(size) % 3 == 0) for size in (0, 1, 7, 8, 9)]
    for found, row in zip(Store(rows, memory=0), rows, strict=True):
        assert found.id == row.id
        assert found.input_ids.dtype == np.int32
        assert found.trained.dtype == np.bool_
        assert found.input_ids.tolist() == row.input_ids.tolist()
        assert found.trained.tolist() == row.trained.tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000), max_size=6), st.integers(0, 200))
def test_items_of_any_size_are_cut_at_their_ends(large: list[int], small: int) -> None:
    items = [*("x" * size for size in large), *(str(number) for number in range(small))]
    store = Store(items, memory=0)
    assert list(store) == items
    assert [store[place] for place in range(len(items))] == items


def test_what_cannot_be_written_stays_in_memory() -> None:
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    odd = object()
    store: Store[Any] = Store([1, deep, odd, 2], memory=0)
    assert store.on_disk
    assert [store[0], store[2], store[3]] == [1, odd, 2]
    assert store[1] is deep
    assert list(store)[2] is odd


def test_appending_while_reading_is_seen() -> None:
    store = Store(["a"], memory=0)
    seen = []
    for item in store:
        seen.append(item)
        if len(store) < 4:
            store.append(item + "a")
    assert seen == ["a", "aa", "aaa", "aaaa"]


def test_a_view_changes_items_when_they_are_asked_for() -> None:
    asked: list[int] = []

    def double(item: int) -> int:
        asked.append(item)
        return 2 * item

    view = View(Store(range(10), memory=0), None, double)
    assert asked == []
    assert [view[3], view[-1]] == [6, 18]
    assert asked == [3, 9]
    assert list(view[2:4]) == [4, 6]
    assert list(view) == [2 * number for number in range(10)]
    with pytest.raises(IndexError):
        view[10]


def test_a_forked_process_reads_beside_this_one() -> None:
    store = Store([f"row {number}" * 100 for number in range(5000)], memory=0)
    assert store[0].startswith("row 0")
    child = os.fork()
    if child == 0:
        os._exit(0 if [len(item) for item in store] == [len(item) for item in store] else 1)
    assert sum(map(len, store)) == sum(len(f"row {number}") * 100 for number in range(5000))
    assert os.waitpid(child, 0)[1] == 0


def test_a_full_disk_is_told_with_its_folder() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("needs /dev/full")
    store = Store(["x"], memory=0)
    assert store._file is not None
    store._file.close()
    store._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(
        FinetuneError, match=r"^.*: the temporary file for 2 rows cannot be written: No space left on device\n"
    ):
        store.extend(["y" * 2_000_000])


MANY = """
import resource
from finetune.data.store import Store
status = lambda: int([l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1])
store = Store({"text": str(number) * 200, "id": number} for number in range(200_000))
assert store.on_disk, store.size
before = status()
assert sum(len(row["text"]) for row in store) > 150_000_000
print(before, status())
"""


def test_memory_does_not_grow_with_the_corpus() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    filled, read = map(int, done.stdout.split())
    assert filled < 200_000  # kilobytes; the rows alone are 210 MB
    assert read < 200_000
