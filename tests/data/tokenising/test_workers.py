"""Forked processes: the same results in the same order, faults come home, and none of them outlives its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.data.rows import Message
from finetune.data.tokenising.workers import available, in_order
from finetune.errors import FinetuneError, Problem

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(number) for number in listed.read_text(encoding="ascii").split()}


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_results_come_in_order(processes: int) -> None:
    def work(place: int) -> tuple[int, Message, str]:
        time.sleep(0.01 * (place % 3))
        return place, Message("user", str(place)), "x" * (100_000 * (place % 2))

    before = children()
    found = list(in_order(work, 7, processes=processes, classes=[Message]))
    assert found == [work(place) for place in range(7)]
    assert children() == before
    assert "TOKENIZERS_PARALLELISM" in os.environ


def test_the_work_is_done_elsewhere() -> None:
    assert available() >= 1
    numbers = list(in_order(lambda _: os.getpid(), 6, processes=2))
    assert len(set(numbers)) == 2
    assert os.getpid() not in numbers
    assert list(in_order(lambda _: os.getpid(), 1, processes=2)) == [os.getpid()]
    assert list(in_order(lambda _: os.getpid(), 0, processes=2)) == []


def test_a_fault_that_can_be_mended_comes_home_whole() -> None:
    problems = (Problem("a.jsonl:3", "broken", "mend it"), Problem("a.jsonl:4", "broken too"))

    def work(place: int) -> int:
        if place == 3:
            raise FinetuneError.of(problems)
        return place

    results = in_order(work, 10, processes=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    before = children()
    with pytest.raises(FinetuneError) as caught:
        next(results)
    assert caught.value.problems == problems
    assert before
    assert not children() & before


def test_a_bug_comes_home_with_its_traceback() -> None:
    def work(place: int) -> float:
        return 1 / place

    with pytest.raises(RuntimeError, match=re.compile(r"Traceback.*in work.*ZeroDivisionError", re.DOTALL)):
        list(in_order(work, 4, processes=2))


def test_a_killed_process_is_told() -> None:
    def work(place: int) -> int:
        if place == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return place

    with pytest.raises(FinetuneError, match=r"^a process that prepares the rows \(number \d+\) was killed\n"):
        list(in_order(work, 4, processes=2))


def test_leaving_early_leaves_no_process() -> None:
    before = children()
    results = in_order(lambda place: "x" * 1_000_000, 100, processes=2)
    next(results)
    assert len(children() - before) == 2
    results.close()  # type: ignore[attr-defined]
    assert children() == before


LONG = """
import os, signal, time
from finetune.data.tokenising.workers import in_order
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest itself runs in the background
def work(place):
    if place > 1:
        time.sleep(0.2)
    return os.getpid()
found = in_order(work, 1000, processes=2)
print(next(found), next(found), flush=True)
for _ in found:
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(set(workers)) == 2
    os.kill(parent.pid, number)
    parent.wait(20)
    for _ in range(100):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            break
        time.sleep(0.05)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
