"""Divide a corpus into train, validation and test without leaks: `divide(examples, recipe.data.split, ...)`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetune.data.near_duplicates import Clusters, near_duplicates, normalise, without_common_ends
from finetune.data.rows import Example
from finetune.data.sources import read_text
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import SampleSection, SplitSection

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """The three parts, each in the order of the corpus; `clusters` counts what was kept on one side as a whole."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    clusters: int
    notes: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Rows that stay together: their positions, their commonest label, and their place in the draw."""

    members: tuple[int, ...]
    label: str
    order: tuple[str, str]


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
        test = _take(clusters, section.test, "test", where)
    rest = [_without(cluster, test) for cluster in clusters if not test.issuperset(cluster.members)]
    validation = (
        _take(rest, section.validation, "validation", where) if section.validation and not has_validation else set()
    )
    train = [example for index, example in enumerate(examples) if index not in test and index not in validation]
    if not train:
        raise FinetuneError("no row is left to train on", where=where, fix="make the other parts smaller")
    return Division(
        train=train,
        validation=[examples[index] for index in sorted(validation)],
        test=[examples[index] for index in sorted(test)],
        clusters=len(clusters),
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


def overlap(train: Sequence[Example], test: Sequence[Example], *, where: str = "data.test") -> list[Problem]:
    """Report test rows whose text is that of a training row, case and punctuation aside. Nothing is removed.

    Args:
        train: training rows.
        test: rows of a file of their own.
        where: the recipe's position, put before the report.
    """
    texts = [normalise(text, fold_digits=False) for text in _compared([*train, *test])]
    first: dict[str, Example] = {}
    for text, example in zip(texts[: len(train)], train, strict=True):
        first.setdefault(text, example)
    pairs = [(example, first[text]) for text, example in zip(texts[len(train) :], test, strict=True) if text in first]
    if not pairs:
        return []
    named = _some(f"{example.origin} = {trained.origin}" for example, trained in pairs)
    return [
        Problem(
            where,
            f"{len(pairs):,} of {len(test):,} test rows are in the training rows too, case and punctuation aside: "
            f"{named}",
            "the verdict counts them; remove them from one side for a clean comparison",
            "warning",
        )
    ]


def sample(examples: Sequence[Example], section: SampleSection, *, where: str = "data.sample") -> list[Example]:
    """Draw the part of the training rows that the recipe asks for, in the order of the corpus.

    The draw is a hash of content and seed: a larger sample contains the smaller one.

    Raises:
        FinetuneError: `per_label` where a row has no label.
    """
    chosen = sorted(range(len(examples)), key=lambda index: _place(examples[index], section.seed))
    if section.per_label is not None:
        if any(example.label is None for example in examples):
            fix = "use `sample: {rows: N}`, or `format: classification`"
            raise FinetuneError("`per_label` needs rows with labels", where=where, fix=fix)
        seen: Counter[str | None] = Counter()
        drawn, chosen = chosen, []
        for index in drawn:
            seen[examples[index].label] += 1
            if seen[examples[index].label] <= section.per_label:
                chosen.append(index)
    if section.rows is not None:
        chosen = chosen[: section.rows]
    return [examples[index] for index in sorted(chosen)]


# ------------------------------------------------------------------------------------------------------ clusters


def _compared(examples: Sequence[Example]) -> list[str]:
    """The texts by which rows are likened: with labels the prompt alone, without what all rows share."""
    said = [
        example.everything_said()
        if example.label is None
        else "\n".join(turn.content for turn in example.context if turn.role != "system")
        for example in examples
    ]
    return without_common_ends(said)


def _clusters(examples: Sequence[Example], section: SplitSection) -> list[_Cluster]:
    joined = Clusters(len(examples))
    if section.group_by is not None:
        _join_equal([example.group for example in examples], joined)
    if section.near_duplicates == "together":
        _join_equal(near_duplicates(_compared(examples)), joined)
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(examples)):
        members[joined.find(index)].append(index)
    return [_cluster(examples, tuple(found), section.seed) for found in members.values()]


def _join_equal(values: Sequence[object], joined: Clusters) -> None:
    first: dict[object, int] = {}
    for index, value in enumerate(values):
        if value is not None:
            joined.join(first.setdefault(value, index), index)


def _cluster(examples: Sequence[Example], members: tuple[int, ...], seed: int) -> _Cluster:
    counts = Counter(examples[index].label or "" for index in members)
    label = min(counts, key=lambda name: (-counts[name], name))
    return _Cluster(members, label, min(_place(examples[index], seed) for index in members))


def _place(example: Example, seed: int) -> tuple[str, str]:
    """Return the row's place in the draw: a hash of seed and content; among equal contents, the id decides."""
    content = f"{seed}\n{example.label or ''}\n{example.everything_said()}"
    return hashlib.sha256(content.encode()).hexdigest(), example.id


def _without(cluster: _Cluster, taken: set[int]) -> _Cluster:
    return _Cluster(tuple(index for index in cluster.members if index not in taken), cluster.label, cluster.order)


# ---------------------------------------------------------------------------------------------------------- draw


def _take(clusters: Sequence[_Cluster], fraction: float, part: str, where: str) -> set[int]:
    """Choose clusters holding about `fraction` of the rows, at least one and short of the last one of any label."""
    total = sum(len(cluster.members) for cluster in clusters)
    target = max(1, round(fraction * total))
    strata: dict[str, list[_Cluster]] = defaultdict(list)
    for cluster in sorted(clusters, key=lambda cluster: cluster.order):
        strata[cluster.label].append(cluster)
    free = {label: len(found) - 1 for label, found in strata.items()}
    quotas = _quotas({label: sum(len(c.members) for c in found) for label, found in strata.items()}, target, total)
    taken: list[_Cluster] = []
    left: list[_Cluster] = []
    for label in sorted(strata):
        for cluster in strata[label]:
            fits = free[label] > 0 and len(cluster.members) <= quotas[label]
            (taken if fits else left).append(cluster)
            if fits:
                free[label] -= 1
                quotas[label] -= len(cluster.members)
    missing = target - sum(len(cluster.members) for cluster in taken)
    for cluster in sorted(left, key=lambda cluster: cluster.order):
        if free[cluster.label] > 0 and len(cluster.members) <= missing:
            taken.append(cluster)
            free[cluster.label] -= 1
            missing -= len(cluster.members)
    if not taken:
        taken = sorted((c for c in left if free[c.label] > 0), key=lambda c: (len(c.members), c.order))[:1]
    if not taken:
        raise _impossible(clusters, target, total, part, where)
    return {index for cluster in taken for index in cluster.members}


def _quotas(sizes: dict[str, int], target: int, total: int) -> dict[str, int]:
    """Apportion `target` rows to the labels by largest remainder, so that the quotas sum to it."""
    exact = {label: size * target / total for label, size in sizes.items()}
    quotas = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: target - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _impossible(clusters: Sequence[_Cluster], target: int, total: int, part: str, where: str) -> FinetuneError:
    largest = max((len(cluster.members) for cluster in clusters), default=0)
    count = "1 cluster" if len(clusters) == 1 else f"{len(clusters):,} clusters"
    labelled = len({cluster.label for cluster in clusters}) > 1
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
    position = {example.id: index for index, example in enumerate(examples)}
    unknown = sorted(test_ids - position.keys())
    if unknown:
        raise FinetuneError(
            f"{len(unknown):,} of {len(test_ids):,} test ids are in no row: {_some(map(repr, unknown))}",
            where=where,
            fix=f"the rows have ids such as {_some(map(repr, list(position)[:3]))}; name their column as "
            "`columns: {id: ...}`",
        )
    return {position[identity] for identity in test_ids}


def _left_near(examples: Sequence[Example], clusters: Sequence[_Cluster], test: set[int], where: str) -> list[Problem]:
    """Name the rows that stay in training though an official test row is nearly the same."""
    near = [
        index
        for cluster in clusters
        if test.intersection(cluster.members)
        for index in cluster.members
        if index not in test
    ]
    if not near:
        return []
    named = _some(f"{examples[index].id} ({examples[index].origin})" for index in sorted(near))
    return [
        Problem(
            where,
            f"{len(near):,} rows outside the official test are nearly identical to test rows, or in one group with "
            f"them: {named}",
            "they are trained on; remove them for a clean comparison",
            "warning",
        )
    ]


def _cluster_notes(clusters: Sequence[_Cluster], where: str) -> list[Problem]:
    together = [len(cluster.members) for cluster in clusters if len(cluster.members) > 1]
    if not together:
        return []
    what = (
        f"{sum(together):,} rows are nearly identical to others or in one group with them: {len(together):,} clusters, "
        f"the largest of {max(together):,} rows; each stays on one side of the split"
    )
    return [Problem(where, what, severity="note")]


def _some(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(items[:_NAMED]) + (f" and {len(items) - _NAMED:,} more" if len(items) > _NAMED else "")
