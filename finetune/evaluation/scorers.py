"""Judge one answer against one reference: `choose_scorer` picks the `Scorer` of a task, `scorer.judge` applies it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError, nearest
from finetune.evaluation.reading import last_number, parse_object, without_fence
from finetune.evaluation.words import collapse, words, words_touch
from finetune.recipe.schema import EvaluateSection

BITS_PER_BYTE = "bits per byte"
SHORT_ANSWER_WORDS = 5
"""References of at most this many words, all on one line, are judged by `exact` when nothing else fits."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good one answer is: 0 to 1, except for bits_per_byte. `detail` says why, in JSON values."""

    value: float
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scorer:
    """A way of judging answers. `judge(answer, reference)` looks at texts only.

    `binary` scorers give 0 or 1. With `needs_likelihood` there is no answer to judge: the score comes from the
    runtime's log-likelihood of the reference (`bits_per_byte`), and is unbounded. `guess` makes, out of the training
    answers, the one answer that a contestant without any understanding would always give.
    """

    name: str
    binary: bool
    higher_is_better: bool
    unit: str
    judge: Callable[[str, str], Score]
    description: str
    needs_likelihood: bool = False
    guess: Callable[[Sequence[str]], str] = field(default_factory=lambda: _commonest)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest possible score, None where there is no such limit."""
        return None if self.needs_likelihood else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the trivial contestant scored on each test item, and in words what it does."""

    name: str
    scores: NDArray[np.float64]
    what: str


# --------------------------------------------------------------------------------------------------- the scorers


def _right_or_wrong(
    name: str,
    judge: Callable[[str, str], Score],
    description: str,
    guess: Callable[[Sequence[str]], str] | None = None,
) -> Scorer:
    return Scorer(name, True, True, "share right", judge, description, guess=guess or _commonest)


def exact_scorer() -> Scorer:
    """The whole answer equals the reference, case included, up to white space and Unicode composition (NFC).

    Case counts because codes, names and SQL literals differ by it; `contains` and `label` overlook it.
    """

    def judge(answer: str, reference: str) -> Score:
        return Score(float(collapse(answer) == collapse(reference)))

    return _right_or_wrong("exact", judge, "the answer equals the reference")


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

    return _right_or_wrong("label", judge, f"the answer's first line is the right one of {len(distinct)} labels")


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


def number_scorer() -> Scorer:
    """The last number of the answer (the first after the last `####`) equals the reference's within a millionth.

    Numbers are read by `last_number`: 12 % is 12, $1,234.50 is 1234.5.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = last_number(answer), last_number(reference)
        right = given is not None and wanted is not None and math.isclose(given, wanted, rel_tol=1e-6)
        return Score(float(right), {"number": given})

    return _right_or_wrong("number", judge, "the answer's last number equals the reference's", guess=_commonest_number)


def contains_scorer() -> Scorer:
    """The reference occurs in the answer as whole words, whatever the case."""

    def judge(answer: str, reference: str) -> Score:
        text, wanted = collapse(answer).casefold(), collapse(reference).casefold()
        start = text.find(wanted)
        while start >= 0:
            end = start + len(wanted)
            if not (
                words_touch(text[max(0, start - 1) : start], wanted[:1])
                or words_touch(wanted[-1:], text[end : end + 1])
            ):
                return Score(1.0)
            start = text.find(wanted, start + 1)
        return Score(0.0)

    return _right_or_wrong("contains", judge, "the reference occurs in the answer")


def json_fields_scorer(fields: Sequence[str] = ()) -> Scorer:
    """Share of the reference's JSON fields that the answer gives with the same value.

    The answer must be one JSON object and nothing else; a single code fence around the whole of it is taken off and
    noted, since chat models put it there by habit. Values are equal in type and content; text is compared as by
    `exact`, lists in order. Fields the reference does not have cost nothing and are listed under `extra`.

    Args:
        fields: Compare these only; empty means all of each reference's.
    """

    def judge(answer: str, reference: str) -> Score:
        wanted = parse_object(reference)
        if wanted is None:
            raise ValueError(f"the reference is no JSON object: {reference!r}")
        names = tuple(fields) or tuple(wanted)
        inner, fenced = without_fence(answer)
        given = parse_object(inner)
        right = {
            name: given is not None and _same(given.get(name, _ABSENT), wanted.get(name, _ABSENT)) for name in names
        }
        extra = sorted(set(given or ()) - set(wanted))
        detail = {"valid_json": given is not None, "fenced": fenced, "fields": right, "extra": extra}
        return Score(sum(right.values()) / len(right) if right else float(given == wanted), detail)

    what = f"share of the fields {', '.join(fields)} right" if fields else "share of the reference's JSON fields right"
    return Scorer(
        "json_fields", False, True, unit="share of fields right", judge=judge, description=what, guess=_commonest_object
    )


_ABSENT = object()


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return collapse(given) == collapse(wanted)
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(_same, given, wanted))
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(_same(given[key], wanted[key]) for key in wanted)
    # True == 1 in Python, but not in JSON; 1 and 1.0 are the same JSON number.
    return isinstance(given, bool) == isinstance(wanted, bool) and bool(given == wanted)


def token_f1_scorer() -> Scorer:
    """Harmonic mean of precision and recall over words, as in SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250).

    Case, punctuation and English articles are overlooked. Words are Unicode words; in scripts without spaces each
    character counts as one.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = Counter(_content_words(answer)), Counter(_content_words(reference))
        if not given or not wanted:
            return Score(float(given == wanted))
        shared = (given & wanted).total()
        return Score(2 * shared / (given.total() + wanted.total()))

    return Scorer(
        "token_f1", False, True, unit="mean word F1", judge=judge, description="word overlap of answer and reference"
    )


def _content_words(text: str) -> list[str]:
    found = words(text)
    # An answer that is nothing but an article ("A", in multiple choice) is kept.
    return [word for word in found if word not in {"a", "an", "the"}] or found


def bits_per_byte_scorer() -> Scorer:
    """How many bits the model needs for each UTF-8 byte of the text; lower is better. See `bits_per_byte`."""

    def judge(answer: str, reference: str) -> Score:
        raise ValueError("bits_per_byte judges no answers: take the runtime's log-likelihood to bits_per_byte()")

    return Scorer(
        "bits_per_byte", False, False, BITS_PER_BYTE, judge, "bits per byte of the text", needs_likelihood=True
    )


def bits_per_byte(log_likelihood: float, text: str) -> float:
    """Bits per UTF-8 byte, comparable between tokenizers: -log2 p(text) / bytes.

    Args:
        log_likelihood: Natural logarithm of the probability of `text`, in nats.
        text: What was predicted.

    Raises:
        ValueError: The text is empty.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if not size:
        raise ValueError("an empty text has no bits per byte")
    return -log_likelihood / (math.log(2) * size)


# ---------------------------------------------------------------------------------------------------- the choice


def choose_scorer(
    section: EvaluateSection, references: Sequence[str], *, labels: Sequence[str] | None, raw_text: bool
) -> tuple[Scorer, str]:
    """The scorer the recipe names, or the one that fits the references, and why.

    Args:
        section: The recipe's `evaluate`.
        references: What ought to be answered on the test items.
        labels: Known classes of classification data, else None.
        raw_text: Whether the items are raw text, without question and answer.

    Raises:
        FinetuneError: There is no reference, or the named scorer cannot judge these references.
    """
    if not references:
        raise FinetuneError(
            "there are no test rows to evaluate on",
            where="evaluate",
            fix="give data.test, or a data.split.test above 0",
        )
    if section.scorer == "auto":
        name, why = _fitting(references, labels, raw_text)
    else:
        name, why = section.scorer, f"evaluate.scorer is {section.scorer}"
    if section.fields and name != "json_fields":
        raise FinetuneError(
            f"the fields {list(section.fields)!r} are only compared by json_fields, but the scorer is {name!r} ({why})",
            where="evaluate.fields",
            fix="remove them, or set evaluate.scorer to json_fields",
        )
    _check_fit(name, section.fields, references, labels, raw_text)
    if name == "label":
        unseen = set(references) - set(labels or ())
        why += f"; {len(unseen)} of them only in the test rows" if unseen else ""
        return label_scorer([*(labels or ()), *references]), why
    if name == "json_fields":
        return json_fields_scorer(section.fields), why
    makers = {
        "exact": exact_scorer,
        "number": number_scorer,
        "contains": contains_scorer,
        "token_f1": token_f1_scorer,
        "bits_per_byte": bits_per_byte_scorer,
    }
    return makers[name](), why


def _fitting(references: Sequence[str], labels: Sequence[str] | None, raw_text: bool) -> tuple[str, str]:
    if raw_text:
        return "bits_per_byte", "the rows are raw text"
    if labels:
        return "label", f"the rows are classification data with {len(set(labels) | set(references))} labels"
    if all(parse_object(reference) for reference in references):
        return "json_fields", f"all {len(references)} reference answers are JSON objects"
    longest = max(len(words(reference)) for reference in references)
    if longest <= SHORT_ANSWER_WORDS and not any("\n" in reference.strip() for reference in references):
        return "exact", f"the reference answers are short (longest in words: {longest})"
    return "token_f1", f"the reference answers are texts (longest in words: {longest})"


def _check_fit(
    name: str, fields: Sequence[str], references: Sequence[str], labels: Sequence[str] | None, raw_text: bool
) -> None:
    what, fix = "", "set evaluate.scorer to auto"
    if raw_text and name != "bits_per_byte":
        what = "raw text has no answers"
    elif name == "label" and not labels:
        what = "they are no classification data with known labels"
    elif name in _NEEDS:
        meets, fault, fix = _NEEDS[name]
        unfit = next((text for text in references if not meets(text)), None)
        what = "" if unfit is None else f"the reference {_clip(unfit)!r} {fault}"
    if what:
        raise FinetuneError(f"{name} cannot judge these rows: {what}", where="evaluate.scorer", fix=fix)
    known = {key for text in references for key in parse_object(text) or ()} if fields else set()
    missing = [name for name in fields if name not in known]
    if missing:
        near = nearest(missing[0], known)
        fix = f"did you mean {near!r}?" if near else f"they have: {', '.join(sorted(known))}"
        raise FinetuneError(f"no reference has the field {missing[0]!r}", where="evaluate.fields", fix=fix)


_NEEDS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "number": (lambda text: last_number(text) is not None, "has no number", "set evaluate.scorer to auto"),
    "contains": (collapse, "is empty and occurs in every answer", "set evaluate.scorer to auto"),
    "json_fields": (parse_object, "is no JSON object with content", "set evaluate.scorer to auto"),
    "bits_per_byte": (bool, "is empty and has no bytes", "remove the empty rows"),
}


def _clip(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# --------------------------------------------------------------------------------------------- trivial baselines


def trivial_baseline(scorer: Scorer, train_references: Sequence[str], test_references: Sequence[str]) -> Baseline:
    """What a contestant without any understanding scores: the commonest training answer, given to every item.

    For json_fields that is the object of each field's commonest value; for bits_per_byte, a code by the byte
    frequencies of the training text (order 0, add-one smoothing).

    Raises:
        ValueError: There are no training or no test references.
    """
    if not train_references or not test_references:
        raise ValueError("a trivial baseline needs training and test references")
    if scorer.needs_likelihood:
        counts = np.ones(256) + np.bincount(_bytes("".join(train_references)), minlength=256)
        bits = -np.log2(counts / counts.sum())
        scores = np.array([bits[_bytes(reference)].mean() for reference in test_references])
        return Baseline("byte frequencies", scores, "each byte coded by its frequency in the training text")
    answer = scorer.guess(train_references)
    scores = np.array([scorer.judge(answer, reference).value for reference in test_references])
    return Baseline("commonest training answer", scores, f"always answers {_clip(answer)!r}")


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def _commonest(references: Sequence[str]) -> str:
    return Counter(map(collapse, references)).most_common(1)[0][0]


def _commonest_number(references: Sequence[str]) -> str:
    return _commonest([str(last_number(reference)) for reference in references])


def _commonest_object(references: Sequence[str]) -> str:
    values: dict[str, Counter[str]] = {}
    for reference in references:
        for name, value in (parse_object(reference) or {}).items():
            values.setdefault(name, Counter())[json.dumps(value, sort_keys=True)] += 1
    return json.dumps({name: json.loads(counts.most_common(1)[0][0]) for name, counts in values.items()})
