"""The same comparison within parts of the items: `slices` cuts them by columns of their metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.errors import FinetuneError, Problem, nearest, some
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.statistics.multiple import holm
from finetune.evaluation.statistics.paired import Verdict
from finetune.evaluation.statistics.pairing import Scored, compare_scores

MOST_VALUES = 12
"""A column with more values than this has the rarest ones in one slice, or, if they are numbers, is cut in quarters."""
NOTHING = "(none)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Tuned against base on the items whose `column` has this value; `verdict` is that after Holm over all slices."""

    column: str
    value: str
    n: int
    groups: int | None
    base: float
    tuned: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    p_holm: float | None
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """The same in values of strict JSON."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}


def slices(
    columns: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    scorer: Scorer,
    base: Scored,
    tuned: Scored,
    *,
    confidence: float,
    clusters: Sequence[Hashable] | None,
    seed: int,
) -> list[Slice]:
    """Compare tuned with base on each part of the items, column by column; every item is in one slice of each column.

    Who looks at twenty slices finds one that differs by chance at 5 %: the verdicts are Holm's over all slices of all
    columns. Scores that weigh items by their class (`balanced`) are compared as right or wrong, for the weights only
    hold for the whole set.

    Args:
        columns: Keys of the items' metadata.
        metadata: That of each item.
        scorer: That judged both.
        base: Scores and details of the contestant compared against.
        tuned: Those of the other one.
        confidence: Level of the intervals and verdicts.
        clusters: Group of each item; None where items are independent.
        seed: Seed of the bootstrap.

    Raises:
        FinetuneError: Columns that no item has.
    """
    _check(columns, metadata)
    if scorer.highest > 1 and math.isfinite(scorer.highest):
        scorer = dataclasses.replace(scorer, binary=True, highest=1.0)
        base, tuned = (Scored((np.asarray(one.scores) > 0).astype(float), one.details) for one in (base, tuned))
    parts = [
        (column, value, places)
        for column in dict.fromkeys(columns)
        for value, places in _parts([row.get(column) for row in metadata]).items()
    ]
    found = [
        compare_scores(
            scorer,
            _only(base, places),
            _only(tuned, places),
            confidence=confidence,
            clusters=None if clusters is None else [clusters[place] for place in places],
            seed=seed,
        )
        for _, _, places in parts
    ]
    return [
        Slice(
            column=column,
            value=value,
            n=one.n,
            groups=one.groups,
            base=one.base,
            tuned=one.tuned,
            difference=one.difference,
            interval=one.interval,
            p_value=one.p_value,
            p_holm=together.p_value,
            verdict=together.verdict,
        )
        for (column, value, _), one, together in zip(parts, found, holm(found), strict=True)
    ]


def _check(columns: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> None:
    known = list(dict.fromkeys(key for row in metadata for key in row))
    problems = [_unknown(column, known) for column in columns if column not in known]
    if problems:
        raise FinetuneError.of(problems)


def _unknown(column: str, known: Sequence[str]) -> Problem:
    like = nearest(column, known)
    fix = f"did you mean {like!r}?" if like else f"the columns are {some(known)}" if known else "leave it out"
    return Problem(where="evaluate.slices", what=f"no test item has a column {column!r}", fix=fix)


def _only(scored: Scored, places: Sequence[int]) -> Scored:
    return Scored(
        np.asarray(scored.scores, dtype=np.float64)[list(places)], [scored.details[place] for place in places]
    )


def _parts(values: Sequence[Any]) -> dict[str, list[int]]:
    """Places of the items by the name of their slice: commonest value first, numbers in rising order, none last."""
    given = [value for value in values if value is not None]
    if all(map(_is_number, given)):
        distinct = sorted(set(given))
        names = _quarters(given) if len(distinct) > MOST_VALUES else {value: _text(value) for value in distinct}
        order = list(dict.fromkeys(names.values()))
        texts = [NOTHING if value is None else names[value] for value in values]
    else:
        texts = [NOTHING if value is None else _text(value) for value in values]
        counts = Counter(text for text, value in zip(texts, values, strict=True) if value is not None)
        order = [name for name, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
        if len(order) > MOST_VALUES:
            rare = set(order[MOST_VALUES - 1 :])
            other = f"(other: {len(rare):,} values)"
            texts = [other if text in rare else text for text in texts]
            order = [*order[: MOST_VALUES - 1], other]
    places: dict[str, list[int]] = {name: [] for name in [*order, NOTHING]}
    for place, text in enumerate(texts):
        places[text].append(place)
    return {name: found for name, found in places.items() if found}


def _quarters(given: Sequence[float]) -> dict[float, str]:
    """Name of each number's quarter, of about equally many items; equal numbers are never parted."""
    edges = np.unique(np.quantile(given, (0.25, 0.5, 0.75), method="lower"))
    members: dict[int, list[float]] = {}
    for value in sorted(set(given)):
        members.setdefault(int(np.searchsorted(edges, value)), []).append(value)
    return {
        value: _text(part[0]) if len(part) == 1 else f"{_text(part[0])} to {_text(part[-1])}"
        for part in members.values()
        for value in part
    }


def _is_number(value: Any) -> bool:
    """Whether a value can be cut in quarters; whole numbers too large for a float are names."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
