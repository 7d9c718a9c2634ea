"""`finetune report`: the page of one run, and the page across several."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Said
from tests.small_runs import SmallRun


def test_reports_of_one_run_and_of_several(lora_run: SmallRun, command: Callable[..., Said], tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(lora_run.folder, tmp_path / name)
    (tmp_path / "first" / "report.html").unlink()
    done = command("report", tmp_path / "first", "--json")
    assert (done.code, done.json()) == (0, {"report": str(tmp_path / "first" / "report.html")})
    assert (tmp_path / "first" / "report.html").is_file()
    page = tmp_path / "across.html"
    done = command("report", tmp_path / "first", tmp_path / "second", "--out", page, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert found["report"] == str(page)
    assert [task["task"] for task in found["tasks"]] == ["held-out"]
    assert "<script" not in page.read_text(encoding="utf-8")
    done = command("report", tmp_path / "first", tmp_path / "nowhere")
    assert (done.code, "there is no run here" in done.err) == (2, True)
