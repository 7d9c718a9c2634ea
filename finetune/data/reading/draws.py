"""A fixed random draw of rows while they go by, for names that end in `#500`: `Draw(500)`."""

from __future__ import annotations

import heapq
import random

from finetune.data.rows import Row

SEED = 0


class Draw:
    """Keeps `rows` of the rows it is shown, the same ones each time, and no others in memory.

    Every row gets a number from a seeded generator, in the order of the file; the smallest numbers win, so that a
    larger draw contains a smaller one.
    """

    def __init__(self, rows: int) -> None:
        self.asked = rows
        self.seen = 0
        self._chance = random.Random(SEED)  # noqa: S311 - a draw, not a secret
        self._kept: list[tuple[float, int, Row]] = []

    def add(self, row: Row) -> None:
        """Show the next row."""
        item = (-self._chance.random(), -self.seen, row)
        self.seen += 1
        if len(self._kept) < self.asked:
            heapq.heappush(self._kept, item)
        else:
            heapq.heappushpop(self._kept, item)

    def rows(self) -> list[Row]:
        """Return the rows drawn, in the order of the file."""
        return [row for _, _, row in sorted(self._kept, key=lambda item: -item[1])]
