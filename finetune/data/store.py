"""Sequences larger than memory: `store = Store(); store.extend(rows)` keeps rows, examples or tokens on disk.

A small corpus stays a plain list. Beyond `MEMORY` bytes items go to an unnamed temporary file, which vanishes with
the process, and come back one by one. Nothing read back can run code: items are written as MessagePack.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from finetune.data.wire import Wire
from finetune.errors import FinetuneError

T = TypeVar("T")
U = TypeVar("U")

# Written as MessagePack; as Python objects the same items take about three times as much.
MEMORY = 16 * 1024**2
_BLOCK = 1024**2


class Lazy(Sequence[T], Generic[T]):
    """A sequence that makes its items when they are asked for; equal to any other one of equal items."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def sizes(self) -> NDArray[np.int64] | None:
        """Bytes of each item as it is written; None where nothing has been written."""
        return None


class Store(Lazy[T]):
    """An append-only sequence of plain values, dataclasses and numpy arrays, in memory while it is small.

    What is read back equals what was appended; beyond `memory` bytes it is a new object each time. The rare item that
    cannot be written (nested more than 1,000 deep, of a foreign kind) stays in memory. A process forked from this one
    reads the same items. Only one process may append.

    Args:
        items: the first items.
        memory: bytes to keep in memory.
        folder: where the temporary file lies; unset means `TMPDIR` or the system's folder for such files.
        classes: dataclasses that occur in items, for another process to read what `write_to` writes.
    """

    def __init__(
        self,
        items: Iterable[T] = (),
        *,
        memory: int = MEMORY,
        folder: Path | None = None,
        classes: Sequence[type] = (),
    ) -> None:
        self._wire = Wire(classes)
        self._classes = tuple(classes)
        self._memory = memory
        self._folder = folder
        self._items: list[T] | None = []
        self._ends = array("Q")
        self._file: IO[bytes] | None = None
        self._odd: dict[int, T] = {}
        self._waiting = bytearray()
        self._start = 0
        self._written = 0
        self.extend(items)

    @classmethod
    def opened(cls, path: Path, start: int, size: int, count: int, *, classes: Sequence[type]) -> Store[T]:
        """Read what `write_to` wrote at byte `start` of a file: so many bytes of so many items."""
        store: Store[T] = cls(classes=classes)
        store._hold(path.open("rb"))
        store._start, store._written = start, size
        store._ends.frombytes(store._read(size, size + 8 * count))
        store._items = None
        return store

    def write_to(self, file: IO[bytes]) -> tuple[int, int]:
        """Write all items to a file for `opened`; returns how many bytes and items they are.

        Raises:
            ValueError: an item cannot be written.
        """
        if self._odd:
            raise ValueError(f"{len(self._odd)} items cannot be written")
        if self._items is not None:
            for item in self._items:
                file.write(self._wire.pack(item))
        else:
            for start in range(0, self.size, _BLOCK):
                file.write(self._read(start, min(start + _BLOCK, self.size)))
        file.write(self._ends.tobytes())
        return self.size, len(self)

    @property
    def size(self) -> int:
        """Bytes of all items as they are written."""
        return self._ends[-1] if self._ends else 0

    @property
    def on_disk(self) -> bool:
        return self._items is None

    def append(self, item: T) -> None:
        """Add an item at the end.

        Raises:
            FinetuneError: the disk is full.
        """
        written = self._packed(item, len(self))
        self._ends.append(self.size + len(written))
        if self._items is not None:
            self._items.append(item)
            if self.size > self._memory:
                self._spill()
            return
        self._waiting += written
        if len(self._waiting) >= _BLOCK:
            self._flush()

    def extend(self, items: Iterable[T]) -> None:
        """Add items at the end, one after another as they come; see `append`."""
        for item in items:
            self.append(item)

    def close(self) -> None:
        """Give memory and disk back before the store itself goes; it is empty afterwards."""
        if self._file is not None:
            self._file.close()
        self.__init__(memory=self._memory, folder=self._folder, classes=self._classes)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        place = range(len(self))[index]
        if self._items is not None:
            return self._items[place]
        start = self._ends[place - 1] if place else 0
        return self._unpacked(place, self._read(start, self._ends[place]))

    def __iter__(self) -> Iterator[T]:
        place = 0
        while place < len(self):
            if self._items is not None:
                yield self._items[place]
                place += 1
                continue
            start = self._ends[place - 1] if place else 0
            last = place + 1
            while last < len(self) and self._ends[last] - start <= _BLOCK:
                last += 1
            block = memoryview(self._read(start, self._ends[last - 1]))
            for index in range(place, last):
                end = self._ends[index]
                yield self._unpacked(index, block[(self._ends[index - 1] if index else 0) - start : end - start])
            place = last

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each item as it is written."""
        ends = np.array(self._ends, dtype=np.int64)
        ends[1:] -= ends[:-1].copy()
        return ends

    def select(self, places: Iterable[int]) -> View[T]:
        """Return the items at these places, in this order, without copying them."""
        return View(self, np.fromiter(places, dtype=np.int64), _same)

    def _hold(self, file: IO[bytes]) -> None:
        """Keep a file open as long as the store is there."""
        self._file = file
        weakref.finalize(self, file.close)

    def _spill(self) -> None:
        assert self._items is not None  # noqa: S101 - called once, by append
        self._hold(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - open as long as the store is
        for place, item in enumerate(self._items):
            self._waiting += self._packed(item, place)
            if len(self._waiting) >= _BLOCK:
                self._flush()
        self._items = None

    def _flush(self) -> None:
        assert self._file is not None  # noqa: S101 - items wait only for a file
        try:
            self._file.write(self._waiting)
            self._file.flush()
        except OSError as error:
            raise FinetuneError(
                f"the temporary file for {len(self):,} rows cannot be written: {error.strerror or error}",
                where=str(self._folder or tempfile.gettempdir()),
                fix="free some space, or set TMPDIR to a folder on another disk",
            ) from error
        self._written += len(self._waiting)
        self._waiting.clear()

    def _read(self, start: int, end: int) -> bytes:
        """Bytes of the file; a forked process shares the descriptor, so the position in the file is left alone."""
        if self._waiting and end > self._written:
            self._flush()
        assert self._file is not None  # noqa: S101 - as in _flush
        parts, handle = [], self._file.fileno()
        start, end = start + self._start, end + self._start
        while start < end:
            part = os.pread(handle, end - start, start)
            if not part:
                raise EOFError(f"the temporary file ends before byte {end}")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _packed(self, item: T, place: int) -> bytes:
        try:
            return self._wire.pack(item)
        except (TypeError, ValueError):
            self._odd[place] = item
            return b""

    def _unpacked(self, place: int, written: bytes | memoryview) -> T:
        if place in self._odd:
            return self._odd[place]
        item: T = self._wire.unpack(written)
        return item


class View(Lazy[U]):
    """Some items of a sequence, each one as `change` makes it when it is asked for: nothing is copied or kept.

    Args:
        items: what is looked at.
        places: positions in it, in the order of the view; None takes all.
        change: makes of an item what the view shows.
    """

    def __init__(self, items: Sequence[T], places: NDArray[np.int64] | None, change: Callable[[T], U]) -> None:
        self._base: Sequence[T] = items
        self._places = places
        self._change = change

    def __len__(self) -> int:
        return len(self._base) if self._places is None else len(self._places)

    @overload
    def __getitem__(self, index: int) -> U: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[U]: ...
    def __getitem__(self, index: int | slice) -> U | Sequence[U]:
        if isinstance(index, slice):
            places = np.arange(len(self._base)) if self._places is None else self._places
            return View(self._base, places[index], self._change)
        place = range(len(self))[index]
        return self._change(self._base[place if self._places is None else int(self._places[place])])

    def sizes(self) -> NDArray[np.int64] | None:
        """Bytes of each item looked at, as it is written; None where nothing has been written."""
        found = self._base.sizes() if isinstance(self._base, Lazy) else None
        return found if found is None or self._places is None else found[self._places]

    def __iter__(self) -> Iterator[U]:
        if self._places is None:
            yield from map(self._change, self._base)
            return
        for place in self._places.tolist() if len(self._places) < 4096 else self._places:
            yield self._change(self._base[int(place)])


def chosen(items: Sequence[T], places: Iterable[int]) -> Sequence[T]:
    """Return the items at these places, in this order; of a list a list, of a larger corpus a view."""
    if isinstance(items, list):
        return [items[place] for place in places]
    return View(items, np.fromiter(places, dtype=np.int64), _same)


def portions(items: Sequence[Any], *, most: int, size: int) -> list[range]:
    """Divide a sequence into runs of at most `most` items and, beyond the first one of each, about `size` bytes."""
    sizes = items.sizes() if isinstance(items, Lazy) else None
    if sizes is None:
        return [range(first, min(first + most, len(items))) for first in range(0, len(items), most)]
    found: list[range] = []
    first, held = 0, 0
    for place, written in enumerate(sizes.tolist()):
        if place > first and (place - first == most or held + written > size):
            found.append(range(first, place))
            first, held = place, 0
        held += written
    return [*found, range(first, len(items))] if len(items) else found


def _same(item: T) -> T:
    return item
