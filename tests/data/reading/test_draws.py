"""A fixed draw: the same rows each time, in the order of the file, a larger draw around the smaller one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune.data.reading.draws import Draw
from finetune.data.rows import Origin, Row


def drawn(count: int, asked: int) -> list[int]:
    draw = Draw(asked)
    for line in range(1, count + 1):
        draw.add(Row(Origin("a", line), {}))
    assert draw.seen == count
    return [row.origin.line for row in draw.rows()]


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 50))
def test_draws_are_fixed_ordered_and_nested(count: int, asked: int, more: int) -> None:
    found = drawn(count, asked)
    assert len(found) == min(count, asked)
    assert found == sorted(set(found)) == drawn(count, asked)
    assert set(found) <= set(drawn(count, asked + more))


def test_a_draw_is_spread_over_the_file() -> None:
    found = drawn(10_000, 1_000)
    assert found != list(range(1, 1_001))
    assert [sum(line // 2_500 == part for line in found) for part in range(4)] == [259, 243, 247, 251]
