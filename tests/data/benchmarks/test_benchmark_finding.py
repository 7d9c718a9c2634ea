"""Which benchmark a folder is, what it lacks and what it leaves; rows of something else are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.benchmarks import BENCHMARKS, adapt, find
from finetune.data.benchmarks.benchmark import by_hash, repeats
from finetune.data.rows import Origin, Row
from finetune.errors import FinetuneError

GSM8K = {"question": "1+1?", "answer": "Two.\n#### 2"}


def write(path: Path, *records: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_a_folder_s_splits_are_those_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", GSM8K, GSM8K)
    write(tmp_path / "test.jsonl", GSM8K)
    write(tmp_path / "notes.jsonl", {"a": 1})
    found = find(str(tmp_path), BENCHMARKS)
    assert found is not None
    assert found.why == "files and columns of the benchmark 'gsm8k': train.jsonl, test.jsonl"
    assert {part: len(rows) for part, rows in found.rows.items()} == {"train": 2, "test": 1}
    assert [note.what for note in found.notes] == [
        "1 other data files of the folder hold no rows of the benchmark: notes.jsonl"
    ]
    assert sorted(map(len, found.files.values())) == [64, 64]


def test_files_of_the_same_names_with_other_columns_are_no_benchmark(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"question": "1+1?", "answer": "Two."})
    write(tmp_path / "test.jsonl", {"question": "1+1?", "answer": "Two."})
    assert find(str(tmp_path), BENCHMARKS) is None
    (tmp_path / "train.jsonl").write_bytes(b"\xff\xfe broken")
    assert find(str(tmp_path), BENCHMARKS) is None


def test_a_file_alone_is_known_by_name_and_columns(tmp_path: Path) -> None:
    name = write(tmp_path / "train.jsonl", GSM8K)
    found = find(name, BENCHMARKS)
    assert found is not None
    assert {part: len(rows) for part, rows in found.rows.items()} == {"train": 1}
    assert find([name, write(tmp_path / "more.jsonl", GSM8K)], BENCHMARKS) is None
    assert find("hub:openai/gsm8k", BENCHMARKS) is None
    assert find(str(tmp_path / "absent.jsonl"), BENCHMARKS) is None
    assert find(name, BENCHMARKS, wanted="messages") is None


def test_the_hub_s_parquet_files_are_known_by_their_names(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "main").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        table = pyarrow.Table.from_pylist([GSM8K] * count)
        parquet.write_table(table, tmp_path / "main" / f"{split}-00000-of-00001.parquet")
    found = find(str(tmp_path), BENCHMARKS)
    assert found is not None
    assert found.benchmark.name == "gsm8k"
    assert {part: len(rows) for part, rows in found.rows.items()} == {"train": 3, "test": 2}


def test_a_benchmark_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as error:
        find(str(tmp_path), BENCHMARKS, wanted="gsm8k", where="recipe.yaml:3")
    assert str(error.value) == (
        f"recipe.yaml:3: the folder {str(tmp_path)!r} holds no files of 'gsm8k'\n"
        "    -> its authors name them 'train.jsonl' or 'test.jsonl'; name the files themselves under data.train "
        "otherwise"
    )
    with pytest.raises(FinetuneError) as error:
        adapt([Row(Origin("f", 1), {"a": 1, "b": 2})], BENCHMARKS, wanted="gsm8k")
    assert str(error.value) == (
        "the rows are not those of the benchmark 'gsm8k': their columns are 'a', 'b'\n"
        "    -> write `format: auto`, or name the benchmark's own files"
    )


def test_rows_of_something_else_are_left_alone() -> None:
    assert adapt([Row(Origin("f", 1), {"question": "1+1?", "answer": "2"})], BENCHMARKS) is None
    assert adapt([Row(Origin("f", 1), {"text": "a", "category": "b"})], BENCHMARKS) is None
    assert adapt([], BENCHMARKS) is None


@given(st.text())
def test_division_by_hash_depends_on_the_key_alone(key: str) -> None:
    assert by_hash(key) == by_hash(key)
    assert by_hash(key) in ("train", "test")


def test_about_a_fifth_is_test() -> None:
    assert 1900 < sum(by_hash(str(number)) == "test" for number in range(10_000)) < 2100


def test_repeated_and_leaked_texts_are_told_with_their_numbers() -> None:
    def rows(*texts: str) -> list[Row]:
        return [Row(Origin("f", line), {"text": text}) for line, text in enumerate(texts, 1)]

    told = list(repeats("text")({"train": rows("a", "A ", "b"), "test": rows("a", "c", "c")}))
    assert told == [
        "1 of 3 train rows repeat 'text' of an earlier one",
        "1 of 3 test rows repeat 'text' of an earlier one",
        "1 of 3 test rows have 'text' of a training row: the verdict counts them",
    ]
    assert list(repeats("text")({"train": rows("a"), "test": rows("b")})) == []
