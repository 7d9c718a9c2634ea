"""Each adapter on rows in the hub's shape and on awkward ones; their names; their files imitable in length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from finetune.data.benchmarks import BENCHMARKS, Benchmark, adapt, find
from finetune.data.formats.conversations import RowRefused
from finetune.data.rows import Content, Origin, Row
from finetune.errors import FinetuneError
from finetune.recipe.schema import BenchmarkName, DataFormat, ScorerName

BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How are you?\n\nAssistant:"

HUB: dict[str, tuple[dict[str, Any], str, str]] = {
    "pubmedqa": (
        {
            "pubid": 1,
            "question": "Does it?",
            "context": {"contexts": ["One.", "Two."], "labels": ["A", "B"], "meshes": []},
            "long_answer": "SECRET",
            "final_decision": "yes",
        },
        "One. Two.\n\nQuestion: Does it?\nAnswer yes, no or maybe.",
        "yes",
    ),
    "medmcqa": (
        {"id": "x", "question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 0, "exp": "SECRET"},
        "Which?\nA. w\nB. x\nC. y\nD. z\nAnswer with the letter only (A to D).",
        "A",
    ),
    "mmlu": (
        {"question": "Which?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": 3},
        "Which?\nA. w\nB. x\nC. y\nD. z\nAnswer with the letter only (A to D).",
        "D",
    ),
    "tatqa": (
        {
            "table": {"uid": "t", "table": [["", "2019"], ["Sales", "$1.5"]]},
            "paragraphs": [{"uid": "b", "order": 2, "text": "Second."}, {"uid": "a", "order": 1, "text": "First."}],
            "questions": [
                {"uid": "q", "question": "Sales?", "answer": ["$1.5"], "scale": "million", "derivation": "SECRET"}
            ],
        },
        "First.\nSecond.\n\n | 2019\nSales | $1.5\n\nQuestion: Sales?\nAnswer shortly, several spans one a line, a "
        "number with its scale (thousand, million, billion, percent) if any.",
        "$1.5 million",
    ),
    "banking77": (
        {"text": "Where is it?", "label": 11, "label_text": "card_arrival"},
        "Name the intent of the bank customer's message.\n\nWhere is it?",
        "card_arrival",
    ),
    "clinc": (
        {"text": "say hello in french", "intent": "translate"},
        "Name the intent of the user's message; say oos if it has none of the known ones.\n\nsay hello in french",
        "translate",
    ),
    "gsm8k": ({"question": "1+1?", "answer": "It is 2.\n#### 2"}, "1+1?", "It is 2.\n#### 2"),
    "mbpp": (
        {
            "source_file": "x",
            "task_id": 2,
            "prompt": "Add.",
            "code": "def add(a, b):\r\n    return a + b",
            "test_imports": ["import math"],
            "test_list": ["assert add(1, 1) == 2"],
        },
        "Add.\nYour Python code should pass these tests:\nassert add(1, 1) == 2\nAnswer with the code only.",
        "def add(a, b):\n    return a + b",
    ),
    "humaneval": (
        {
            "task_id": "HumanEval/0",
            "prompt": "def f():\n",
            "entry_point": "f",
            "canonical_solution": "    return 1\n",
            "test": "def check(candidate):\n    assert candidate() == 1\n",
        },
        "Complete this Python function. Answer with the whole function and nothing else.\n\ndef f():\n",
        "def f():\n    return 1\n",
    ),
    "sgd": (
        {
            "dialogue_id": "1",
            "services": ["x"],
            "turns": {"speaker": [0, 1], "utterance": ["Book a table.", "Where?"], "frames": [[], []]},
        },
        "Book a table.",
        "Where?",
    ),
    "hh_rlhf": (
        {"chosen": TRANSCRIPT + " Fine.", "rejected": TRANSCRIPT + " Go away."},
        "Hi\nHello\nHow are you?",
        "Fine.",
    ),
    "mts_dialog": (
        {"ID": 1, "section_header": "ROS", "section_text": "No fever.", "dialogue": "Doctor: Fever? Patient: No."},
        "Doctor: Fever? Patient: No.\n\nWrite the section ROS of the clinical note on this conversation.",
        "No fever.",
    ),
    "medquad": (
        {"document_id": "1", "question_focus": "Flu", "question": "What is flu?", "answer": "An illness."},
        "What is flu?",
        "An illness.",
    ),
    "self_instruct": (
        {"id": "u", "instruction": "Shorten.", "instances": {"input": ["a long text"], "output": ["text"]}},
        "Shorten.\n\na long text",
        "text",
    ),
    "spider": (
        {"db_id": "pets", "query": "SELECT 1", "question": "How many?", "tables": "pet(id)"},
        "Tables of an SQLite database:\npet(id)\n\nQuestion: How many?\nAnswer with one SQL query only.",
        "SELECT 1",
    ),
}


def only(name: str, *records: dict[str, Any]) -> list[Content]:
    """Read records as the hub gives them; exactly this benchmark must be found."""
    rows = [Row(Origin("hub:x/y", line), fields) for line, fields in enumerate(records, 1)]
    found = adapt(rows, BENCHMARKS)
    assert found is not None
    assert found.benchmark.name == name
    assert found.rejected == []
    return [found.benchmark.content(row.fields) for part in found.rows.values() for row in part]


def test_the_recipe_knows_every_benchmark_by_name() -> None:
    assert set(get_args(BenchmarkName)) == set(BY_NAME)
    assert set(BY_NAME) <= set(get_args(DataFormat))
    assert len(BY_NAME) == len(BENCHMARKS) == 16


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_an_adapter_is_short_and_says_what_it_is(benchmark: Benchmark) -> None:
    file = Path(__file__).parents[3] / "finetune" / "data" / "benchmarks" / f"{benchmark.name}.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) < 100
    assert benchmark.what
    assert "." not in benchmark.what
    assert benchmark.scorer in get_args(ScorerName)
    assert any(benchmark.files.values())


def test_every_copy_on_the_hub_is_tried() -> None:
    assert set(HUB) == {benchmark.name for benchmark in BENCHMARKS if benchmark.hub}


@pytest.mark.parametrize("name", HUB)
def test_the_hub_s_columns_are_read(name: str) -> None:
    fields, prompt, answer = HUB[name]
    (content,) = only(name, fields)
    assert "\n".join(turn.content for turn in content.messages[:-1]) == prompt
    assert content.messages[-1].content == answer
    assert "SECRET" not in str(content)


@pytest.mark.parametrize(
    ("number", "split"),
    [
        (1, "train"),
        (10, "train"),
        (11, "test"),
        (510, "test"),
        (511, "validation"),
        (600, "validation"),
        (601, "train"),
    ],
)
def test_mbpp_is_divided_by_number(number: int, split: str) -> None:
    found = adapt([Row(Origin("f", 1), HUB["mbpp"][0] | {"task_id": number})], BENCHMARKS)
    assert found is not None
    assert list(found.rows) == [split]


@pytest.mark.parametrize(("file", "letter"), [("hub:x/y", "B"), ("train-0.parquet", "B"), ("dev.json", "A")])
def test_medmcqa_counts_from_1_in_the_original_and_from_0_on_the_hub(file: str, letter: str) -> None:
    found = adapt([Row(Origin(file, 1), HUB["medmcqa"][0] | {"cop": 1})], BENCHMARKS)
    assert found is not None
    ((row,),) = found.rows.values()
    assert found.benchmark.content(row.fields).messages[-1].content == letter


REFUSED: list[tuple[str, Mapping[str, Any], str]] = [
    ("medmcqa", {"right": 4}, "no such choice"),
    ("medmcqa", {"right": -1}, "no such choice"),
    ("medmcqa", {"right": None}, "no such choice"),
    ("medmcqa", {"opa": ""}, "empty prompt"),
    ("mmlu", {"answer": 4}, "no such choice"),
    ("gsm8k", {"answer": " "}, "empty answer"),
    ("medquad", {"answer": ""}, "empty answer"),
    ("clinc", {"intent": 42}, "intent without its name"),
    ("hh_rlhf", {"rejected": "\n\nHuman: Bye\n\nAssistant: Go away."}, "differing prompts"),
    ("mbpp", {"test_list": None}, "no tests"),
    ("sgd", {"turns": [{"speaker": "CAT", "utterance": "Meow"}]}, "unknown role"),
    ("spider", {"tables": ""}, "tables unknown"),
    ("pubmedqa", {"final_decision": None}, "empty answer"),
]


@pytest.mark.parametrize(("name", "change", "reason"), REFUSED)
def test_what_cannot_be_used_is_refused_with_its_reason(name: str, change: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(RowRefused) as refusal:
        BY_NAME[name].content({**HUB[name][0], **change})
    assert refusal.value.reason == reason


def test_a_record_in_which_something_is_missing_is_rejected_and_the_others_are_kept() -> None:
    good = HUB["tatqa"][0]
    records = [good, good | {"paragraphs": [{}]}, good | {"questions": []}]
    found = adapt([Row(Origin("f.json", line), fields) for line, fields in enumerate(records, 1)], BENCHMARKS)
    assert found is not None
    assert [(str(bad.origin), bad.reason) for bad in found.rejected] == [
        ("f.json:2", "broken record"),
        ("f.json:3", "no questions"),
    ]
    assert found.rejected[0].detail == "as a record of tatqa, KeyError: 'order'"
    assert (found.records, len(found.rows[""])) == (3, 1)


def test_clinc_reads_its_one_file_of_lists(tmp_path: Path) -> None:
    lists = {
        "train": [["bye", "goodbye"], ["hi", "greeting"]],
        "val": [["so long", "goodbye"]],
        "test": [["hello", "greeting"], ["broken"]],
        "oos_test": [["what is love", "oos"]],
    }
    (tmp_path / "data_full.json").write_text(json.dumps(lists))
    found = find(str(tmp_path), BENCHMARKS)
    assert found is not None
    assert found.benchmark.name == "clinc"
    assert {part: len(rows) for part, rows in found.rows.items()} == {"train": 2, "validation": 1, "test": 2}
    assert [(bad.reason, bad.detail) for bad in found.rejected] == [
        ("no text and intent", "item 2 of 'test' is ['broken']")
    ]
    assert found.records == 6


def test_clinc_s_file_of_something_else_is_refused_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "data_full.json").write_text("[1, 2]")
    assert find(str(tmp_path), [BY_NAME["gsm8k"]]) is None
    with pytest.raises(FinetuneError, match=r"no object of lists of \[text, intent\]"):
        BY_NAME["clinc"].read(str(tmp_path / "data_full.json"))  # type: ignore[misc]
