"""Examples that stand before a question: `Shots(pool, ...)` draws them once, `shots.before(item)` gives their turns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from finetune.data.item_choices import GOLD
from finetune.data.rows import Example, Message
from finetune.errors import FinetuneError


class Shots:
    """So many rows of a pool, drawn by a hash of content and seed, the labels alike.

    The same question is drawn once. One row more than asked for is kept in reserve: it takes the place of an item that
    would be its own example.

    Args:
        pool: the rows to draw from, all of them questions with answers.
        count: how many.
        seed: seed of the draw; the order of the rows does not matter.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: the pool has fewer different questions, or its conversations have tools.
    """

    def __init__(self, pool: Sequence[Example], count: int, seed: int, *, where: str) -> None:
        self.count = count
        self._drawn: dict[str, Example] = {}
        self.replaced = 0
        for place in _order(pool, seed) if count else ():
            self._drawn.setdefault(question_key(pool[place]), pool[place])
            if len(self._drawn) > count:
                break
        self._where = where
        if len(self._drawn) < count:
            raise self._too_few(len(self._drawn))
        if any(message.tools for example in self._drawn.values() for message in example.messages):
            fix = "set shots to 0, or name other rows under examples"
            raise FinetuneError("examples are conversations with tools, which cannot be shown", where=where, fix=fix)

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows that stand before every item but those that are one of them."""
        return tuple(self._drawn.values())[: self.count]

    def before(self, item: Example) -> tuple[Message, ...]:
        """Return the turns that stand before an item's question.

        Raises:
            FinetuneError: the item is one of the rows, and there is none in reserve.
        """
        own = question_key(item)
        chosen = [example for key, example in self._drawn.items() if key != own][: self.count]
        if len(chosen) < self.count:
            raise self._too_few(len(chosen))
        self.replaced += own in tuple(self._drawn)[: self.count]
        return tuple(
            replace(message, learn=False)
            for example in chosen
            for message in example.messages
            if message.role != "system"
        )

    def _too_few(self, found: int) -> FinetuneError:
        what = f"{self.count} examples are asked for, and there are only {found} different ones that are not the item"
        return FinetuneError(what, where=self._where, fix="ask for fewer shots, or name more rows under examples")


def question_key(example: Example) -> str:
    """Return what is asked, without its answer, case and white space: rows of equal keys ask the same."""
    return "\n".join(" ".join(turn.said.casefold().split()) for turn in example.context if turn.role != "system")


def _order(pool: Sequence[Example], seed: int) -> Iterator[int]:
    """Yield the rows in the order of the draw: of each label the first, then of each the second, and so on.

    The place of the right choice counts as a label where there is none, so that no letter is shown more often.
    """
    digests: list[tuple[bytes, int, str]] = []
    for place, example in enumerate(pool):
        content = f"{seed}\n{example.everything_said()}\n{example.id}"
        digest = hashlib.sha256(content.encode(errors="surrogatepass")).digest()
        digests.append((digest, place, example.label or str(example.metadata.get(GOLD, ""))))
    seen: Counter[str] = Counter()
    rounds = []
    for _, place, label in sorted(digests):
        rounds.append((seen[label], place))
        seen[label] += 1
    # Stable: within a round the order of the draw stays
    for _, place in sorted(rounds, key=lambda one: one[0]):
        yield place
