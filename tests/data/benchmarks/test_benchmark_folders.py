"""Every folder of real benchmark files, unmodified: recognised by `format: auto`, every row kept or told why not."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune.data import read_corpus
from finetune.data.benchmarks import BENCHMARKS, Found, find
from finetune.data.formats.conversations import RowRefused
from finetune.recipe.schema import DataSection, ModelSection, PretrainObjective, Recipe, SftObjective

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets"


@dataclass(frozen=True)
class Expected:
    """A folder: the benchmark's name, rows of each official split that are kept, rows dropped by reason."""

    folder: str
    name: str
    files: int
    kept: dict[str, int]
    scorer: str
    dropped: dict[str, int] = field(default_factory=dict)
    said: tuple[str, ...] = ()


TABLE = [
    Expected(
        "banking77",
        "banking77",
        2,
        {"train": 10_003, "test": 3080},
        "label",
        said=("7 of 3,080 test rows have 'text' of a training row: the verdict counts them",),
    ),
    Expected("gsm8k", "gsm8k", 2, {"train": 7473, "test": 1319}, "number"),
    Expected(
        "hh_rlhf",
        "hh_rlhf",
        1,
        {"train": 1794, "test": 505},
        "auto",
        {"differing prompts": 5, "empty answer": 4, "roles do not alternate": 4},
    ),
    Expected("humaneval", "humaneval", 1, {"test": 164}, "tests"),
    Expected(
        "legalbench",
        "legalbench",
        41,
        {"train": 155, "test": 13_758},
        "balanced",
        said=(
            "3,488 of 13,758 test rows repeat 'task' and 'text' of an earlier one",
            "83 of 13,758 test rows have 'task' and 'text' of a training row: the verdict counts them",
        ),
    ),
    Expected("mbpp", "mbpp", 1, {"train": 384, "validation": 90, "test": 500}, "tests"),
    Expected(
        "medmcqa",
        "medmcqa",
        1,
        {"train": 3344, "test": 839},
        "choice",
        said=("the folder has the test file only, which is divided by the SHA-1 of its keys",),
    ),
    Expected("medquad", "medquad", 246, {"train": 642, "test": 187}, "rouge_l", {"empty answer": 792}),
    Expected("mmlu_med", "mmlu", 6, {"test": 1089}, "choice"),
    Expected("mts_dialog", "mts_dialog", 4, {"train": 1201, "validation": 100, "test": 400}, "rouge_l"),
    Expected("pubmedqa", "pubmedqa", 1, {"train": 500, "test": 500}, "label"),
    Expected("self_instruct", "self_instruct", 2, {"train": 175, "test": 252}, "token_f1"),
    Expected("sgd", "sgd", 4, {"train": 256, "validation": 68, "test": 51}, "rouge_l"),
    Expected(
        "spider_sql",
        "spider",
        2,
        {"train": 1034, "test": 127},
        "sql",
        {"no database to run on": 408},
        said=(
            "the folder has no file to train on; the validation file's rows take its place",
            "54 of 127 test rows have 'question' of a training row: the verdict counts them",
        ),
    ),
    Expected(
        "tatqa",
        "tatqa",
        2,
        {"train": 1667, "test": 1663},
        "tatqa",
        {"empty answer": 1},
        said=("555 records of the files hold 3,331 rows",),
    ),
]


def folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return path


def read(found: Found) -> tuple[Counter[str], Counter[str], list[str]]:
    """Return how many rows of each split are kept, how many are dropped by reason, and all the prompts."""
    kept: Counter[str] = Counter()
    dropped = Counter(bad.reason for bad in found.rejected)
    prompts: list[str] = []
    for part, rows in found.rows.items():
        for row in rows:
            try:
                content = found.benchmark.content(row.fields)
            except RowRefused as refusal:
                dropped[refusal.reason] += 1
                continue
            kept[part] += 1
            prompts.append("\n".join(turn.content for turn in content.messages[:-1]))
    return kept, dropped, prompts


def test_the_table_is_whole() -> None:
    found = {path.name for path in folder(".").iterdir() if path.is_dir()}
    assert found == {expected.folder for expected in TABLE} | {"openstax_anatomy"}
    # The files of CLINC150 are no part of it; test_benchmark_adapters writes some.
    assert {expected.name for expected in TABLE} == {benchmark.name for benchmark in BENCHMARKS} - {"clinc"}


@pytest.mark.parametrize("expected", TABLE, ids=lambda expected: expected.folder)
def test_every_row_of_the_folder_is_kept_or_dropped_with_a_reason(expected: Expected) -> None:
    found = find(str(folder(expected.folder)), BENCHMARKS)
    assert found is not None
    kept, dropped, prompts = read(found)
    assert (found.benchmark.name, len(found.files)) == (expected.name, expected.files)
    assert (dict(kept), dict(dropped)) == (expected.kept, expected.dropped)
    assert found.records == kept.total() + dropped.total()
    assert found.benchmark.scorer == expected.scorer
    assert set(expected.said) <= {note.what for note in found.notes}
    assert len(prompts) == kept.total()
    assert all(prompt.strip() for prompt in prompts)


@pytest.mark.parametrize("expected", TABLE, ids=lambda expected: expected.folder)
def test_the_corpus_accounts_for_the_folder(expected: Expected) -> None:
    recipe = Recipe(
        model=ModelSection(base="none"), data=DataSection(train=str(folder(expected.folder)), on_bad_row="drop")
    )
    corpus = read_corpus(recipe)
    division = corpus.division
    ids = [example.id for part in (division.train, division.validation, division.test) for example in part]
    assert corpus.recognition.format == expected.name
    assert Counter(bad.reason for bad in corpus.dropped) == expected.dropped
    assert corpus.parts[0].rows_read == len(ids) + len(corpus.dropped)
    assert len(set(ids)) == len(ids) == sum(expected.kept.values())
    assert {example.benchmark for example in division.test} == {expected.name}
    if "train" in expected.kept:
        assert len(division.test) == expected.kept["test"]


def test_documents_are_no_benchmark() -> None:
    path = str(folder("openstax_anatomy"))
    assert find(path, BENCHMARKS) is None
    recipe = Recipe(
        model=ModelSection(base="none"),
        data=DataSection(train=path, on_bad_row="drop"),
        objective=PretrainObjective(),
    )
    corpus = read_corpus(recipe)
    kept = len(corpus.division.train) + len(corpus.division.validation) + len(corpus.division.test)
    assert (corpus.recognition.format, corpus.parts[0].rows_read) == ("text", 198)
    assert kept + len(corpus.dropped) == 198


def test_what_tells_the_answer_never_enters_a_prompt() -> None:
    found = find(str(folder("pubmedqa")), BENCHMARKS)
    assert found is not None
    told = {name for rows in found.rows.values() for row in rows for name in row.fields}
    assert "QUESTION" in told
    assert not told & {"LONG_ANSWER", "reasoning_required_pred", "reasoning_free_pred"}


def test_pubmedqa_has_its_official_test_labels() -> None:
    recipe = Recipe(
        model=ModelSection(base="none"), data=DataSection(train=str(folder("pubmedqa"))), objective=SftObjective()
    )
    test = read_corpus(recipe).division.test
    assert Counter(example.reference for example in test) == {"yes": 276, "no": 169, "maybe": 55}
