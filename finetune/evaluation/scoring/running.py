"""Scorers that run an answer: `sql` on the item's database, `tests` on the item's unit tests; see `execution`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.execution import is_ordered, run_program, run_query, same_rows
from finetune.evaluation.scoring.scorer import Score, Scorer
from finetune.recipe.schema import EvaluateSection

_BLOCK = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)

_NEEDED = {"sql": "database", "tests": "tests"}
_Judge = Callable[[str, str, Mapping[str, Any]], Score]


def check_running(name: str, section: EvaluateSection, metadata: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a scorer that runs answers where the items lack what it needs, or the recipe does not allow it.

    Args:
        name: of the scorer; others than `sql` and `tests` pass.
        section: the recipe's `evaluate`.
        metadata: what the test items hold beside their texts.

    Raises:
        FinetuneError: it is refused.
    """
    needed = _NEEDED.get(name)
    if needed is None:
        return
    without = sum(not item.get(needed) for item in metadata)
    if without or not metadata:
        raise FinetuneError(
            f"{name} cannot judge these rows: {without:,} of {len(metadata):,} test rows have no {needed}",
            where="evaluate.scorer",
            fix="set evaluate.scorer to exact, or test on rows that have it",
        )
    if name == "tests" and not (section.scorer == "tests" and section.allow_code_execution):
        raise FinetuneError(
            "these rows are judged by running the answers, which are Python programs that a model wrote",
            where="evaluate.allow_code_execution",
            fix="where you want that, set evaluate.scorer: tests and evaluate.allow_code_execution: true; to compare "
            "texts instead, set evaluate.scorer: token_f1",
        )


def sql_scorer() -> Scorer:
    """Execution accuracy: the answer's query gives the rows that the reference's gives (Yu et al. 2018).

    Rows are compared as multisets, and in order where the reference orders them; columns are compared in order. Where
    the reference itself cannot be run the answer is wrong and the detail says why.
    """

    def judge(answer: str, reference: str, metadata: Mapping[str, Any]) -> Score:
        database = str(metadata["database"])
        wanted = run_query(database, reference)
        if wanted.error:
            return Score(0.0, {"reference": wanted.error})
        given = run_query(database, code_of(answer))
        if given.error:
            return Score(0.0, {"error": given.error})
        right = same_rows(given.rows, wanted.rows, ordered=is_ordered(reference))
        return Score(float(right), {"rows": len(given.rows), "wanted": len(wanted.rows)})

    return _running("sql", judge, "the answer's query gives the reference's rows")


def unit_tests_scorer() -> Scorer:
    """pass@1: the answer's program passes all its tests (Chen et al. 2021, arXiv:2107.03374).

    `before` in the item's metadata (imports, the start of the function) runs first, then the answer, then `tests`.
    """

    def judge(answer: str, reference: str, metadata: Mapping[str, Any]) -> Score:
        program = "\n".join((str(metadata.get("before", "")), code_of(answer), str(metadata["tests"])))
        outcome = run_program(program)
        return Score(float(not outcome.error), {"error": outcome.error} if outcome.error else {})

    return _running("tests", judge, "the answer's program passes its tests")


def _running(name: str, judge: _Judge, description: str) -> Scorer:
    def alone(answer: str, reference: str) -> Score:
        raise ValueError(f"{name} judges no answer without its item's metadata: take score()")

    def commonest(references: Sequence[str]) -> str:
        return Counter(references).most_common(1)[0][0]

    return Scorer(name, True, True, "share right", alone, description, guess=commonest, judge_item=judge)


def code_of(answer: str) -> str:
    """Return the first fenced block of an answer, or the whole answer where it has none; indents are kept."""
    block = _BLOCK.search(answer)
    return block.group(1) if block else answer.strip("\n").rstrip()
