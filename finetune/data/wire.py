"""Rows, examples and tokens as bytes and back, exactly: `Wire().pack(example)`; MessagePack, nothing that runs code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgpack
import numpy as np

_TUPLE, _INTEGER, _DECIMAL, _DATETIME, _DATE, _TIME, _TIMEDELTA, _ARRAY, _BITS = range(9)
# Extension numbers from here on are dataclasses; MessagePack leaves 128 numbers to applications.
_CLASSES_FROM = 16


@dataclass(frozen=True, slots=True)
class _Tag:
    """First item of a list that stands for a tuple or a dataclass."""

    number: int


class Wire:
    """Writes plain values, dataclasses and numpy arrays; what is read equals what was written, in value and in type.

    A dataclass is written as its values in order. Its number is its place in `classes`, to which a class is added when
    it is first seen; to read what another process wrote, name the classes in the same order.
    """

    def __init__(self, classes: Sequence[type] = ()) -> None:
        self._classes: list[type] = []
        self._fields: list[tuple[str, ...]] = []
        self._numbers: dict[type, int] = {}
        for kind in classes:
            self._add(kind)
        # Strict: subclasses and tuples are not taken for their like. Half surrogates are data too.
        self._packer = msgpack.Packer(default=self._plain, strict_types=True, unicode_errors="surrogatepass")

    def pack(self, value: Any) -> bytes:
        """Write one value.

        Raises:
            TypeError: something in it is of a kind that cannot be written.
            ValueError: it is nested more than 1,000 deep.
        """
        try:
            # msgpack writes one level more than it reads; a list around the value, one byte, is that level.
            written: bytes = self._packer.pack([value])
        except (TypeError, ValueError):
            self._packer.reset()
            raise
        return written[1:]

    def unpack(self, written: bytes | memoryview) -> Any:
        """Read one value that this object wrote, or another one with the same classes."""
        return msgpack.unpackb(
            written,
            ext_hook=self._extension,
            list_hook=self._listed,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )

    def _add(self, kind: type) -> int:
        if len(self._classes) == 128 - _CLASSES_FROM:
            raise TypeError("too many kinds of dataclasses")
        self._numbers[kind] = number = len(self._classes)
        self._classes.append(kind)
        self._fields.append(tuple(field.name for field in dataclasses.fields(kind)))
        return number

    def _plain(self, value: Any) -> Any:
        """What stands for a value that MessagePack does not know."""
        kind = type(value)
        if kind is tuple:
            return [msgpack.ExtType(_TUPLE, b""), *value]
        if kind is np.ndarray and value.ndim == 1 and not value.dtype.hasobject:
            return _array(value)
        if kind in _TEXTS:
            number, write = _TEXTS[kind]
            return msgpack.ExtType(number, write(value).encode())
        if dataclasses.is_dataclass(kind):
            number = self._numbers[kind] if kind in self._numbers else self._add(kind)
            tag = msgpack.ExtType(_CLASSES_FROM + number, b"")
            return [tag, *[getattr(value, name) for name in self._fields[number]]]
        raise TypeError(f"{kind.__name__} cannot be written")

    def _extension(self, number: int, data: bytes) -> Any:
        if number == _TUPLE or number >= _CLASSES_FROM:
            return _TAGS[number]
        if number == _BITS:
            return np.unpackbits(
                np.frombuffer(data, np.uint8, offset=8), count=int.from_bytes(data[:8], "little")
            ).view(np.bool_)
        if number == _ARRAY:
            name, _, raw = data.partition(b"\0")
            return np.frombuffer(raw, dtype=np.dtype(name.decode()))
        return _READERS[number](data.decode())

    def _listed(self, items: list[Any]) -> Any:
        if not items or type(items[0]) is not _Tag:
            return items
        number = items[0].number
        if number == _TUPLE:
            return tuple(items[1:])
        place = number - _CLASSES_FROM
        return self._classes[place](**dict(zip(self._fields[place], items[1:], strict=True)))


def _array(value: np.ndarray) -> Any:
    if value.dtype == np.bool_:
        return msgpack.ExtType(_BITS, len(value).to_bytes(8, "little") + np.packbits(value).tobytes())
    return msgpack.ExtType(_ARRAY, value.dtype.str.encode() + b"\0" + value.tobytes())


def _duration(text: str) -> timedelta:
    days, seconds, microseconds = map(int, text.split())
    return timedelta(days, seconds, microseconds)


_TAGS = {number: _Tag(number) for number in (_TUPLE, *range(_CLASSES_FROM, 128))}
# An int comes here only beyond 64 bits.
_TEXTS: dict[type, tuple[int, Callable[[Any], str]]] = {
    int: (_INTEGER, str),
    Decimal: (_DECIMAL, str),
    datetime: (_DATETIME, datetime.isoformat),
    date: (_DATE, date.isoformat),
    time: (_TIME, time.isoformat),
    timedelta: (_TIMEDELTA, lambda value: f"{value.days} {value.seconds} {value.microseconds}"),
}
_READERS: dict[int, Callable[[str], Any]] = {
    _INTEGER: int,
    _DECIMAL: Decimal,
    _DATETIME: datetime.fromisoformat,
    _DATE: date.fromisoformat,
    _TIME: time.fromisoformat,
    _TIMEDELTA: _duration,
}
