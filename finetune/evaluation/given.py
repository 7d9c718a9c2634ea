"""Answers kept as they come: `Given(path, fingerprint)` holds one contestant's answers to one task, also half of them.

An evaluation that was stopped goes on from there, and a contestant that joins later does not make the others answer
again. A file of another task, other weights or another number format is not taken: its first line says whose it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.data import TestItem
from finetune.evaluation.compare import Answer
from finetune.rundir import write_json_lines

# Items answered between two writes; the same portions whether stopped or not, as batches decide the last bits
PORTION = 256

Ask = Callable[[Sequence[int], Callable[[int], None]], list[Answer]]


class Given:
    """One contestant's answers to one task.

    Args:
        path: where they are kept, JSON Lines.
        fingerprint: of everything that decides them.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._head = {"fingerprint": fingerprint}
        self._portions = self._read()

    def _read(self) -> list[dict[str, Any]]:
        """Return the whole portions that are kept; a line that a kill cut short is answered again."""
        lines = self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else [""]
        portions: list[dict[str, Any]] = []
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
            except ValueError:
                break
            if number == 0 and record != self._head:
                break
            if number:
                portions.append(record)
        return portions

    def complete(
        self, portions: Sequence[Sequence[int]], ask: Ask, watch: Callable[[int], None] | None
    ) -> tuple[list[Answer], float]:
        """Have the missing items answered, portion by portion, each kept before the next is asked.

        Args:
            portions: the places of all items, as they are asked together.
            ask: answers the items at some places, and may tell how many of them are done.
            watch: told how many items have been answered in all.

        Returns:
            The answers in the order of the items, and the seconds that they took in all.
        """
        answered = {index for portion in self._portions for index in portion["indices"]}
        missing = [portion for portion in portions if not answered.issuperset(portion)]
        if missing:
            # A torn last line goes, so that appending begins on a line of its own
            write_json_lines(self.path, [self._head, *self._portions])
        for portion in missing:
            before = len(answered)

            def tell(count: int, before: int = before) -> None:
                if watch is not None:
                    watch(before + count)

            started = time.perf_counter()
            answers = ask(portion, tell)
            self._add(portion, answers, time.perf_counter() - started)
            answered.update(portion)
        return self._in_order(), sum(portion["seconds"] for portion in self._portions)

    def _add(self, indices: Sequence[int], answers: Sequence[Answer], seconds: float) -> None:
        portion = {"seconds": seconds, "indices": list(indices), "answers": [asdict(given) for given in answers]}
        self._portions.append(portion)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(portion, ensure_ascii=False, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def _in_order(self) -> list[Answer]:
        answers = {
            index: Answer(**fields)
            for portion in self._portions
            for index, fields in zip(portion["indices"], portion["answers"], strict=True)
        }
        return [answers[index] for index in sorted(answers)]


def portions_of(items: Sequence[TestItem]) -> list[Sequence[int]]:
    """Return the places of items in portions of like length, longest first."""
    order = sorted(range(len(items)), key=lambda index: (-len(items[index].prompt), index))
    return [order[start : start + PORTION] for start in range(0, len(order), PORTION)]
