"""An evaluation in a notebook: the verdicts, and every table, escaped."""

from __future__ import annotations

import html
from pathlib import Path

from finetune.evaluation.reporting.fragments import evaluation_fragment
from finetune.evaluation.reporting.records import read_results
from tests.run_records import finished_run, whole_run


def test_an_older_evaluation_is_a_sentence_and_a_table(tmp_path: Path) -> None:
    results = read_results(finished_run(tmp_path / "run"))
    page = evaluation_fragment(results)
    assert html.escape(results["tasks"][0]["sentence"]) in page
    assert page.count("<table>") == page.count("</table>") == 1
    for cell in ("base", "tuned", "difference, tuned - base"):
        assert f">{cell}</td>" in page
    assert ">interval (95%)</th>" in page


def test_a_whole_evaluation_shows_every_table(tmp_path: Path) -> None:
    page = evaluation_fragment(read_results(whole_run(tmp_path / "run", forgets=True)))
    assert page.count("<table>") == 2 + 7
    assert "Tuned lost what its base could do: 20 points on general questions." in page
    assert "<b>phone" not in page
    assert "&lt;b&gt;phone&lt;/b&gt;" in page
    assert "<script" not in page
