"""Answers that are run: right and wrong ones, what the recipe must allow, and the reference answers of benchmarks."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from finetune.data.benchmarks import BENCHMARKS, find
from finetune.data.formats.conversations import RowRefused
from finetune.data.rows import Content
from finetune.errors import FinetuneError
from finetune.evaluation.scoring.running import code_of, sql_scorer, unit_tests_scorer
from finetune.evaluation.scoring.scorer import Scorer
from finetune.evaluation.scoring.scorers import choose_scorer, trivial_baseline
from finetune.recipe.schema import EvaluateSection

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets"
ADD = {"before": "def add(a, b):\n", "tests": "assert add(1, 2) == 3"}


@pytest.fixture
def database(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "pets.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE pet (name, weight)")
        connection.executemany("INSERT INTO pet VALUES (?, ?)", [("Rex", 9), ("Ann", 1), ("Ann", 1)])
    connection.close()
    return {"database": str(path)}


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("SELECT name FROM pet", "SELECT name FROM pet", 1),
        ("```sql\nSELECT name FROM pet ORDER BY name\n```", "SELECT name FROM pet", 1),
        ("SELECT name FROM pet ORDER BY weight", "SELECT name FROM pet ORDER BY weight DESC", 0),
        ("SELECT DISTINCT name FROM pet", "SELECT name FROM pet", 0),
        ("SELECT name, weight FROM pet", "SELECT name FROM pet", 0),
        ("SELECT weight * 1.0 FROM pet", "SELECT weight FROM pet", 1),
        ("I do not know", "SELECT name FROM pet", 0),
        ("", "SELECT name FROM pet WHERE weight > 100", 0),
        ("SELECT name FROM pet", "SELECT name  weight FROM", 0),
    ],
)
def test_sql_is_judged_by_its_rows(database: dict[str, str], answer: str, reference: str, right: int) -> None:
    assert sql_scorer().score(answer, reference, database).value == right


def test_a_reference_that_cannot_be_run_is_told(database: dict[str, str]) -> None:
    score = sql_scorer().score("SELECT 1", "SELECT T1.a  T1.b", database)
    assert score.detail == {"reference": 'OperationalError: near ".": syntax error'}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("    return a + b", 1),
        ("def add(a, b):\n    return a + b", 1),
        ("Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.", 1),
        ("    return a - b", 0),
        ("    import sys; sys.exit(0)", 0),
        ("Sorry", 0),
    ],
)
def test_programs_are_judged_by_their_tests(answer: str, right: int) -> None:
    metadata = ADD | {"before": "def add(a, b):\n    ''' Add. '''\n"}
    assert unit_tests_scorer().score(answer, "", metadata).value == right


def test_code_is_taken_out_of_its_fence_with_its_indents() -> None:
    assert code_of("text\n```python\n  a\n\n  b\n```\nmore\n```\nc\n```") == "  a\n\n  b"
    assert code_of("```\nnever closed\n") == "never closed\n"
    assert code_of("\n    return 1\n\n") == "    return 1"


def chosen(section: EvaluateSection, *metadata: dict[str, str], benchmark: str = "") -> Scorer:
    references = ["answer"] * len(metadata)
    return choose_scorer(section, references, labels=None, raw_text=False, benchmark=benchmark, metadata=metadata)[0]


def test_a_benchmark_s_metric_is_taken_and_code_is_run_only_where_the_recipe_allows_it() -> None:
    allowed = EvaluateSection(scorer="tests", allow_code_execution=True)
    assert chosen(allowed, ADD).name == "tests"
    assert chosen(EvaluateSection(scorer="exact"), ADD, benchmark="mbpp").name == "exact"
    assert chosen(EvaluateSection(), {"database": "x"}, benchmark="spider").name == "sql"
    assert chosen(EvaluateSection(), {}, benchmark="hh_rlhf").name == "exact"
    for section in (EvaluateSection(), EvaluateSection(scorer="tests"), EvaluateSection(allow_code_execution=True)):
        with pytest.raises(FinetuneError) as error:
            chosen(section, ADD, benchmark="mbpp")
        assert str(error.value) == (
            "evaluate.allow_code_execution: these rows are judged by running the answers, which are Python programs "
            "that a model wrote\n    -> where you want that, set evaluate.scorer: tests and "
            "evaluate.allow_code_execution: true; to compare texts instead, set evaluate.scorer: token_f1"
        )


def test_rows_that_lack_what_is_run_are_refused() -> None:
    with pytest.raises(FinetuneError) as error:
        chosen(EvaluateSection(scorer="sql"), {"database": "x"}, {"database": ""}, {})
    assert str(error.value) == (
        "evaluate.scorer: sql cannot judge these rows: 2 of 3 test rows have no database\n"
        "    -> set evaluate.scorer to exact, or test on rows that have it"
    )


def test_the_trivial_baseline_is_run_too(database: dict[str, str]) -> None:
    references = ["SELECT name FROM pet", "SELECT max(weight) FROM pet"]
    found = trivial_baseline(sql_scorer(), [references[0], references[0], "SELECT 1"], references, [database] * 2)
    assert found.scores.tolist() == [1, 0]
    code = ["def f():\n    return 1", "def f():\n    return 1", "def f(): pass"]
    found = trivial_baseline(unit_tests_scorer(), code, ["x"], [{"tests": "assert f() == 1"}])
    assert found.scores.tolist() == [1]


def references(folder: str, part: str) -> list[Content]:
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no data set {folder} under FINETUNE_SHARED")
    found = find(str(SHARED / folder), BENCHMARKS)
    assert found is not None
    contents = []
    for row in found.rows[part]:  # type: ignore[index]
        try:
            contents.append(found.benchmark.content(row.fields))
        except RowRefused:
            continue
    return contents


def judged(scorer: Scorer, contents: list[Content], answer: str | None = None) -> Counter[float]:
    scores: Counter[float] = Counter()
    for content in contents:
        gold = content.messages[-1].content
        scores[scorer.score(gold if answer is None else answer, gold, content.metadata).value] += 1
    return scores


@pytest.mark.slow
def test_spider_dk_s_queries_are_right_but_for_the_one_that_is_no_sql() -> None:
    contents = references("spider_sql", "test")
    assert judged(sql_scorer(), contents) == {1.0: 126, 0.0: 1}
    assert judged(sql_scorer(), contents, "SELECT 12345") == {0.0: 127}


@pytest.mark.slow
def test_humaneval_s_solutions_pass_and_a_wrong_one_does_not() -> None:
    contents = references("humaneval", "test")
    assert judged(unit_tests_scorer(), contents) == {1.0: 164}
    assert judged(unit_tests_scorer(), contents, "    return 12345") == {0.0: 164}


@pytest.mark.slow
@pytest.mark.parametrize(("part", "count"), [("train", 384), ("validation", 90), ("test", 500)])
def test_mbpp_s_solutions_pass_and_none_does_not(part: str, count: int) -> None:
    contents = references("mbpp", part)
    assert judged(unit_tests_scorer(), contents) == {1.0: count}
    assert judged(unit_tests_scorer(), contents[:50], "pass") == {0.0: 50}
