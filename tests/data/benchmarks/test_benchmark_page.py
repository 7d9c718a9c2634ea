"""The page on benchmarks: its table is that of the code, and its example runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from finetune.data.benchmarks import BENCHMARKS, Benchmark

PAGE = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
NOTES = [
    {
        "patient": f"p{number % 25}",
        "complaint": f"Pain {number}",
        "urgency": str(number % 5 + 1),
        "department": "SECRET",
    }
    for number in range(50)
]


def test_the_table_names_every_benchmark() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) != []
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == {benchmark.name for benchmark in BENCHMARKS}


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    assert len([line for line in blocks[0].splitlines() if line]) <= 22
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "triage").mkdir(parents=True)
    lines = "".join(json.dumps(note) + "\n" for note in NOTES)
    (tmp_path / "data" / "triage" / "triage-2024.jsonl").write_text(lines, encoding="utf-8")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert isinstance(names["TRIAGE"], Benchmark)
    found = names["found"]
    assert found.records == 50
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 40, "test": 10}
    sides = [{row.fields["patient"] for row in rows} for rows in found.rows.values()]
    assert not sides[0] & sides[1]
    printed = capsys.readouterr().out
    assert printed.startswith("files and columns of the benchmark 'triage': triage-2024.jsonl\n")
    assert "How urgent is this, 1 (now) to 5 (can wait)?" in printed
    assert "SECRET" not in printed
