"""Reading a run folder in any state, and the words that page and card share."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.reporting.facts import data_facts, duration, proof_rows, score_rows
from finetune.evaluation.reporting.records import answers_name, read_answers, read_records, read_results
from tests.run_records import finished_run, new_run, ticket_result, verification, whole_run


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    records = read_records(finished_run(tmp_path / "tickets", result=ticket_result(n=20)))
    assert records["name"] == "tickets"
    assert len(records["answers"]["held-out"]) == 20
    assert len(records["metrics"]) == 85 + 5
    assert [task["task"] for task in records["tasks"]] == ["held-out"]
    assert [row["kind"] for row in records["said"]["scores"][0]] == ["baseline", "base", "subject", "difference"]
    facts = dict(records["said"]["training"])
    assert facts["Method"] == "lora: rank 16, alpha 32, targets all-linear"
    assert facts["Learning rate"] == "0.001, cosine schedule"
    assert facts["Peak memory"] == "1.62 GiB"
    data = dict(records["said"]["data"])
    assert data["Rows"] == "1,803 read, 1,800 kept: 1,350 train, 150 validation, 300 test"
    assert data["Dropped"] == "empty answer: 2; the same row twice: 1"
    assert data["Tokens of the training rows"] == "163,204, of which 51,877 are learned (31.78 %)"
    assert data["Mask"] == "1,350 rows: found by marked contents"


def test_findings_stand_among_the_facts_of_the_data(tmp_path: Path) -> None:
    certificate = read_records(finished_run(tmp_path / "tickets"))["certificate"]
    assert "Found in the rows" not in dict(data_facts(certificate))
    found = [
        {"kind": "leaks", "severity": "warning", "count": 1025},
        {"kind": "languages", "severity": "note", "count": 3},
    ]
    facts = dict(data_facts({**certificate, "findings": found, "masked": {"email": 4, "phone": 1}}))
    assert facts["Found in the rows"] == "leaks (warning): 1,025; languages (note): 3"
    assert facts["Masked personal data"] == "email: 4; phone: 1"


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    (folder.data / "certificate.json").unlink()
    records = read_records(folder)
    assert records["certificate"] is None
    assert [records[key] for key in ("metrics", "tasks", "answers", "proofs")] == [[], [], {}, {}]
    assert records["said"]["scores"] == records["said"]["proofs"] == records["said"]["data"] == []


def test_a_logged_rate_stands_in_where_the_recipe_names_none(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12))
    identity = {**folder.manifest()["identity"], "train.learning_rate": None}
    folder.update(identity=identity)
    assert ("Learning rate", "0.001 at its highest") in read_records(folder)["said"]["training"]


def test_separators_inside_texts_do_not_break_lines(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    records = read_records(finished_run(tmp_path / "run", result=ticket_result(n=12, texts={3: text})))
    assert records["answers"]["held-out"][3]["tuned"]["text"] == text


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12))
    answers = folder.evaluation / "answers.jsonl"
    answers.write_text(answers.read_text(encoding="utf-8") + "{", encoding="utf-8")
    with pytest.raises(FinetuneError, match="this file is damaged: ") as caught:
        read_records(folder)
    assert caught.value.problems[0].where == f"{answers}:13"
    assert caught.value.problems[0].fix == "delete it and run the stage that writes it again"


def test_shares_are_never_rounded_up_to_all() -> None:
    proof = {**verification().as_dict(), "top1_agreement": 0.999999}
    (row,) = proof_rows({"merged": proof})
    assert row["top1"] == "99.99 %"
    (row,) = proof_rows({"merged": {**proof, "top1_agreement": 1.0}})
    assert row["top1"] == "100.00 %"


def test_scores_show_as_many_decimals_as_the_difference_needs() -> None:
    task = {
        "unit": "share right",
        "interval": [0.004, 0.1],
        "base": 0.5,
        "base_interval": [0.4, 0.6],
        "baseline": None,
        "subject": "tuned",
        "comparisons": {
            "tuned": {"tuned": 0.55, "tuned_interval": [0.45, 0.65], "difference": 0.05, "interval": [0.004, 0.1]}
        },
    }
    assert [(row["score"], row["interval"]) for row in score_rows(task)] == [
        ("0.500", "[0.400, 0.600]"),
        ("0.550", "[0.450, 0.650]"),
        ("+0.050", "[0.004, 0.100]"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (48.4, "48 s"), (59.7, "1 min 0 s"), (312, "5 min 12 s"), (7_380, "2 h 3 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_answers_of_every_task_are_read(tmp_path: Path) -> None:
    records = read_records(whole_run(tmp_path / "run"))
    assert {task: len(answers) for task, answers in records["answers"].items()} == {"held-out": 120, "capitals": 60}
    assert records["forgetting"]["verdict"] == "keeps"
    assert list(records["cost"]) == ["base", "tuned", "frontier"]
    assert [one.verdict for one in records["said"]["outcomes"]] == [
        "better",
        "no detectable difference",
        "keeps",
        "leak",
    ]
    assert [len(panels) for panels in records["said"]["panels"]] == [3, 1]
    assert [panel.title for panel in records["said"]["beside"]] == [
        "Forgetting",
        "Cost of serving",
        "Proof of sameness",
    ]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("held-out", "answers.jsonl"),
        ("pubmedqa", "answers-pubmedqa.jsonl"),
        ("a b_c-1.0", "answers-a b_c-1.0.jsonl"),
        ("a/b", "answers-a%2Fb.jsonl"),
        ("a%2Fb", "answers-a%252Fb.jsonl"),
        ("../x", "answers-..%2Fx.jsonl"),
    ],
)
def test_every_task_has_a_file_of_its_own(task: str, name: str) -> None:
    assert answers_name(task) == name


def test_a_run_without_evaluation_has_no_results(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    assert read_results(folder) == {"tasks": []}
    assert read_answers(folder, "held-out") == []


def test_forgetting_of_the_kept_step_is_told(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12))
    assert "General texts, kept step" not in dict(read_records(folder)["said"]["training"])
    done = folder.manifest()["stages"]["train"]
    folder.finish("train", **{**done, "forgetting": 0.0213, "forgets": True})
    assert dict(read_records(folder)["said"]["training"])["General texts, kept step"] == (
        "+0.0213 bits a byte against the base, more than the recipe allows: no checkpoint kept below that"
    )
