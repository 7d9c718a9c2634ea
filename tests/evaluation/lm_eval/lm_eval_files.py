"""Task files of lm-eval with their rows, written to a folder: `write_arc(folder)`, `write_sums(folder)`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARC = """
task: arc_local
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(answerKey)}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
SUMS = """
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Q: {{question}}\\nA:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n", "e"], max_gen_toks: 8, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
"""
WORDS = ("order", "billing", "shipping", "the customer asks", "password reset", "returns or other", "one word", "help")


def arc_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows as those of ARC: choices of unlike lengths, the answer by its label."""
    rows = []
    for number in range(start, start + count):
        texts = [f"{WORDS[(number + place) % 8]} {WORDS[(3 * number + place * 5) % 8]}"[place:] for place in range(4)]
        texts[number % 4] = WORDS[number % 8][:1] if number % 3 else texts[number % 4]
        question = f"Where is {WORDS[number % 8]} {number}" + " and when will it arrive" * (number % 3) + "?"
        rows.append(
            {
                "id": f"q{number}",
                "question": question,
                "choices": {"text": texts, "label": ["A", "B", "C", "D"]},
                "answerKey": "ABCD"[number % 4],
                "document": f"d{number // 2}",
            }
        )
    return rows


def sum_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"question": f"{number} and {number * 7 % 10}?", "answer": number} for number in range(start, start + count)
    ]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_task(folder: Path, text: str, test: Sequence[Mapping[str, Any]], train: Sequence[Mapping[str, Any]]) -> str:
    write_lines(folder / "test.jsonl", test)
    write_lines(folder / "train.jsonl", train)
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def write_arc(folder: Path, count: int = 12, **replaced: str) -> str:
    """Write an ARC-like task; `replaced` lines go in the place of those with the same key."""
    return write_task(folder, changed(ARC, **replaced), arc_rows(count), arc_rows(6, 100))


def write_sums(folder: Path, count: int = 10, **replaced: str) -> str:
    return write_task(folder, changed(SUMS, **replaced), sum_rows(count), sum_rows(6, 100))


def changed(text: str, **replaced: str) -> str:
    """Replace or add top-level settings, each on one line; an empty one is taken out."""
    lines = [line for line in text.strip().splitlines() if line.partition(":")[0] not in replaced]
    if "metric_list" in replaced:
        lines = [line for line in lines if not line.startswith("  - {metric")]
    return "\n".join([*lines, *(f"{key}: {value}" for key, value in replaced.items() if value)]) + "\n"
