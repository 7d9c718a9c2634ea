"""Checks in the data stage: what the certificate says, what is masked before rows are divided, what refuses."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from finetune.data.checks.personal import personal_data
from finetune.data.corpus import read_corpus
from finetune.data.prepare import Prepared, prepare
from finetune.errors import FinetuneError
from finetune.session import Run
from tests.small_runs import questions, sentence, small_recipe, write_lines
from tests.tiny import tiny_tokenizer


def recipe_of(folder: Path, rows: list[Any], test: list[Any] | None = None, **data: Any) -> Any:
    section = {"max_length": 128, **data}
    if test is not None:
        section["test"] = str(write_lines(folder / "test.jsonl", test))
    file = write_lines(folder / "rows.jsonl", rows)
    return small_recipe(Path("some/base"), file, folder / "runs", data=section)


def prepared(folder: Path, rows: list[Any], test: list[Any] | None = None, **data: Any) -> Prepared:
    return prepare(recipe_of(folder, rows, test, **data), tiny_tokenizer(), context_length=512)


def with_addresses(count: int = 40) -> list[dict[str, Any]]:
    return [
        {**row, "prompt": f"{row['prompt']} for ann{place}@a.org and +49 30 9018{place:02}"}
        for place, row in enumerate(questions(count))
    ]


def test_personal_data_is_counted_and_stays_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    found = prepared(tmp_path, with_addresses())
    (finding,) = [one for one in found.certificate.findings if one.kind == "personal_data"]
    assert (finding.count, finding.severity) == (40, "warning")
    assert found.certificate.masked == {}
    assert "ann" in tiny_tokenizer().decode(found.train[0].input_ids)


def test_masking_comes_before_everything_and_is_counted(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, with_addresses(), with_addresses(4), checks={"personal_data": "mask"})
    corpus = read_corpus(recipe)
    rows = [*corpus.train, *corpus.division.validation, *corpus.division.test]
    assert len(rows) == 44
    assert all("for [EMAIL_1] and [PHONE_1]" in row.messages[0].content for row in rows)
    found = prepare(recipe, tiny_tokenizer(), context_length=512)
    assert found.certificate.masked == {"email": 44, "phone": 44}
    (note,) = [one for one in found.certificate.findings if one.kind == "personal_data"]
    assert (note.severity, note.count) == ("note", 88)
    assert note.what == (
        "88 pieces of personal data were replaced by placeholders such as [EMAIL_1] (44 e-mail, 44 phone number)"
    )
    texts = [str(tiny_tokenizer().decode(row.input_ids)) for row in found.train]
    assert len(texts) > 30
    assert not any(personal_data(text) for text in texts)
    assert "@a.org" not in json.dumps(found.certificate.as_dict())


def test_personal_data_may_refuse_or_be_left_alone(tmp_path: Path) -> None:
    certificate = prepared(tmp_path, with_addresses(), checks={"personal_data": "error"}).certificate
    assert not certificate.passed
    with pytest.raises(FinetuneError, match="40 rows with what looks like personal data"):
        certificate.require()
    ignored = prepared(tmp_path, with_addresses(), checks={"personal_data": "ignore"}).certificate
    assert ignored.passed
    assert [one for one in ignored.findings if one.kind == "personal_data"] == []


def test_a_kind_may_refuse_or_be_ignored(tmp_path: Path) -> None:
    rows = [*questions(40), {"id": "r", "prompt": "Why is that so?", "completion": "I cannot help with that."}]
    kinds = {one.kind: one.severity for one in prepared(tmp_path, rows).certificate.findings}
    assert kinds["refusals"] == "warning"
    with pytest.raises(FinetuneError, match="refuses or speaks of itself as an AI"):
        prepared(tmp_path, rows, checks={"error": ["refusals"]}).certificate.require()
    ignored = prepared(tmp_path, rows, checks={"ignore": ["refusals"]}).certificate
    assert "refusals" not in {one.kind for one in ignored.findings}
    assert ignored.passed


def test_a_leak_into_a_file_of_test_rows_is_told_once(tmp_path: Path) -> None:
    rows = questions(40)
    test = [{**rows[4], "prompt": rows[4]["prompt"].upper() + "!"}, *questions(3, seed=9)]
    certificate = prepared(tmp_path, rows, test).certificate
    (leak,) = [one for one in certificate.findings if one.kind == "leaks"]
    assert (leak.count, leak.severity) == (1, "warning")
    assert leak.examples[0].where == f"{tmp_path}/test.jsonl:1 = {tmp_path}/rows.jsonl:5"
    assert sum("test rows" in problem.what for problem in certificate.problems) == 1


def test_rows_that_were_cut_or_left_out_are_named(tmp_path: Path) -> None:
    rows = [*questions(40), {"id": "long", "prompt": sentence(random.Random(1), 400), "completion": "returns"}]
    split = {"validation": 0.1, "test": 0.1, "near_duplicates": "ignore"}
    for overlong, told in (("drop", "1 are left out"), ("truncate_prompt", "of 1 the prompt is cut from its start")):
        certificate = prepared(tmp_path, rows, overlong=overlong, split=split).certificate
        (long,) = [one for one in certificate.findings if one.kind == "over_long"]
        assert long.what.startswith(f"1 row longer than max_length 128: {told} (training rows in tokens, after that: ")
        assert long.examples[0].where == f"{tmp_path}/rows.jsonl:41"
        ignored = prepared(tmp_path, rows, overlong=overlong, split=split, checks={"ignore": ["over_long"]})
        assert [one for one in ignored.certificate.findings if one.kind == "over_long"] == []


def test_the_certificate_is_kept_with_the_run_and_its_hash_in_the_manifest(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*questions(40), {"id": "r", "prompt": "Why is that so?", "completion": "I cannot help with that."}]
    folder = Run(small_recipe(tiny_base, write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "runs")).create()
    kept = json.loads((folder.data / "certificate.json").read_text(encoding="utf-8"))
    assert "refusals" in {one["kind"] for one in kept["findings"]}
    assert folder.manifest()["stages"]["data"]["certificate"] == kept["hash"]
    rest = {key: value for key, value in kept.items() if key != "hash"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == kept["hash"]
