"""The tables beside the scores: every cell from the results, nothing for what an older run does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.evaluation.reporting.panels import (
    SHOWN_LEAKS,
    Panel,
    build_or_buy,
    latency,
    money,
    run_panels,
    task_panels,
)
from finetune.evaluation.reporting.records import read_results
from tests.run_records import cost, finished_run, forgetting, leak, sameness, whole_run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_results(whole_run(tmp_path_factory.mktemp("runs") / "tickets", forgets=True))


def named(panels: list[Panel]) -> dict[str, Panel]:
    return {panel.title: panel for panel in panels}


def test_every_row_fits_its_head(results: dict[str, Any]) -> None:
    panels = [*run_panels(results), *(panel for task in results["tasks"] for panel in task_panels(task))]
    assert [panel.title for panel in panels] == [
        "Forgetting",
        "Cost of serving",
        "Proof of sameness",
        "Slices",
        "Test items in the training rows",
        "The score without those items",
        "Calibration",
    ]
    for panel in panels:
        assert panel.rows
        assert {len(row) for row in panel.rows} == {len(panel.head)}
        assert 1 <= panel.words <= len(panel.head)


def test_older_results_have_no_tables(tmp_path: Path) -> None:
    older = read_results(finished_run(tmp_path / "run"))
    assert run_panels(older) == []
    assert [task_panels(task) for task in older["tasks"]] == [[]]
    assert run_panels({"tasks": [], "forgetting": None, "cost": {}, "sameness": None}) == []


def test_slices_say_their_verdicts_and_intervals(results: dict[str, Any]) -> None:
    panel = named(task_panels(results["tasks"][0]))["Slices"]
    assert panel.rows == (
        ("channel = mail", "better", "70", "0.06", "0.88", "+0.82 [0.70, 0.90]"),
        ("channel = <b>phone</b>", "too few items to tell", "6", "0.06", "0.10", "+0.04 [-0.20, 0.28]"),
    )


def test_calibration_stands_beside_what_chance_would_show(results: dict[str, Any]) -> None:
    panel = named(task_panels(results["tasks"][1]))["Calibration"]
    assert panel.rows == (("base", "45", "0.250", "0.030", "0.223"), ("tuned", "45", "0.040", "0.030", "0.170"))


def test_leaks_are_named_with_their_training_rows(results: dict[str, Any]) -> None:
    panels = named(task_panels(results["tasks"][0]))
    assert panels["Test items in the training rows"].rows == (
        ("T-00000", "the same to the letter", "train-0 at tickets.jsonl:1", "100 %"),
        ("T-00001", "13 words in a row", "train-1 at tickets.jsonl:2", "62 %"),
    )
    everything, clean = panels["The score without those items"].rows
    assert everything[:3] == ("all", "better", "120")
    assert clean[:3] == ("clean", "better", "118")
    assert clean[4] == "0.85 [0.82, 0.88]"


def test_many_leaks_are_cut_and_it_is_said(results: dict[str, Any]) -> None:
    many = {**results["tasks"][0], "leak": leak(57)}
    panel = named(task_panels(many))["Test items in the training rows"]
    assert len(panel.rows) == SHOWN_LEAKS
    assert panel.notes == ("20 of 57 are named here; all are in evaluation/results.json.",)
    none = named(task_panels({**results["tasks"][0], "leak": {**leak(0), "clean": None}}))
    assert none["Test items in the training rows"].rows == ()
    assert "The score without those items" not in none


def test_forgetting_has_margins_and_names_what_was_lost() -> None:
    (panel,) = run_panels({"tasks": [], "forgetting": forgetting(forgets=True)})
    assert panel.rows == (
        ("general texts, bits a byte (lower is better)", "", "40", "0.910", "0.930", "+0.020 [0.010, 0.030]", "0.05"),
        ("general questions, share right", "", "60", "0.50", "0.30", "-0.20 [-0.23, -0.17]", "0.1"),
    )
    assert panel.notes == (
        "Measured on 100 general items beside the task. On neutral prompts the KL divergence to the base is 0.0312 "
        "nats a token on average, 1.4 at most, over 512 positions. Questions that base had right and tuned has wrong: "
        "question-07.",
    )
    (other,) = run_panels({"tasks": [], "forgetting": {**forgetting(), "choices": None}})
    assert len(other.rows) == 1


# ------------------------------------------------------------------------------------------------ cost of serving


def test_the_cost_page_sets_scores_beside_latency_and_price(results: dict[str, Any]) -> None:
    panel = named(run_panels(results))["Cost of serving"]
    assert panel.head == ("what", "base", "tuned", "frontier")
    assert panel.rows == (
        ("json_fields on held-out", "0.06 [0.04, 0.09]", "0.85 [0.82, 0.88]", "not asked"),
        ("exact on capitals", "0.93 [0.84, 0.97]", "0.93 [0.84, 0.97]", "1.00 [0.94, 1.00]"),
        ("one request, median", "520 ms", "450 ms", "1.25 s"),
        ("one request, 95th percentile", "900 ms", "1.30 s", "3.50 s"),
        ("tokens a second", "61.2", "61.2", "80.0"),
        ("peak memory", "0.68 GiB", "0.68 GiB", "unknown"),
        ("file size", "91.7 MB", "91.7 MB", "unknown"),
        ("price of 1,000 requests", "none asked", "none asked", "1.20 USD"),
    )
    assert panel.notes == (
        "base, tuned: 24 requests one after another, after warm-up, on x86_64 (cpu), 2 cores.",
        "frontier: 24 requests one after another, after warm-up, on https://example.org (large), the way there "
        "included.",
    )


def test_an_endpoint_that_counts_no_tokens_has_no_speed() -> None:
    silent = {"frontier": {**cost()["frontier"], "tokens_per_second": None}}
    (panel,) = run_panels({"tasks": [], "cost": silent})
    assert ("tokens a second", "unknown") in panel.rows


def test_build_or_buy_is_the_price_of_a_machine_for_the_time_it_takes() -> None:
    assert build_or_buy(cost()) == [
        "1,000 requests to frontier cost 1.20 USD. tuned answers as many one after another in 7 min 30 s, so it is "
        "cheaper where its machine costs less than 9.60 USD an hour."
    ]
    assert pytest.approx(9.6) == 1.2 * 3600 / (1000 * 0.45)


def test_without_a_price_nothing_is_said_of_buying() -> None:
    own = {name: one for name, one in cost().items() if name != "frontier"}
    assert build_or_buy(own) == []
    base = {name: one for name, one in cost().items() if name != "tuned"}
    (said,) = build_or_buy(base)
    assert "base answers as many" in said


@pytest.mark.parametrize(
    ("amount", "text"), [(1234.5, "1,234.50 EUR"), (1.0, "1.00 EUR"), (0.0123, "0.0123 EUR"), (0, "0 EUR")]
)
def test_money(amount: float, text: str) -> None:
    assert money(amount, "EUR") == text
    assert money(amount, None) == text.removesuffix(" EUR")


def test_latency() -> None:
    assert [latency(seconds) for seconds in (0.0123, 0.45, 1.254)] == ["12 ms", "450 ms", "1.25 s"]


# ---------------------------------------------------------------------------------------------- proof of sameness


def test_what_is_the_same_is_said_once_and_what_differs_by_name() -> None:
    (panel,) = run_panels({"tasks": [], "sameness": sameness()})
    rows: dict[str, str] = {row[0]: row[1] for row in panel.rows}
    assert panel.sentences == ("Base and tuned got the same 180 prompts, token by token.",)
    assert rows["items"] == "SHA-256 abababababab"
    assert rows["prompts"] == "SHA-256 cdcdcdcdcdcd for base, tuned"
    assert rows["dtype"] == "base: float32, tuned: bfloat16"
    assert rows["versions"] == "torch: 2.13.0, transformers: 5.23.0"
    (bare,) = run_panels({"tasks": [], "sameness": {"sentence": "All equal.", "items": "", "batch": {}}})
    assert bare.rows == ()


def test_the_fixture_is_strict_json(results: dict[str, Any]) -> None:
    assert json.loads(json.dumps(results, allow_nan=False)) == results
