"""Evaluation: contestants answer the same items, and the difference is tested."""

from finetune.evaluation.compare import TaskResult, as_json, losses, verdict_sentence, wins
from finetune.evaluation.reporting.across import Across, compare_runs
from finetune.evaluation.reporting.across_page import across_html
from finetune.evaluation.reporting.fragments import evaluation_fragment
from finetune.evaluation.reporting.records import answers_name, read_records
from finetune.evaluation.reporting.report import report_html
from finetune.evaluation.reporting.verdicts import outcomes, run_verdict
from finetune.evaluation.shipped import score_file
from finetune.evaluation.tasks import (
    HELD_OUT,
    Task,
    answer,
    answer_records,
    asked_hash,
    check_scorer,
    judge,
    judged,
    make_task,
)

__all__ = [
    "HELD_OUT",
    "Across",
    "Task",
    "TaskResult",
    "across_html",
    "answer",
    "answer_records",
    "answers_name",
    "as_json",
    "asked_hash",
    "check_scorer",
    "compare_runs",
    "evaluation_fragment",
    "judge",
    "judged",
    "losses",
    "make_task",
    "outcomes",
    "read_records",
    "report_html",
    "run_verdict",
    "score_file",
    "verdict_sentence",
    "wins",
]
