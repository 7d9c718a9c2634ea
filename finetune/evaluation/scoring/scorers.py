"""Pick the scorer of a task: `choose_scorer` takes the one that the recipe names, or the one that fits the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.data.benchmarks import BENCHMARKS
from finetune.errors import FinetuneError
from finetune.evaluation.scoring.baseline import Baseline as Baseline
from finetune.evaluation.scoring.baseline import trivial_baseline as trivial_baseline
from finetune.evaluation.scoring.benchmark_scorers import choice_scorer, tatqa_scorer
from finetune.evaluation.scoring.fit import BY_CHOICE, Judged, require_fit, require_valid
from finetune.evaluation.scoring.json_scorers import json_fields_scorer, json_schema_scorer
from finetune.evaluation.scoring.label_scorers import balanced_scorer, label_scorer, macro_f1_scorer
from finetune.evaluation.scoring.own_scorers import is_own, own_scorer
from finetune.evaluation.scoring.reading import parse_object
from finetune.evaluation.scoring.running import check_running, sql_scorer, unit_tests_scorer
from finetune.evaluation.scoring.scorer import Score as Score
from finetune.evaluation.scoring.scorer import Scorer as Scorer
from finetune.evaluation.scoring.text_measures import BITS_PER_BYTE as BITS_PER_BYTE
from finetune.evaluation.scoring.text_measures import bits_per_byte as bits_per_byte
from finetune.evaluation.scoring.text_measures import bits_per_byte_scorer, perplexity_scorer
from finetune.evaluation.scoring.text_scorers import (
    chrf_scorer,
    contains_scorer,
    exact_scorer,
    number_scorer,
    rouge_l_scorer,
    token_f1_scorer,
)
from finetune.evaluation.scoring.words import words
from finetune.recipe.schema import EvaluateSection

SHORT_ANSWER_WORDS = 5
"""References of at most this many words, all on one line, are judged by `exact` when nothing else fits."""


def choose_scorer(
    section: EvaluateSection,
    references: Sequence[str],
    *,
    labels: Sequence[str] | None,
    raw_text: bool,
    benchmark: str = "",
    metadata: Sequence[Mapping[str, Any]] = (),
    alternatives: Sequence[Sequence[str]] = (),
    ids: Sequence[str] = (),
) -> tuple[Scorer, str]:
    """The scorer the recipe names, or the one that fits the references, and why.

    Args:
        section: The recipe's `evaluate`.
        references: What ought to be answered on the test items.
        labels: Known classes of classification data, else None.
        raw_text: Whether the items are raw text, without question and answer.
        benchmark: Name of the benchmark that the items are of; `auto` takes its metric then.
        metadata: What the items hold beside their texts, which scorers that run answers need.
        alternatives: Further right answers of each item.
        ids: The items' ids, for messages.

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
    items = Judged(
        references=references,
        labels=labels,
        raw_text=raw_text,
        metadata=metadata,
        alternatives=alternatives,
        ids=ids,
    )
    require_fit(name, section, why, items)
    check_running(name, section, metadata)
    if name == "label":
        unseen = set(references) - set(labels or ())
        why += f"; {len(unseen)} of them only in the test rows" if unseen else ""
    return _make(name, section, items), why


def _make(name: str, section: EvaluateSection, items: Judged) -> Scorer:
    if is_own(name):
        return own_scorer(name, allowed=section.allow_code_execution)
    if name in ("label", "balanced", "macro_f1"):
        labelled = label_scorer([*(items.labels or ()), *items.references])
        if name == "balanced":
            return balanced_scorer(labelled, items.references, items.metadata)
        return labelled if name == "label" else macro_f1_scorer(labelled, items.references)
    if name == "json_fields":
        return json_fields_scorer(section.fields)
    if name == "json_schema":
        scorer = json_schema_scorer(section.schema_file or "")
        require_valid(scorer, items)
        return scorer
    if name in BY_CHOICE:
        return _likelihood_scorer(name)
    return _MAKERS[name]()


_MAKERS: dict[str, Callable[[], Scorer]] = {
    "exact": exact_scorer,
    "choice": choice_scorer,
    "number": number_scorer,
    "contains": contains_scorer,
    "token_f1": token_f1_scorer,
    "rouge_l": rouge_l_scorer,
    "chrf": chrf_scorer,
    "tatqa": tatqa_scorer,
    "sql": sql_scorer,
    "tests": unit_tests_scorer,
    "bits_per_byte": bits_per_byte_scorer,
    "perplexity": perplexity_scorer,
}


def _likelihood_scorer(name: str) -> Scorer:
    """The choice of the highest log-likelihood is the right one, as a whole or for each byte of the choice."""

    def judge(answer: str, reference: str) -> Score:
        raise ValueError(f"{name} judges no answers: take the log-likelihoods of an item's choices")

    what = "the likeliest choice is the right one" + (", by likelihood for each byte" if name != "likelihood" else "")
    return Scorer(name, True, True, "share right", judge, what, needs_likelihood=True, of_choices=True)


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
