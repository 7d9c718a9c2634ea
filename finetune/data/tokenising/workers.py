"""Work divided among forked processes, with the results in order: `for result in in_order(work, 100, processes=4)`.

A forked process has all that this one has without copying it, so nothing is sent but results. It dies with this one:
its next result finds nobody to read it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from finetune.data.wire import Wire
from finetune.errors import FinetuneError, Problem

R = TypeVar("R")

_DONE, _REFUSED, _BROKEN = range(3)
_PARALLEL = "TOKENIZERS_PARALLELISM"


def available() -> int:
    """Return how many processes may work at once: the cores that this process may use, where forking is safe."""
    if sys.platform != "linux":
        return 1
    return len(os.sched_getaffinity(0))


def in_order(work: Callable[[int], R], count: int, *, processes: int, classes: Sequence[type] = ()) -> Iterator[R]:
    """Yield `work(0)`, `work(1)`, ... up to `count` results, computed by so many processes.

    Args:
        work: depends on its number alone; what it changes in memory is lost in the process that does it.
        count: how often to call it.
        processes: with one, or one result, everything is done here.
        classes: dataclasses that occur in results.

    Raises:
        FinetuneError: raised by `work`, or a process was killed.
        RuntimeError: `work` raised anything else; its traceback is the message.
    """
    processes = min(processes, count)
    if processes < 2:
        yield from map(work, range(count))
        return
    wire = Wire([Problem, *classes])
    readers: list[int] = []
    children: list[int] = []
    try:
        for number in range(processes):
            reader, child = _fork(work, range(number, count, processes), wire, readers)
            readers.append(reader)
            children.append(child)
        for place in range(count):
            yield _result(_receive(readers[place % processes]), wire, children[place % processes])
    finally:
        for reader in readers:
            os.close(reader)
        for child in children:
            _end(child)


def _fork(work: Callable[[int], Any], places: range, wire: Wire, others: Sequence[int]) -> tuple[int, int]:
    """Start a process that does some of the work; returns where its results can be read, and its number."""
    reader, writer = os.pipe()
    before = os.environ.get(_PARALLEL)
    # Threads do not survive a fork: a tokenizer in there must not wait for its own. It reads this when it is forked.
    os.environ[_PARALLEL] = "false"
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of threads at a fork; none of theirs is waited for in there
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before
    if child:
        os.close(writer)
        return reader, child
    status = 1
    try:
        os.environ[_PARALLEL] = "false"
        for handle in (reader, *others):
            os.close(handle)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _serve(work, places, wire, writer)
        status = 0
    except BrokenPipeError:
        status = 0
    finally:
        # Never back into the caller's code, nor into what it has registered for its end
        os._exit(status)


def _serve(work: Callable[[int], Any], places: range, wire: Wire, writer: int) -> None:
    for place in places:
        try:
            answer = (_DONE, work(place))
        except FinetuneError as error:
            answer = (_REFUSED, error.problems)
        except BaseException:
            answer = (_BROKEN, traceback.format_exc())
        written = wire.pack(answer)
        _send(writer, len(written).to_bytes(8, "little") + written)
        if answer[0] != _DONE:
            return


def _send(writer: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(writer, view) :]


def _receive(reader: int) -> bytes | None:
    """The next message, or None when the process has ended without one."""
    size = _read(reader, 8)
    return None if size is None else _read(reader, int.from_bytes(size, "little"))


def _read(reader: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(reader, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _result(written: bytes | None, wire: Wire, child: int) -> Any:
    if written is None:
        raise FinetuneError(
            f"a process that prepares the rows (number {child}) was killed",
            fix="look whether the machine ran out of memory, free some and start again",
        )
    kind, value = wire.unpack(written)
    if kind == _REFUSED:
        raise FinetuneError.of(value)
    if kind == _BROKEN:
        raise RuntimeError(f"in a process that prepares the rows:\n{value}")
    return value


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
