"""The face for Python and notebooks: recipes with overrides, the mask in colour, tables, the curve, quiet libraries."""

from __future__ import annotations

import html
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import finetune as ft
from finetune.data.view import NOT_LEARNED, STYLE
from finetune.notebook import LiveCurve, calm, in_notebook
from finetune.recipe import recipe_from_dict
from finetune.results import Evaluation, Exports, RunResult
from tests.run_records import finished_run, ticket_result
from tests.small_runs import questions, settings, small_recipe, tickets, write_lines

GREEN = re.compile(rf'<span style="{re.escape(STYLE)}">([^<]*)</span>')


def test_overrides_are_values_by_dotted_key(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: {base: ORG/MODEL}\ndata: {train: rows.jsonl}\n", encoding="utf-8")
    recipe = ft.load_recipe(file, {"train.steps": 7, "data.system": "a: b # c", "evaluate.fields": ["x", "y"]})
    assert (recipe.train.steps, recipe.data.system, recipe.evaluate.fields) == (7, "a: b # c", ("x", "y"))
    assert recipe.where("train.steps") == "--set train.steps"
    assert recipe.run.name == "r"


def test_an_override_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: {base: ORG/MODEL}\ndata: {train: rows.jsonl}\n", encoding="utf-8")
    with pytest.raises(ft.FinetuneError) as caught:
        ft.load_recipe(file, {"train.step": 7})
    (problem,) = caught.value.problems
    assert problem.where == "--set train.step"
    assert "steps" in problem.fix


def test_the_mask_in_colour(tmp_path: Path, tiny_base: Path) -> None:
    rows = [{"prompt": "Is 1 < 2 & 3 > 2?", "completion": "<b>yes</b>"}, *questions(11)]
    values = settings(tiny_base, write_lines(tmp_path / "d.jsonl", rows), tmp_path)
    values["data"]["split"] = {"test": 0.0, "validation": 0.0}
    del values["train"]["eval_every"]
    page = ft.show_mask(recipe_from_dict(values), rows=2)._repr_html_()
    legend, first, second = GREEN.findall(page)
    assert legend == "learned"
    assert first == "&lt;b&gt;yes&lt;/b&gt;&lt;|im_end|&gt;"
    assert second == "returns&lt;|im_end|&gt;"
    assert "Is 1 &lt; 2 &amp; 3 &gt; 2?" in page
    assert f'<span style="{NOT_LEARNED}">read, not learned</span>' in page
    (learned, total), _ = re.findall(r"</b>: (\d+) of (\d+) tokens are learned", page)
    assert 0 < int(learned) < int(total)


def test_what_check_found_is_a_table(tmp_path: Path, tiny_base: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", [*tickets(), {"text": "another <one>", "queue": "Billing"}])
    values = settings(tiny_base, data, tmp_path)
    values["data"]["max_length"] = 256
    page = ft.check(recipe_from_dict(values))._repr_html_()
    assert page.startswith("<p><b>ready to train</b></p>")
    assert ">warning</b>" in page
    assert "labels &#x27;Billing&#x27; and &#x27;billing&#x27; differ only in case or white space" in page
    assert ">49 read, 49 kept: " in page


def test_what_check_refuses_is_told_without_a_table(tmp_path: Path, tiny_base: Path) -> None:
    data = write_lines(tmp_path / "d.jsonl", [*tickets(), {"text": "<i>x</i>", "queue": ""}])
    page = ft.check(small_recipe(tiny_base, data, tmp_path))._repr_html_()
    assert page.startswith("<p><b>not ready to train</b></p>")
    assert f"{data}:49: empty answer" in page
    assert ">error</b>" in page
    assert "<table" not in page


def test_results_are_tables(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    evaluation, exports = Evaluation.read(folder), Exports.read(folder)
    task = evaluation.tasks[0]
    page = evaluation._repr_html_()
    assert html.escape(task["sentence"]) in page
    assert [label for label in ("base", "tuned", "difference, tuned - base") if f">{label}</td>" not in page] == []
    assert ">interval (95%)</th>" in page
    proven = exports._repr_html_()
    assert proven.count("<tr>") == 1 + len(exports.proofs)
    assert ">passed</td>" in proven
    whole = RunResult(
        run=str(folder.path), data={}, train={}, evaluation=evaluation, exports=exports, report="r.html", passed=True
    )
    assert page in whole._repr_html_()
    assert proven in whole._repr_html_()
    assert ">r.html</td>" in whole._repr_html_()


def test_a_failed_verification_is_shouted(tmp_path: Path) -> None:
    exports = Exports.read(finished_run(tmp_path / "run"))
    name, proof = next(iter(exports.proofs.items()))
    assert ">FAILED</td>" in Exports({name: {**proof, "passed": False}})._repr_html_()


def test_runs_are_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        finished_run(tmp_path / name, result=ticket_result(n=12))
    found = ft.compare_runs(tmp_path / "a", str(tmp_path / "b"))
    assert [run.name for run in found.runs] == ["a", "b"]
    assert "No detectable difference between b and a on held-out" in found._repr_html_()
    with pytest.raises(ft.FinetuneError, match="one run alone has nothing to be compared with"):
        ft.compare_runs(tmp_path / "a")


# ------------------------------------------------------------------------------------------------------------- curve


class Shown:
    """Stands in for IPython's display: keeps what was shown, and what took its place."""

    def __init__(self) -> None:
        self.pictures: list[str] = []

    def display(self, picture: Any, display_id: bool) -> Shown:
        assert display_id
        self.update(picture)
        return self

    def update(self, picture: Any) -> None:
        self.pictures.append(picture.data)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    display = pytest.importorskip("IPython.display", reason="needs the extra: pip install 'finetune[notebook]'")
    shown = Shown()
    monkeypatch.setattr(display, "display", shown.display)
    return shown


def test_the_curve_grows_and_is_drawn_whole(shown: Shown) -> None:
    curve = LiveCurve()
    for step in range(1, 12):
        curve.log(step, {"loss": 3 - step / 10})
    curve.finish({"loss": 1.9})
    assert len(shown.pictures) == 2
    curve.draw([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0, "eval_loss": 2.5}], kept_step=2)
    assert len(shown.pictures) == 3
    assert [("step 2 kept" in picture) for picture in shown.pictures] == [False, False, True]


def test_no_curve_where_nothing_was_logged(shown: Shown) -> None:
    curve = LiveCurve()
    curve.finish({})
    curve.draw([], kept_step=4)
    curve.draw([{"step": 1, "epoch": 0.1}])
    assert shown.pictures == []


# ------------------------------------------------------------------------------------------------------------- quiet


def test_libraries_are_quiet_inside_and_as_before_outside() -> None:
    from transformers.utils import logging as transformers_logging

    bitsandbytes = logging.getLogger("bitsandbytes")
    transformers_logging.enable_progress_bar()
    before = (list(warnings.filters), bitsandbytes.level)
    with pytest.raises(KeyError), calm():  # noqa: PT012  (what holds while it raises is the point)
        assert not transformers_logging.is_progress_bar_enabled()
        assert bitsandbytes.level == logging.ERROR
        warnings.warn("renamed soon", FutureWarning, stacklevel=1)
        raise KeyError
    assert transformers_logging.is_progress_bar_enabled()
    assert (list(warnings.filters), bitsandbytes.level) == before
    transformers_logging.disable_progress_bar()
    with calm():
        pass
    assert not transformers_logging.is_progress_bar_enabled()


def test_this_is_no_notebook() -> None:
    assert not in_notebook()
