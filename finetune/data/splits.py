"""Divide a corpus into train, validation and test without leaks: `divide(examples, recipe.data.split, ...)`."""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.near_duplicates import Clusters, near_duplicates, without_common_ends
from finetune.data.reading.sources import read_text
from finetune.data.rows import Example
from finetune.data.store import Store, chosen
from finetune.errors import FinetuneError, Problem, some
from finetune.recipe.schema import SampleSection, SplitSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The three parts, each in the order of the corpus; `clusters` counts what was kept on one side as a whole."""

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    clusters: int
    notes: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Rows that stay together: each row's cluster (-1 once it is taken), each cluster's commonest label and place."""

    of: NDArray[np.int64]
    labels: list[str]
    order: NDArray[np.int64]

    def sizes(self) -> list[int]:
        """Rows of each cluster that are not taken yet."""
        found: list[int] = np.bincount(self.of[self.of >= 0], minlength=len(self.labels)).tolist()
        return found

    def without(self, rows: Iterable[int]) -> _Clusters:
        """The clusters without rows that are taken."""
        of = self.of.copy()
        of[list(rows)] = -1
        return _Clusters(of, self.labels, self.order)


def divide(
    examples: Sequence[Example],
    section: SplitSection,
    *,
    has_validation: bool,
    has_test: bool,
    test_ids: set[str] | None = None,
    where: str = "data.split",
) -> Division:
    """Divide a corpus as the recipe says.

    Equal values of `group_by` and, unless told otherwise, nearly identical texts stay on one side. Shares of labels
    are kept as nearly as whole clusters allow, and each label keeps a cluster to train on. The draw is a hash of
    content and seed: the order of the rows does not matter. `validation` is a share of what the test leaves.

    Args:
        examples: the corpus.
        section: the recipe's `data.split`.
        has_validation: validation rows come from a file of their own, so none are taken here.
        has_test: likewise for test rows.
        test_ids: the rows of an official test split, taken in place of a share.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: ids that no row has, or a part that cannot be filled.
    """
    if not examples:
        raise FinetuneError("there are no rows to divide", where=where)
    clusters = _clusters(examples, section)
    notes = _cluster_notes(clusters, where)
    test: set[int] = set()
    if test_ids is not None:
        test = _official(examples, test_ids, where)
        notes += _left_near(examples, clusters, test, where)
    elif section.test and not has_test:
        test = _take(clusters.without(_unasked(examples, clusters)), section.test, "test", where)
    rest = clusters.without(test)
    validation = (
        _take(rest, section.validation, "validation", where) if section.validation and not has_validation else set()
    )
    train = np.flatnonzero(rest.without(validation).of >= 0)
    if not len(train):
        raise FinetuneError("no row is left to train on", where=where, fix="make the other parts smaller")
    return Division(
        train=chosen(examples, train),
        validation=chosen(examples, sorted(validation)),
        test=chosen(examples, sorted(test)),
        clusters=len(clusters.labels),
        notes=tuple(notes),
    )


def load_test_ids(path: str, *, where: str = "data.split.test_ids") -> set[str]:
    """Read the ids of an official test split: a JSON list, the keys of a JSON object, or one id a line.

    Raises:
        FinetuneError: the file is unreadable, is broken JSON, or holds something else than ids.
    """
    text = read_text(path, where=where)
    if not text.lstrip().startswith(("[", "{")):
        return {line.strip() for line in text.splitlines() if line.strip()}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise FinetuneError(
            f"broken JSON: {error.msg} at column {error.colno}", where=f"{path}:{error.lineno}"
        ) from None
    wrong = [item for item in found if not isinstance(item, (str, int)) or isinstance(item, bool)]
    if wrong:
        fix = "write a list of ids, an object whose keys are ids, or one id a line"
        raise FinetuneError(f"not an id: {str(wrong[0])[:60]!r}", where=path, fix=fix)
    if not found:
        raise FinetuneError("no ids in the file", where=path, fix="write at least one id")
    return {str(item) for item in found}


def sample(examples: Sequence[Example], section: SampleSection, *, where: str = "data.sample") -> Sequence[Example]:
    """Draw the part of the training rows that the recipe asks for, in the order of the corpus.

    The draw is a hash of content and seed: a larger sample contains the smaller one.

    Raises:
        FinetuneError: `per_label` where a row has no label.
    """
    if section.per_label is None and section.rows is None:
        return examples
    labels, digests = _contents(examples, section.seed)
    drawn = _ranks(examples, digests)[0].tolist()
    if section.per_label is not None:
        if None in labels:
            fix = "use `sample: {rows: N}`, or `format: classification`"
            raise FinetuneError("`per_label` needs rows with labels", where=where, fix=fix)
        seen: Counter[str | None] = Counter()
        every, drawn = drawn, []
        for place in every:
            seen[labels[place]] += 1
            if seen[labels[place]] <= section.per_label:
                drawn.append(place)
    return chosen(examples, sorted(drawn[: section.rows]))


# ------------------------------------------------------------------------------------------------------ clusters


def _said(example: Example) -> str:
    """The text by which rows are likened: with labels the prompt alone."""
    if example.label is None:
        return example.everything_said()
    return "\n".join(turn.content for turn in example.context if turn.role != "system")


def _clusters(examples: Sequence[Example], section: SplitSection) -> _Clusters:
    joined = Clusters(len(examples))
    _join_equal((example.group for example in examples), joined)
    if section.near_duplicates == "together":
        _join_equal(near_duplicates(without_common_ends(Store(map(_said, examples)))), joined)
    roots = np.fromiter(map(joined.find, range(len(examples))), dtype=np.int64, count=len(examples))
    # The representative is a cluster's first row, so that clusters are numbered in order of appearance
    representatives, of = np.unique(roots, return_inverse=True)
    labels, digests = _contents(examples, section.seed)
    order = np.full(len(representatives), len(examples), dtype=np.int64)
    np.minimum.at(order, of, _ranks(examples, digests)[1])
    commonest = [labels[first] or "" for first in representatives.tolist()]
    for cluster, members in _several(of):
        counts = Counter(labels[place] or "" for place in members)
        commonest[cluster] = min(counts, key=lambda name: (-counts[name], name))
    return _Clusters(of, commonest, order)


def _several(of: NDArray[np.int64]) -> Iterable[tuple[int, list[int]]]:
    """The clusters of more than one row, with their rows."""
    several = np.flatnonzero(np.bincount(of[of >= 0]) > 1)
    places = np.flatnonzero(np.isin(of, several))
    places = places[np.argsort(of[places], kind="stable")]
    for members in np.split(places, np.flatnonzero(np.diff(of[places])) + 1):
        if len(members):
            yield int(of[members[0]]), members.tolist()


def _join_equal(values: Iterable[object], joined: Clusters) -> None:
    first: dict[object, int] = {}
    for index, value in enumerate(values):
        if value is not None:
            joined.join(first.setdefault(value, index), index)


def _contents(examples: Iterable[Example], seed: int) -> tuple[list[str | None], array[int]]:
    """Of each row its label, and the SHA-256 of seed and content as four numbers."""
    labels: list[str | None] = []
    digests = array("Q")
    for example in examples:
        labels.append(None if example.label is None else sys.intern(example.label))
        content = f"{seed}\n{example.label or ''}\n{example.everything_said()}"
        digests.frombytes(hashlib.sha256(content.encode()).digest())
    return labels, digests


def _ranks(examples: Sequence[Example], digests: array[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows in the order of the draw, by digest and among equal contents by id; and of each row its place in it."""
    parts = np.array(digests, dtype=np.uint64).byteswap().reshape(-1, 4)
    order = np.lexsort(parts.T[::-1])
    alike = (parts[order[1:]] == parts[order[:-1]]).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], alike, [False]]).astype(np.int8))).reshape(-1, 2)
    for begin, last in edges.tolist():
        order[begin : last + 1] = sorted(order[begin : last + 1].tolist(), key=lambda place: examples[place].id)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return order, ranks


# ---------------------------------------------------------------------------------------------------------- draw


def _take(clusters: _Clusters, fraction: float, part: str, where: str) -> set[int]:
    """Choose clusters holding about `fraction` of the rows, at least one and short of the last one of any label."""
    sizes, labels = clusters.sizes(), clusters.labels
    total = sum(sizes)
    target = max(1, round(fraction * total))
    strata: dict[str, list[int]] = defaultdict(list)
    drawn = [cluster for cluster in np.argsort(clusters.order, kind="stable").tolist() if sizes[cluster]]
    for cluster in drawn:
        strata[labels[cluster]].append(cluster)
    free = {label: len(found) - 1 for label, found in strata.items()}
    quotas = _quotas({label: sum(sizes[c] for c in found) for label, found in strata.items()}, target, total)
    taken: list[int] = []
    for label in sorted(strata):
        for cluster in strata[label]:
            if free[label] > 0 and sizes[cluster] <= quotas[label]:
                taken.append(cluster)
                free[label] -= 1
                quotas[label] -= sizes[cluster]
    missing = target - sum(sizes[cluster] for cluster in taken)
    fitting = set(taken)
    left = [cluster for cluster in drawn if cluster not in fitting]
    for cluster in left:
        if free[labels[cluster]] > 0 and sizes[cluster] <= missing:
            taken.append(cluster)
            free[labels[cluster]] -= 1
            missing -= sizes[cluster]
    if not taken:
        taken = sorted((c for c in left if free[labels[c]] > 0), key=lambda c: sizes[c])[:1]
    if not taken:
        raise _impossible([size for size in sizes if size], len(strata) > 1, target, part, where)
    return set(np.flatnonzero(np.isin(clusters.of, taken)).tolist())


def _unasked(examples: Sequence[Example], clusters: _Clusters) -> list[int]:
    """Rows of clusters that hold raw texts alone, in a corpus that has questions too: a test asks questions."""
    asked = np.fromiter((example.text is None for example in examples), dtype=np.bool_, count=len(examples))
    if asked.all() or not asked.any():
        return []
    return np.flatnonzero(~np.isin(clusters.of, clusters.of[asked])).tolist()


def _quotas(sizes: dict[str, int], target: int, total: int) -> dict[str, int]:
    """Apportion `target` rows to the labels by largest remainder, so that the quotas sum to it."""
    exact = {label: size * target / total for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: target - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _impossible(sizes: Sequence[int], labelled: bool, target: int, part: str, where: str) -> FinetuneError:
    total, largest = sum(sizes), max(sizes, default=0)
    count = "1 cluster" if len(sizes) == 1 else f"{len(sizes):,} clusters"
    kept = "each label needs one to train on" if labelled else "one is needed to train on"
    return FinetuneError(
        f"impossible split: {target:,} of {total:,} rows are asked for {part}, but they form {count} kept whole (the "
        f"largest has {largest:,} rows) and {kept}",
        where=where,
        fix=f"give more rows, set `{part}: 0`, name a file as `data.{part}`, or set `near_duplicates: ignore` or "
        "another `group_by`",
    )


# --------------------------------------------------------------------------------------------------------- notes


def _official(examples: Sequence[Example], test_ids: set[str], where: str) -> set[int]:
    position = {example.id: index for index, example in enumerate(examples) if example.id in test_ids}
    unknown = sorted(test_ids - position.keys())
    if unknown:
        known = some(repr(example.id) for example in examples[:3])
        raise FinetuneError(
            f"{len(unknown):,} of {len(test_ids):,} test ids are in no row: {some(map(repr, unknown))}",
            where=where,
            fix=f"the rows have ids such as {known}; name their column as `columns: {{id: ...}}`",
        )
    return {position[identity] for identity in test_ids}


def _left_near(examples: Sequence[Example], clusters: _Clusters, test: set[int], where: str) -> list[Problem]:
    """Name the rows that stay in training though an official test row is nearly the same."""
    beside = np.isin(clusters.of, clusters.of[sorted(test)])
    near = [place for place in np.flatnonzero(beside).tolist() if place not in test]
    if not near:
        return []
    named = some(f"{examples[index].id} ({examples[index].origin})" for index in near)
    return [
        Problem(
            where,
            f"{len(near):,} rows outside the official test are nearly identical to test rows, or in one group with "
            f"them: {named}",
            "they are trained on; remove them for a clean comparison",
            "warning",
        )
    ]


def _cluster_notes(clusters: _Clusters, where: str) -> list[Problem]:
    together = [size for size in clusters.sizes() if size > 1]
    if not together:
        return []
    what = (
        f"{sum(together):,} rows are nearly identical to others or in one group with them: {len(together):,} clusters, "
        f"the largest of {max(together):,} rows; each stays on one side of the split"
    )
    return [Problem(where, what, severity="note")]
