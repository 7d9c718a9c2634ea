"""Find faults of classes: names that differ by a slip, rows that contradict each other, rare and overwhelming ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from finetune.data.checks.findings import Finding, Places, Sighting, counted, rows, some
from finetune.data.checks.material import Material, digest, has_classes, prompt_of
from finetune.data.rows import Example

_CLASSES, _SHARE, _CHARACTERS = 100, 0.1, 60
"""Answers are classes where there are at most 100 different ones of 60 characters, each in ten rows on the average."""
_RARE = 2
_OVERWHELMING, _TIMES = 0.8, 20
_SLIP_FROM, _SLIP_SHARE = 4, 0.05


def class_of(examples: Sequence[Example]) -> Callable[[Example], str] | None:
    """Return what gives a row its class: its label, or its answer where few short ones repeat; None for free answers.

    Args:
        examples: the training rows.
    """
    if examples and all(example.label is not None for example in examples):
        return lambda example: example.label or ""
    if not examples or any(example.text is not None for example in examples):
        return None
    known: set[str] = set()
    for example in examples:
        known.add(example.reference)
        if len(example.reference) > _CHARACTERS or len(known) > _CLASSES:
            return None
    return (lambda example: example.reference) if 1 < len(known) <= _SHARE * len(examples) else None


def check_label_typos(material: Material) -> list[Finding]:
    """Find class names that differ by one edit from a common one, and answers that do so in case or white space."""
    name_of = class_of(material.train)
    if name_of is None:
        return []
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for example in material.train:
        first.setdefault(name_of(example), str(example.origin))
        counts[name_of(example)] += 1
    # What reads a column of labels tells those that differ in case
    told = has_classes(material.train)
    findings = []
    for rarer, other in _look_alikes(counts):
        if told and _folded(rarer) == _folded(other):
            continue
        what = f"classes {rarer!r} ({rows(counts[rarer])}) and {other!r} ({rows(counts[other])}) "
        what += "differ only in case or white space" if _folded(rarer) == _folded(other) else "differ by one letter"
        findings.append(
            Finding(
                kind="label_typos",
                severity="warning",
                count=counts[rarer],
                what=what,
                examples=(Sighting(first[rarer]),),
                fix="they count as different classes; write them alike if they are one",
            )
        )
    return findings


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _look_alikes(counts: Counter[str]) -> list[tuple[str, str]]:
    """Return pairs of names that may be one, the rarer one first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        folded = _folded(name)
        # Names one edit apart have a way of dropping one letter in common
        for key in {folded, *(folded[:at] + folded[at + 1 :] for at in range(len(folded)))}:
            groups[key].append(name)
    pairs = set()
    for names in groups.values():
        for pair in combinations(names, 2):
            rarer, other = sorted(pair, key=lambda name: (counts[name], name))
            if _folded(rarer) == _folded(other) or _is_slip(rarer, other, counts):
                pairs.add((rarer, other))
    return sorted(pairs)


def _is_slip(rarer: str, other: str, counts: Counter[str]) -> bool:
    """Tell whether a rare name is one edit of letters away from a common one; numbers tell classes apart."""
    one, two = _folded(rarer), _folded(other)
    seldom = counts[rarer] <= max(_RARE, _SLIP_SHARE * counts[other]) and counts[rarer] < counts[other]
    if not seldom or min(len(one), len(two)) < _SLIP_FROM:
        return False
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    tails = (one[start:], two[start:])
    if not (set(tails[0][:2]) | set(tails[1][:2])).isdisjoint("0123456789"):
        return False
    longer, shorter = sorted(tails, key=len, reverse=True)
    exchanged = longer[1::-1] == shorter[:2] and longer[2:] == shorter[2:]
    return longer[1:] == shorter or (len(longer) == len(shorter) and (longer[1:] == shorter[1:] or exchanged))


def check_rare_labels(material: Material) -> list[Finding]:
    """Find classes of one or two training rows."""
    name_of = class_of(material.train)
    if name_of is None:
        return []
    of_class: dict[str, set[str]] = defaultdict(set)
    for example in material.train:
        if len(of_class[name_of(example)]) <= _RARE:
            of_class[name_of(example)].add(str(example.origin))
    rare = {name: sorted(places) for name, places in sorted(of_class.items()) if len(places) <= _RARE}
    if not rare or len(rare) == len(of_class):
        return []
    return [
        Finding(
            kind="rare_labels",
            severity="warning",
            count=len(rare),
            what=f"{len(rare):,} of {len(of_class):,} classes have one or two training rows",
            examples=some(Sighting(places[0], repr(name)) for name, places in rare.items()),
            fix="give each a dozen rows or more, or join it with another class",
        )
    ]


def check_label_imbalance(material: Material) -> list[Finding]:
    """Say where one class has most training rows, or twenty times those of the rarest."""
    name_of = class_of(material.train)
    if name_of is None:
        return []
    counts = Counter(name_of(example) for example in material.train)
    (name, most), (_, least) = counts.most_common()[0], counts.most_common()[-1]
    share = most / len(material.train)
    if len(counts) < 2 or (share < _OVERWHELMING and most < _TIMES * least):
        return []
    shown = counted([(repr(one), count) for one, count in _ends(counts.most_common())])
    return [
        Finding(
            kind="label_imbalance",
            severity="warning" if share >= _OVERWHELMING else "note",
            count=most,
            what=f"class {name!r} has {share:.0%} of the training rows, {most / least:,.0f} times those of the rarest: "
            f"{shown}",
            examples=(),
            fix=f"who always answers {name!r} is right that often too; judge by balanced accuracy, or even the classes "
            "out with data.sample.per_label",
        )
    ]


def _ends(items: Sequence[tuple[str, int]]) -> Iterable[tuple[str, int]]:
    return items if len(items) <= 5 else (*items[:3], *items[-2:])


def check_conflicting_labels(material: Material) -> list[Finding]:
    """Find equal texts with different classes."""
    name_of = class_of(material.train)
    if name_of is None:
        return []
    first: dict[bytes, tuple[int, str]] = {}
    seen = Places()
    for number, example in enumerate(material.train):
        earlier, name = first.setdefault(digest(prompt_of(example)), (number, name_of(example)))
        if name != name_of(example):
            seen.add(f"{example.origin} = {material.train[earlier].origin}", f"{name_of(example)!r} and {name!r}")
    if not seen.count:
        return []
    return [
        Finding(
            kind="conflicting_labels",
            severity="warning",
            count=seen.count,
            what=f"{rows(seen.count, 'training')} with the text of another row and another class",
            examples=seen.examples,
            fix="decide for one class: no model can learn both",
        )
    ]
