"""What stages hand back: written, read again, shown, and damage that is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.data import Example, Message, Origin, Prepared, TestItem, TokenRow
from finetune.data.formats.recognise import Recognition
from finetune.errors import FinetuneError, Problem
from finetune.evaluation import as_json
from finetune.recipe import GgufExport, MergedExport, OllamaExport, recipe_from_dict
from finetune.results import (
    PROOF_ROWS,
    Checked,
    Evaluation,
    Exports,
    RunResult,
    data_line,
    export_section,
    proof_rows,
    training_line,
)
from finetune.training import Training
from tests.run_records import certificate, finished_run, new_run, ticket_result, verification

EXPORT = [{"kind": "merged", "dtype": "float16"}]
RECIPE = recipe_from_dict({"model": {"base": "a/b"}, "data": {"train": "x"}, "export": EXPORT})


def evaluation(*verdicts: str) -> Evaluation:
    return Evaluation(tuple({"verdict": verdict} for verdict in verdicts))


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    result = ticket_result(n=12)
    kept = {"sentence": "It keeps.", "forgets": False, "verdict": "keeps"}
    written = Evaluation((as_json(result),), forgetting=kept, cost={"base": {"requests": 8}})
    written.write(folder, {"held-out": [{"id": "a"}, {"id": "b"}], "arc": [{"id": "c"}]})
    assert Evaluation.read(folder).as_dict() == json.loads(json.dumps(written.as_dict()))
    assert written.verdicts == ["better"]
    assert (folder.evaluation / "answers.jsonl").read_text() == '{"id": "a"}\n{"id": "b"}\n'
    assert (folder.evaluation / "answers-arc.jsonl").read_text() == '{"id": "c"}\n'
    assert written.sentences == [written.tasks[0]["sentence"], "It keeps."]


def test_proofs_are_added_to_those_before(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    assert Exports.write(folder, {"merged": verification()}).passed
    both = Exports.write(folder, {"merged-float16": verification(passed=False)})
    assert list(both.proofs) == ["merged", "merged-float16"]
    assert not both.passed
    assert Exports.read(folder).proofs == json.loads(json.dumps(both.proofs))


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    with pytest.raises(FinetuneError) as caught:
        Evaluation.read(folder)
    assert str(caught.value) == (f"{folder.evaluation}: there is no results.json yet\n    -> finetune evaluate RUN")
    folder.exports.mkdir()
    Exports.path(folder).write_text("{")
    for attempt in (lambda: Exports.read(folder), lambda: Exports.write(folder, {"merged": verification()})):
        with pytest.raises(FinetuneError) as caught:
            attempt()
        assert str(caught.value) == (
            f"{Exports.path(folder)}: verification.json is damaged: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)\n    -> delete it, then: finetune export RUN"
        )


def test_exports_are_whole_when_proofs_and_files_are_there(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    assert not Exports.whole(folder, ["merged"])
    (folder.exports / "merged").mkdir()
    assert Exports.whole(folder, ["merged"])
    assert not Exports.whole(folder, ["merged", "merged-float16"])
    Exports.path(folder).unlink()
    assert not Exports.whole(folder, ["merged"])


@pytest.mark.parametrize(
    ("verdict", "met"),
    [
        ("better", {"better", "not_worse", "nothing"}),
        ("no detectable difference", {"not_worse", "nothing"}),
        ("too few items to tell", {"not_worse", "nothing"}),
        ("worse", {"nothing"}),
    ],
)
def test_a_verdict_meets_what_is_required(verdict: str, met: set[str]) -> None:
    assert {rule for rule in ("better", "not_worse", "nothing") if evaluation(verdict).meets(rule)} == met
    assert not evaluation("worse", verdict).meets("not_worse")


def test_a_check_passes_with_warnings_and_not_with_errors() -> None:
    warning, error = Problem("a", "odd", severity="warning"), Problem("b:3", "<wrong>", "mend it")
    assert Checked((warning,), {}).passed
    failed = Checked((warning, error), None)
    assert not failed.passed
    assert failed.as_dict() == {
        "problems": [
            {"where": "a", "what": "odd", "fix": "", "severity": "warning"},
            {"where": "b:3", "what": "<wrong>", "fix": "mend it", "severity": "error"},
        ],
        "certificate": None,
    }
    assert "b:3: &lt;wrong&gt;" in failed._repr_html_()


def test_tables_escape_what_comes_from_data() -> None:
    hostile = "<script>alert(1)</script>"
    result = Evaluation((as_json(ticket_result(n=12, texts={0: hostile})),))
    proofs = Exports({hostile: {**verification().as_dict(), "path": hostile}})
    run = RunResult(run=hostile, data={}, train={}, evaluation=result, exports=proofs, report=hostile, passed=True)
    page = run._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert page.count("<table>") == page.count("</table>") == 3


# ------------------------------------------------------------------------------------------------------ what to prove


def items(count: int, *, text: str | None = None) -> list[TestItem]:
    def one(number: int) -> TestItem:
        row = TokenRow(f"t{number}", np.arange(number + 4, dtype=np.int32), np.ones(number + 4, dtype=bool))
        messages = () if text else (Message("user", "q"), Message("assistant", "a"))
        example = Example(id=row.id, origin=Origin("f", 1), messages=messages, text=text)
        return TestItem(example, () if text else (0, 1), (row, row) if text else (row,))

    return [one(number) for number in range(count)]


def prepared(test: list[TestItem], *, raw_text: bool = False) -> Prepared:
    train = [TokenRow(f"r{number}", np.arange(6, dtype=np.int32), np.ones(6, dtype=bool)) for number in range(40)]
    return Prepared(
        train=train,
        validation=[],
        test=test,
        certificate=certificate(),
        recognition=Recognition(format="messages", columns={}, why=""),
        labels=None,
        train_examples=[],
        train_references=[],
        stop=(3,),
        dropped=[],
        raw_text=raw_text,
        cached=None,
    )


def test_files_are_proven_on_test_rows() -> None:
    rows = proof_rows(prepared(items(30)))
    assert len(rows) == PROOF_ROWS
    assert (rows[2].id, rows[2].prompt, rows[2].whole) == ("t2", (0, 1), (0, 1, 2, 3, 4, 5))


def test_without_test_rows_on_training_rows() -> None:
    rows = proof_rows(prepared([]))
    assert len(rows) == PROOF_ROWS
    assert (rows[0].id, rows[0].prompt, rows[0].whole) == ("r0", (0, 1, 2), (0, 1, 2, 3, 4, 5))


def test_raw_text_is_continued_from_its_half() -> None:
    rows = proof_rows(prepared(items(3, text="raw"), raw_text=True))
    assert [(row.id, len(row.prompt), len(row.whole)) for row in rows] == [("t0", 2, 4), ("t1", 2, 5), ("t2", 3, 6)]


# -------------------------------------------------------------------------------------------------- names and lines


def test_an_export_by_name_keeps_the_recipes_bounds() -> None:
    recipe = RECIPE.model_copy(update={"export": (MergedExport(max_kl=0.5),)})
    assert export_section("merged", recipe) == MergedExport(max_kl=0.5)
    assert export_section("merged:bfloat16", recipe) == MergedExport(max_kl=0.5, dtype="bfloat16")
    assert export_section("merged", RECIPE.model_copy(update={"export": ()})) == MergedExport()
    assert export_section("gguf", RECIPE) == GgufExport(quantization="q8_0")
    assert export_section("gguf:q4_k_m", RECIPE) == GgufExport(quantization="q4_k_m")
    asked = RECIPE.model_copy(update={"export": (GgufExport(quantization="f16"), OllamaExport(num_ctx=512))})
    assert export_section("gguf", asked).quantization == "f16"
    assert export_section("ollama:q4_0", asked) == OllamaExport(num_ctx=512, quantization="q4_0")


@pytest.mark.parametrize(
    ("to", "fix"),
    [
        ("mergd", "merged or gguf or ollama"),
        ("merged:bfloat", "merged or merged:bfloat16"),
        ("merged:q4", "merged or merged:float16"),
        ("gguf:q8", "gguf or gguf:q8_0"),
        ("gguf:q4_km", "gguf or gguf:q4_k_m"),
        ("ollama:float16", "ollama or ollama:f16"),
        ("", "merged or gguf or ollama"),
    ],
)
def test_an_unknown_export_is_named(to: str, fix: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        export_section(to, RECIPE)
    assert str(caught.value) == f"--to: cannot export to {to!r}\n    -> {fix}"


def test_stages_are_said_in_a_line() -> None:
    assert data_line(certificate()) == (
        "prompt_completion: 1,350 train, 150 validation, 300 test rows, 3 dropped; "
        "51,877 of 163,204 tokens are learned (32%)"
    )
    done = Training(
        steps=85,
        kept_step=68,
        epochs=1.0,
        loss=0.3471,
        validation_loss=None,
        tokens=163_204,
        tokens_per_second=521.4,
        seconds=331.4,
        peak_memory=1,
        resumed_from=None,
        micro_batch_tokens=1024,
        folder="runs/x/adapter",
    )
    line = "85 steps, 163,204 tokens in 331 s (521 tokens/s); loss 0.347; step 68 kept"
    assert training_line(done) == line
    assert training_line(replace(done, validation_loss=0.4102)) == line.replace("0.347;", "0.347, validation 0.410;")
