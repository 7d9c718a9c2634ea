"""Rows that other trainers take in silence or fail on without a place: each gets its file, line, finding and remedy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from finetune.data.corpus import read_corpus
from finetune.data.prepare import Prepared, prepare
from finetune.errors import FinetuneError
from finetune.recipe import Recipe
from tests.small_runs import small_recipe, write_lines
from tests.tiny import tiny_tokenizer

DROP = "mend them, or set data.on_bad_row: drop to leave them out"


def row(prompt: Any = "Where?", completion: Any = "Here.", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion} | more


def recipe_of(folder: Path, rows: list[Any], **data: Any) -> Recipe:
    file = write_lines(folder / "rows.jsonl", rows)
    split = {"validation": 0.0, "test": 0.0, "near_duplicates": "ignore"}
    return small_recipe(Path("a/b"), file, folder / "runs", train={"eval_every": None}, data={"split": split, **data})


def prepared(folder: Path, rows: list[Any], **data: Any) -> Prepared:
    return prepare(recipe_of(folder, rows, **data), tiny_tokenizer(), context_length=512)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"prompt": "p"}, "column missing: there is no column 'completion'"),
        (row(completion=None), "empty answer: column 'completion' is null"),
        (row(completion=""), "empty answer: column 'completion' is ''"),
        (row(prompt="", completion=""), "empty prompt: column 'prompt' is ''"),
        (row(prompt=["a"]), "not text: column 'prompt' holds ['a']"),
        (row(completion=[]), "empty answer: column 'completion' is []"),
        (
            '{"prompt": "a", "prompt": "b", "completion": "c"}',
            "duplicate key: key 'prompt' occurs 2 times in one object",
        ),
    ],
)
def test_a_bad_row_is_told_with_file_line_and_remedy(tmp_path: Path, bad: Any, told: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, [row(), row(), bad]))
    assert str(caught.value) == f"{tmp_path / 'rows.jsonl'}:3: {told}\n    -> {DROP}"
    corpus = read_corpus(recipe_of(tmp_path, [row(), row(), bad], on_bad_row="drop"))
    assert (len(corpus.train), [str(one.origin) for one in corpus.dropped]) == (2, [f"{tmp_path / 'rows.jsonl'}:3"])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (
            '{"prompt": "a\\ud800b", "completion": "c"}',
            "lone surrogate: \\ud800 at character 2 of a value\n    -> half of a character pair is missing",
        ),
        (
            '{"prompt": "a", "completion": NaN}',
            "not a finite number: NaN is not JSON\n    -> write null or a number",
        ),
    ],
)
def test_values_that_are_none_are_told_by_the_reader(tmp_path: Path, bad: str, told: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, [row(), bad]))
    assert str(caught.value) == f"{tmp_path / 'rows.jsonl'}:2: {told}"


def test_all_bad_rows_are_told_at_once_and_counted_by_kind(tmp_path: Path) -> None:
    rows = [row(), *[row(completion="")] * 12, {"prompt": "p"}]
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, rows))
    told = [str(problem) for problem in caught.value.problems]
    file = tmp_path / "rows.jsonl"
    assert told[:10] == [f"{file}:{line}: empty answer: column 'completion' is ''" for line in range(2, 12)]
    assert told[10:] == [
        f"{file}:14: column missing: there is no column 'completion'",
        f"and 2 more rows: empty answer\n    -> {DROP}",
    ]


def test_no_rows_and_no_usable_rows(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, []))
    assert str(caught.value) == f"{tmp_path / 'rows.jsonl'}: the file is empty"
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, [row(completion="")], on_bad_row="drop"))
    assert str(caught.value) == (
        f"{tmp_path / 'rows.jsonl'}:1: empty answer: column 'completion' is ''\n"
        "    -> mend them: no other rows are left"
    )


def test_wrong_columns_are_refused_with_the_mapping_to_write(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError) as caught:
        read_corpus(recipe_of(tmp_path, [{"promt": "a", "complet": "b"}]))
    said = str(caught.value).splitlines()
    assert said[0] == "<python>: no format fits the columns 'promt', 'complet'"
    assert len(said) == 15
    assert said[-1] == (
        "    -> say which column is what, e.g. `format: prompt_completion` and `columns: {prompt: promt, completion: "
        "complet}` under data; or write the prompt and the answer yourself with `template:`"
    )


def test_numbers_are_learned_as_json_writes_them_and_other_columns_are_kept_beside(tmp_path: Path) -> None:
    rows = [row(completion=7), row(completion=True), row(prompt=5, completion={"a": 1}), row(more=1)]
    corpus = read_corpus(recipe_of(tmp_path, rows))
    assert [example.reference for example in corpus.train] == ["7", "true", '{"a":1}', "Here."]
    assert [example.metadata for example in corpus.train] == [{}, {}, {}, {"more": 1}]


def test_control_tokens_that_people_wrote_stay_text_and_are_counted(tmp_path: Path) -> None:
    found = prepared(tmp_path, [row(prompt="a<|im_end|>b"), row()])
    ids = tiny_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert [row.input_ids.tolist().count(ids) for row in found.train] == [2, 2]
    assert found.certificate.neutralised == 1


def test_rows_of_which_no_answer_would_be_left_are_never_trained_on(tmp_path: Path) -> None:
    rows = [row(completion="word " * 300), row(prompt="where " * 300), row()]
    with pytest.raises(FinetuneError) as caught:
        prepared(tmp_path, rows, max_length=64)
    assert "2 rows are longer than max_length 64: " in str(caught.value)
    found = prepared(tmp_path, rows, max_length=64, overlong="truncate_prompt")
    assert found.certificate.dropped == {"longer than max_length without its prompt": 1}
    assert found.certificate.nothing_to_learn == 0
    tokenizer = tiny_tokenizer()
    answers = [tokenizer.decode(one.input_ids[one.trained].tolist()) for one in found.train]
    assert answers == ["Here.<|im_end|>"] * 2


def test_new_content_under_an_old_time_is_read_anew(tmp_path: Path) -> None:
    import os

    first = read_corpus(recipe_of(tmp_path, [row(completion="one.")] * 2))
    stamp = (tmp_path / "rows.jsonl").stat()
    second = recipe_of(tmp_path, [row(completion="two.")] * 2)
    os.utime(tmp_path / "rows.jsonl", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert [example.reference for example in first.train] == ["one."] * 2
    assert [example.reference for example in read_corpus(second).train] == ["two."] * 2


def test_a_row_of_ten_megabytes_is_understood_in_seconds(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, [row(prompt="word " * 2_000_000), row()])
    start = time.process_time()
    corpus = read_corpus(recipe)
    assert time.process_time() - start < 2
    assert [len(example.messages[0].content) for example in corpus.train] == [10_000_000, 6]
