"""Evaluation: contestants answer the same items, and the difference is tested."""

from finetune.evaluation.compare import TaskResult, as_json, losses, verdict_sentence, wins
from finetune.evaluation.held_out import answer_records, check_scorer, evaluate
from finetune.evaluation.records import read_records
from finetune.evaluation.report import report_html
from finetune.evaluation.shipped import score_file

__all__ = [
    "TaskResult",
    "answer_records",
    "as_json",
    "check_scorer",
    "evaluate",
    "losses",
    "read_records",
    "report_html",
    "score_file",
    "verdict_sentence",
    "wins",
]
