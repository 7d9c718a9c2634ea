"""Judge one answer against one reference: `choose_scorer` picks the `Scorer` of a task, `scorer.judge` applies it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.benchmarks import BENCHMARKS
from finetune.errors import FinetuneError, nearest
from finetune.evaluation.benchmark_scorers import balanced_scorer, choice_scorer, rouge_l_scorer, tatqa_scorer
from finetune.evaluation.reading import last_number, parse_object, without_fence
from finetune.evaluation.running import check_running, sql_scorer, unit_tests_scorer
from finetune.evaluation.scorer import Score as Score
from finetune.evaluation.scorer import Scorer as Scorer
from finetune.evaluation.scorer import commonest, right_or_wrong
from finetune.evaluation.words import collapse, words, words_touch
from finetune.recipe.schema import EvaluateSection

BITS_PER_BYTE = "bits per byte"
SHORT_ANSWER_WORDS = 5
"""References of at most this many words, all on one line, are judged by `exact` when nothing else fits."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the trivial contestant scored on each test item, and in words what it does."""

    name: str
    scores: NDArray[np.float64]
    what: str


# --------------------------------------------------------------------------------------------------- the scorers


def exact_scorer() -> Scorer:
    """The whole answer equals the reference, case included, up to white space and Unicode composition (NFC).

    Case counts because codes, names and SQL literals differ by it; `contains` and `label` overlook it.
    """

    def judge(answer: str, reference: str) -> Score:
        return Score(float(collapse(answer) == collapse(reference)))

    return right_or_wrong("exact", judge, "the answer equals the reference")


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


def number_scorer() -> Scorer:
    """The last number of the answer (the first after the last `####`) equals the reference's within a millionth.

    Numbers are read by `last_number`: 12 % is 12, $1,234.50 is 1234.5.
    """

    def judge(answer: str, reference: str) -> Score:
        given, wanted = last_number(answer), last_number(reference)
        right = given is not None and wanted is not None and math.isclose(given, wanted, rel_tol=1e-6)
        return Score(float(right), {"number": given})

    return right_or_wrong("number", judge, "the answer's last number equals the reference's", guess=_commonest_number)


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

    return right_or_wrong("contains", judge, "the reference occurs in the answer")


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
    section: EvaluateSection,
    references: Sequence[str],
    *,
    labels: Sequence[str] | None,
    raw_text: bool,
    benchmark: str = "",
    metadata: Sequence[Mapping[str, Any]] = (),
) -> tuple[Scorer, str]:
    """The scorer the recipe names, or the one that fits the references, and why.

    Args:
        section: The recipe's `evaluate`.
        references: What ought to be answered on the test items.
        labels: Known classes of classification data, else None.
        raw_text: Whether the items are raw text, without question and answer.
        benchmark: Name of the benchmark that the items are of; `auto` takes its metric then.
        metadata: What the items hold beside their texts, which scorers that run answers need.

    Raises:
        FinetuneError: There is no reference, the named scorer cannot judge these references, or answers would have to
            be run as code and the recipe does not allow it.
    """
    if not references:
        raise FinetuneError(
            "there are no test rows to evaluate on",
            where="evaluate",
            fix="give data.test, or a data.split.test above 0",
        )
    if section.scorer == "auto":
        name, why = _published(benchmark) or _fitting(references, labels, raw_text)
    else:
        name, why = section.scorer, f"evaluate.scorer is {section.scorer}"
    if section.fields and name != "json_fields":
        raise FinetuneError(
            f"the fields {list(section.fields)!r} are only compared by json_fields, but the scorer is {name!r} ({why})",
            where="evaluate.fields",
            fix="remove them, or set evaluate.scorer to json_fields",
        )
    _check_fit(name, section.fields, references, labels, raw_text)
    check_running(name, section, metadata)
    if name == "label":
        unseen = set(references) - set(labels or ())
        why += f"; {len(unseen)} of them only in the test rows" if unseen else ""
        return label_scorer([*(labels or ()), *references]), why
    if name == "balanced":
        return balanced_scorer(label_scorer([*(labels or ()), *references]), references, metadata), why
    if name == "json_fields":
        return json_fields_scorer(section.fields), why
    makers = {
        "exact": exact_scorer,
        "choice": choice_scorer,
        "number": number_scorer,
        "contains": contains_scorer,
        "token_f1": token_f1_scorer,
        "rouge_l": rouge_l_scorer,
        "tatqa": tatqa_scorer,
        "sql": sql_scorer,
        "tests": unit_tests_scorer,
        "bits_per_byte": bits_per_byte_scorer,
    }
    return makers[name](), why


def _published(benchmark: str) -> tuple[str, str] | None:
    """The metric that a benchmark is published with, where it is a benchmark and has one."""
    for known in BENCHMARKS:
        if known.name == benchmark and known.scorer != "auto":
            return known.scorer, f"the rows are those of the benchmark {benchmark}"
    return None


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
    elif name in ("label", "balanced") and not labels:
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


def trivial_baseline(
    scorer: Scorer,
    train_references: Sequence[str],
    test_references: Sequence[str],
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> Baseline:
    """What a contestant without any understanding scores: the commonest training answer, given to every item.

    For json_fields that is the object of each field's commonest value; for bits_per_byte, a code by the byte
    frequencies of the training text (order 0, add-one smoothing). `metadata` is that of the test items, for scorers
    that run answers.

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
    beside = metadata if metadata is not None else [{}] * len(test_references)
    pairs = zip(test_references, beside, strict=True)
    scores = np.array([scorer.score(answer, reference, item).value for reference, item in pairs])
    return Baseline("commonest training answer", scores, f"always answers {_clip(answer)!r}")


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)


def _commonest_number(references: Sequence[str]) -> str:
    return commonest([str(last_number(reference)) for reference in references])


def _commonest_object(references: Sequence[str]) -> str:
    values: dict[str, Counter[str]] = {}
    for reference in references:
        for name, value in (parse_object(reference) or {}).items():
            values.setdefault(name, Counter())[json.dumps(value, sort_keys=True)] += 1
    return json.dumps({name: json.loads(counts.most_common(1)[0][0]) for name, counts in values.items()})
