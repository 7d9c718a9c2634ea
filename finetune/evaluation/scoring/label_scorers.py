"""Scorers of classification: `label` is accuracy, `balanced` the mean recall of classes, `macro_f1` the mean of F1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune.evaluation.scoring.scorer import Floats, Score, Scorer, WholeSet, right_or_wrong
from finetune.evaluation.scoring.words import collapse


def label_scorer(labels: Sequence[str]) -> Scorer:
    """The answer's first non-empty line names the right one of the known labels.

    Case and surrounding punctuation are overlooked as far as the labels stay distinct without them. An answer that
    is no label is wrong and has `{"label": None}` in its detail.

    Raises:
        ValueError: There are no labels.
    """
    if not labels:
        raise ValueError("a label scorer needs labels")
    distinct = sorted(set(labels))
    level = next(level for level in _LABEL_LEVELS if level is _unchanged or _keeps_apart(level, distinct))
    by_form = {level(label): label for label in distinct}

    def judge(answer: str, reference: str) -> Score:
        line = next((line for line in answer.splitlines() if line.strip()), "")
        given = by_form.get(level(line))
        return Score(float(given is not None and given == by_form.get(level(reference))), {"label": given})

    return right_or_wrong("label", judge, f"the answer's first line is the right one of {len(distinct)} labels")


def _unchanged(text: str) -> str:
    return text


_LABEL_LEVELS: tuple[Callable[[str], str], ...] = (
    lambda text: re.sub(r"^[\W_]+|[\W_]+$", "", collapse(text)).casefold(),
    lambda text: collapse(text).casefold(),
    collapse,
    _unchanged,
)


def _keeps_apart(level: Callable[[str], str], labels: Sequence[str]) -> bool:
    forms = {level(label) for label in labels}
    return len(forms) == len(labels) and "" not in forms


def balanced_scorer(labelled: Scorer, references: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Scorer:
    """Balanced accuracy: the mean over classes of the share of each that is found, as LegalBench reports it.

    Rows of several tasks (`task` in their metadata) are balanced in each, and the tasks count alike. An item scores 0
    or the weight of its class, so that the plain mean over all items is the metric and differences stay paired.

    Args:
        labelled: the label scorer that says what is right.
        references: right answers of all the items that will be judged.
        metadata: theirs, in the same order.
    """
    tasks = [str(item.get("task", "")) for item in metadata] or [""] * len(references)
    counts = Counter(zip(tasks, references, strict=True))
    classes = Counter(task for task, _ in counts)
    weights = {
        (task, label): len(references) / (len(classes) * classes[task] * count)
        for (task, label), count in counts.items()
    }

    def judge(answer: str, reference: str, item: Mapping[str, Any]) -> Score:
        found = labelled.judge(answer, reference)
        return Score(found.value * weights[str(item.get("task", "")), reference], found.detail)

    what = f"mean share found of {len(counts)} classes" + (f" in {len(classes)} tasks" if len(classes) > 1 else "")
    return Scorer(
        "balanced",
        False,
        True,
        unit="balanced accuracy",
        judge=labelled.judge,
        description=what,
        judge_item=judge,
        highest=max(weights.values()),
    )


def macro_f1_scorer(labelled: Scorer, references: Sequence[str]) -> Scorer:
    """Macro-F1: the mean over classes of 2 TP / (2 TP + FP + FN), a metric of the whole set (Opitz & Burst 2019).

    It is arXiv:1911.03347's averaged F1, and scikit-learn's `f1_score(average="macro")` over the classes that occur
    among the references; a class that only a contestant names is no class of the mean, but costs the one that it was
    named for. An item's own score says whether its label is right.

    Args:
        labelled: the label scorer that says what is right.
        references: right answers of all the items that will be judged.
    """
    places = {label: place for place, label in enumerate(sorted(set(references)))}

    def judge(answer: str, reference: str) -> Score:
        found = labelled.judge(answer, reference)
        return Score(found.value, {**found.detail, "wanted": reference})

    def parts(details: Sequence[Mapping[str, Any]]) -> Floats:
        """Right, given and wanted, each a column a class."""
        table: Floats = np.zeros((len(details), 3, len(places)))
        for row, detail in zip(table, details, strict=True):
            given, wanted = places.get(detail["label"]), places[detail["wanted"]]
            row[2, wanted] = 1
            if given is not None:
                row[1, given] = 1
                row[0, given] = float(given == wanted)
        return table.reshape(len(details), -1)

    def of(sums: Floats) -> Floats:
        right, given, wanted = np.split(sums, 3, axis=-1)
        # A sample drawn for an interval may lack a class; its F1 is then not 0 but nothing
        there = wanted > 0
        f1 = np.divide(2 * right, given + wanted, out=np.zeros_like(right), where=there)
        mean: Floats = f1.sum(axis=-1) / there.sum(axis=-1)
        return mean

    what = f"mean F1 of {len(places)} classes"
    return Scorer("macro_f1", True, True, "macro-F1", judge, what, whole=WholeSet(parts, of))
