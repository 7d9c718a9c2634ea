"""Metrics that benchmarks are published with: the letter of a choice, TAT-QA's F1 over spans and numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from finetune.evaluation.scoring.scorer import Score, Scorer, graded, right_or_wrong
from finetune.evaluation.scoring.words import collapse, words

_MARKS = r"[\s\"'`*_(\[]*"
_LETTER_ALONE = re.compile(rf"{_MARKS}([A-Za-z])[\s\"'`*_)\]]*")
_LETTER_FIRST = re.compile(rf"{_MARKS}([A-Z])[\"'`*_)\]]*(?:[.:,;)\]]|\s+[-\u2013\u2014])")
_LETTER_SAID = re.compile(rf"(?i:\b(?:answer|option|choice)(?:\s+is)?)\s*:?{_MARKS}([A-Z])(?![\w'\u2019])")


def choice_scorer() -> Scorer:
    """The answer names the letter of the right choice, however it is dressed up.

    Read are a letter alone, a letter before `.`, `:`, `)` or a dash at the start of the answer's first line, and what
    follows the words answer, option or choice. `A man ...` is no letter. An answer without one is wrong and has
    `{"letter": None}` in its detail.
    """

    def judge(answer: str, reference: str) -> Score:
        given = letter_of(answer)
        return Score(float(given is not None and given == letter_of(reference)), {"letter": given})

    return right_or_wrong("choice", judge, "the answer names the letter of the right choice")


def letter_of(answer: str) -> str | None:
    """Return the letter that an answer names, or None."""
    line = next((line for line in answer.splitlines() if line.strip()), "")
    found = _LETTER_ALONE.fullmatch(line) or _LETTER_FIRST.match(line) or _LETTER_SAID.search(answer)
    return found.group(1).upper() if found else None


_SCALES = {"": 1.0, "%": 0.01, "percent": 0.01, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_NUMBER = re.compile(
    r"(?P<open>\()?(?P<minus>-)?[$\u20ac\u00a3]?\s?(?P<inner>-|\()?(?P<digits>\d[\d,]*(?:\.\d+)?|\.\d+)\)?\s?"
    r"(?P<scale>%|percent|thousand|million|billion)?\)?",
    re.IGNORECASE,
)


def tatqa_scorer() -> Scorer:
    """TAT-QA's numeracy-focused F1 (Zhu et al. 2021, arXiv:2105.07624), with exact match in the detail.

    Each line of an answer is a span. Numbers are equal in value with their scale ($1.2 million = 1,200 thousand, 5 % =
    0.05), to four decimals, and (3) is -3. Other spans share words as in `token_f1`, but nothing where the reference's
    span has numbers and shares none of them. Spans are paired to their best, and the sum is divided by the longer
    list.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = _spans(answer), _spans(reference)
        exact = len(given) == len(wanted) and _best(given, wanted, _equal) == len(wanted)
        f1 = _best(given, wanted, _overlap) / max(len(given), len(wanted), 1)
        return Score(1.0 if exact else f1, {"exact": exact})

    return graded("tatqa", "mean numeracy F1", judge, "numeracy-focused F1 of spans and numbers")


def _spans(text: str) -> list[str]:
    return [collapse(line) for line in text.splitlines() if line.strip()]


def _value(span: str) -> float | None:
    """The number that a whole span is, with its scale, or None."""
    match = _NUMBER.fullmatch(span)
    if match is None:
        return None
    value = float(match["digits"].replace(",", "")) * _SCALES[(match["scale"] or "").lower()]
    return -value if match["minus"] or match["inner"] or match["open"] else value


def _equal(given: str, wanted: str) -> float:
    values = _value(given), _value(wanted)
    if values[0] is not None and values[1] is not None:
        return float(math.isclose(values[0], values[1], rel_tol=1e-9, abs_tol=5e-5))
    return float(words(given) == words(wanted))


def _overlap(given: str, wanted: str) -> float:
    if _value(given) is not None or _value(wanted) is not None:
        return _equal(given, wanted)
    left, right = Counter(words(given)), Counter(words(wanted))
    shared = left & right
    numbers = {word for word in right if word[0].isdigit()}
    if not shared or (numbers and not numbers & set(shared)):
        return 0.0
    return 2 * shared.total() / (left.total() + right.total())


def _best(given: list[str], wanted: list[str], like: Callable[[str, str], float]) -> float:
    """Pair the spans so that they are as like as can be, and return the sum of their likenesses."""
    if not given or not wanted:
        return 0.0
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    table = np.array([[like(one, other) for other in wanted] for one in given])
    return float(table[linear_sum_assignment(table, maximize=True)].sum())
