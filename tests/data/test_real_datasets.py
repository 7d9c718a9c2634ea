"""Every file of the real data sets, as their authors published them: each row is read, and none is made up."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from finetune.data.reading.sources import read_rows

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "datasets"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no data sets under FINETUNE_SHARED")

# fmt: off
LEGALBENCH = {
    "abercrombie": (95, 5, 5), "cuad_anti-assignment": (1206, 6, 6), "cuad_audit_rights": (1218, 6, 6),
    "cuad_cap_on_liability": (1256, 6, 6), "cuad_governing_law": (904, 6, 6), "cuad_license_grant": (1424, 6, 6),
    "cuad_non-compete": (444, 6, 6), "cuad_termination_for_convenience": (436, 6, 6), "diversity_1": (300, 6, 6),
    "hearsay": (95, 5, 5), "overruling": (2394, 6, 6), "personal_jurisdiction": (50, 4, 4), "proa": (95, 5, 5),
    "unfair_tos": (3841, None, 9),
}
FILES: dict[str, tuple[int, str]] = {
    "banking77/train.csv": (10_003, "CSV"),
    "banking77/test.csv": (3_080, "CSV"),
    "gsm8k/train.jsonl": (7_473, "JSON Lines"),
    "gsm8k/test.jsonl": (1_319, "JSON Lines"),
    "hh_rlhf/test.jsonl.gz": (2_312, "JSON Lines"),
    "humaneval/HumanEval.jsonl.gz": (164, "JSON Lines"),
    "mbpp/mbpp.jsonl": (974, "JSON Lines"),
    "medmcqa/dev.json": (4_183, "JSON Lines"),
    "mmlu_med/anatomy_test.csv": (135, "CSV without header"),
    "mmlu_med/clinical_knowledge_test.csv": (265, "CSV without header"),
    "mmlu_med/college_biology_test.csv": (144, "CSV without header"),
    "mmlu_med/college_medicine_test.csv": (173, "CSV without header"),
    "mmlu_med/medical_genetics_test.csv": (100, "CSV without header"),
    "mmlu_med/professional_medicine_test.csv": (272, "CSV without header"),
    "mts_dialog/MTS-Dialog-TrainingSet.csv": (1_201, "CSV"),
    "mts_dialog/MTS-Dialog-ValidationSet.csv": (100, "CSV"),
    "mts_dialog/MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv": (200, "CSV"),
    "mts_dialog/MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv": (200, "CSV"),
    "pubmedqa/ori_pqal.json": (1_000, "JSON object keyed by id"),
    "pubmedqa/test_ground_truth.json": (1, "one JSON object"),
    "self_instruct/seed_tasks.jsonl": (175, "JSON Lines"),
    "self_instruct/user_oriented_instructions.jsonl": (252, "JSON Lines"),
    "sgd/train/dialogues_001.json": (128, "JSON list"),
    "sgd/train/dialogues_033.json": (128, "JSON list"),
    "sgd/dev/dialogues_007.json": (68, "JSON list"),
    "sgd/test/dialogues_011.json": (51, "JSON list"),
    "sgd/train/schema.json": (26, "JSON list"),
    "sgd/dev/schema.json": (17, "JSON list"),
    "sgd/test/schema.json": (21, "JSON list"),
    "spider_sql/spider/dev.json": (1_034, "JSON list"),
    "spider_sql/spider/tables.json": (166, "JSON list"),
    "spider_sql/spider_dk/Spider-DK.json": (535, "JSON list"),
    "spider_sql/spider_dk/tables.json": (169, "JSON list"),
    "tatqa/tatqa_dataset_dev.json": (278, "JSON list"),
    "tatqa/tatqa_dataset_test_gold.json": (277, "JSON list"),
    **{
        f"legalbench/{task}/{name}.tsv": (count, "TSV")
        for task, counts in LEGALBENCH.items()
        for name, count in zip(("test", "train", "train_head"), counts, strict=True) if count is not None
    },
}
# fmt: on
NO_ROWS = {"banking77/categories.json": 77}
"""Lists of plain texts: each item is named as no object."""


def test_the_table_is_of_all_files_with_rows() -> None:
    found = {path.relative_to(SHARED).as_posix() for path in SHARED.rglob("*") if path.is_file()}
    data = {name for name in found if name.endswith((".json", ".jsonl", ".csv", ".tsv", ".gz"))}
    assert data == FILES.keys() | NO_ROWS.keys()
    assert len({name.partition("/")[0] for name in found}) == 17  # 16 folders and a README


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_read(name: str) -> None:
    count, container = FILES[name]
    file = SHARED / name
    source = read_rows(str(file))
    assert (len(source.rows), source.rejected, source.container) == (count, [], container)
    assert source.files == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    lines = [row.origin.line for row in source.rows]
    assert lines == sorted(set(lines))
    assert len({tuple(row.fields) for row in source.rows if container.startswith(("CSV", "TSV"))}) <= 1


@pytest.mark.parametrize("name", NO_ROWS)
def test_what_is_no_row_is_named(name: str) -> None:
    source = read_rows(str(SHARED / name))
    assert (len(source.rows), len(source.rejected)) == (0, NO_ROWS[name])
    assert {bad.reason for bad in source.rejected} == {"not an object"}


def test_the_questions_of_medquad_with_their_documents() -> None:
    source = read_rows(str(SHARED / "medquad"))
    folders = Counter(Path(row.origin.file).parent.name for row in source.rows)
    assert folders == {"12_MPlusHerbsSupplements_QA": 792, "8_NHLBI_QA_XML": 559, "9_CDC_QA": 270}
    assert sum(row.fields["Answer"] == "" for row in source.rows) == 792
    assert all({"pid", "Question", "Question.qid", "Question.qtype"} <= row.fields.keys() for row in source.rows)
    named = Counter("Document.Focus" if "Document.Focus" in row.fields else "DiseaseFile.Focus" for row in source.rows)
    assert named == {"Document.Focus": 1_616, "DiseaseFile.Focus": 5}  # one file has a root of its own
    assert all(named.keys() & row.fields.keys() for row in source.rows)
    assert source.container == "XML, rows are <QAPair> (246 files)"
    assert source.notes[0].what == "3 files set aside (about the data): LICENSE.txt, SOURCE.txt, readme.txt"
    one = Counter(row.origin.file for row in source.rows)
    assert min(one.values()) == 1  # a single question is a row too


def test_the_pages_of_openstax_are_documents() -> None:
    source = read_rows(str(SHARED / "openstax_anatomy"))
    assert len(source.rows) + len(source.rejected) == 198
    assert len(source.rows) > 190
    assert source.container.startswith("198 Markdown documents")
    assert "3 files set aside (about the data): LICENSE.txt, SHA256SUMS, SOURCE.txt" in [
        note.what for note in source.notes
    ]


def test_a_legalbench_task_mixes_rows_and_prompts() -> None:
    from finetune.errors import FinetuneError

    with pytest.raises(FinetuneError) as caught:
        read_rows(str(SHARED / "legalbench" / "abercrombie"))
    (problem,) = caught.value.problems
    assert problem.what.endswith(
        "holds both rows (test.tsv, train.tsv, train_head.tsv) and documents (base_prompt.txt)"
    )
