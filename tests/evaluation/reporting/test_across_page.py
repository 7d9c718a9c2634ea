"""The page that compares runs: what it says, that it is one file without scripts, and that nothing becomes markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.evaluation.reporting.across import Across, compare_runs
from finetune.evaluation.reporting.across_page import across_fragment, across_html, run_panels
from finetune.rundir import write_json_lines
from tests.evaluation.reporting.test_report import HOSTILE, Page
from tests.run_records import add_evaluation, finished_run, new_run, ticket_result, whole_run


@pytest.fixture(scope="module")
def across(tmp_path_factory: pytest.TempPathFactory) -> Across:
    root = tmp_path_factory.mktemp("runs")
    first = whole_run(root / "rank8", tuned_right=0.3)
    first.update(identity={**first.manifest()["identity"], "method.rank": 8})
    whole_run(root / "s0", forgets=True)
    whole_run(root / "s1", seed=1, tuned_right=0.9)
    whole_run(root / "s2", seed=2, tuned_right=0.8)
    other = whole_run(root / "other", seed=3)
    for path in other.evaluation.glob("answers*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        write_json_lines(path, [{**line, "prompt": f"sys {line['prompt']}"} for line in lines])
    return compare_runs([root / name for name in ("rank8", "s0", "s1", "s2", "other")])


@pytest.fixture(scope="module")
def page(across: Across) -> str:
    return across_html(across)


def test_it_says_first_what_can_be_concluded(page: str) -> None:
    text = Page(page).text
    sentences = [
        "rank8, s0, s1, s2, other All runs are compared with the first one, item by item.",
        "Seeds of one recipe s0, s1, s2, other are 4 runs of one recipe with the seeds 0, 1, 2, 3.",
        "The recipe of s0, s1, s2 (3 seeds) is better than base on held-out",
        "The recipe of s0, s1, s2 (3 seeds) is better than rank8 on held-out",
        "s0 is better than rank8 on held-out",
        "s1 is better than rank8 on held-out",
        "No detectable difference between s0 and rank8 on capitals",
        "Not compared: other on held-out All 120 items that it shares with rank8 were asked with other prompts",
        "Not compared: other on capitals",
        "Scores on held-out json_fields (share of fields right, higher is better) on the 120 items that all these runs "
        "have in common, asked with the same prompt. Brackets hold 95 % intervals.",
        "Scores on capitals",
        "What the seed does",
        "What differs between the runs",
        "method.rank 8 16 16 16 16",
        "run.seed 0 0 1 2 3",
        "Forgetting",
        "Cost of serving",
        "s0 and rank8 on held-out Better:",
    ]
    places = [text.find(sentence) for sentence in sentences]
    assert -1 not in places, sentences[places.index(-1)]
    assert places == sorted(places)
    tones = [attrs["class"] for tag, attrs in Page(page).tags if (attrs.get("class") or "").startswith("banner")]
    assert tones == ["banner neutral", *["banner good"] * 5, *["banner neutral"] * 5, *["banner mixed"] * 2]


def test_it_is_one_file_without_scripts(page: str) -> None:
    found = Page(page)
    assert not found.names & {"script", "link", "iframe", "object", "embed", "a", "base", "form", "svg"}
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    pictures = [attrs.get("src") or attrs.get("srcset") or "" for tag, attrs in found.tags if tag in {"img", "source"}]
    assert len(pictures) == 2 * 2
    assert all(picture.startswith("data:image/svg+xml;base64,") for picture in pictures)


def test_scores_and_differences_stand_in_one_table(page: str) -> None:
    text = Page(page).text
    assert "run against rank8 its base score difference to rank8 rank8 0.06 [0.04, 0.09]" in text
    assert "s0 better 0.06 [0.04, 0.09] 0.85 [0.82, 0.88] +0." in text


def test_answers_stand_side_by_side(page: str) -> None:
    found = Page(page)
    assert "s0 and rank8 on held-out Better: 1" in found.text
    assert "Items on which s0 did better than rank8, largest gain first. 4 of 1" in found.text
    assert "rank8 · score 0" in found.text
    assert sum(tag == "article" for tag, _ in found.tags) > 8


def test_seeds_and_what_was_forgotten_are_tables(across: Across) -> None:
    panels = {panel.title: panel for panel in run_panels(across)}
    held_out, capitals = panels["What the seed does"].rows
    assert held_out[:2] == ("held-out", "s0, s1, s2")
    assert capitals == ("capitals", "s0, s1, s2", "0.933", "0.933", "0.933", "0.000")
    assert [row[:2] for row in panels["Forgetting"].rows] == [
        ("rank8", "keeps"),
        ("s0", "forgets"),
        ("s1", "keeps"),
        ("s2", "keeps"),
        ("other", "keeps"),
    ]
    assert panels["Cost of serving"].rows[1][1:4] == ("x86_64 (cpu), 2 cores", "450 ms", "1.30 s")


def test_older_runs_are_compared_too(tmp_path: Path) -> None:
    for name, right in (("a", 0.3), ("b", 0.9)):
        finished_run(tmp_path / name, result=ticket_result(n=30, tuned_right=right))
    found = compare_runs([tmp_path / "a", tmp_path / "b"])
    titles = [panel.title for panel in run_panels(found)]
    assert titles == ["What the seed does", "What differs between the runs"]
    assert "Nothing that decides the trained weights." in Page(across_html(found)).text


def test_nothing_from_data_becomes_markup(tmp_path: Path) -> None:
    folders = []
    for name, right in (("<b>a</b>", 1.0), ("b", 0.0)):
        folder = new_run(tmp_path / name.replace("/", "-"), **{"method.rank": f"<script>{right}</script>"})
        add_evaluation(folder, ticket_result(n=20, tuned_right=right, texts=HOSTILE if right else None))
        folders.append(folder.path)
    found = compare_runs(folders)
    raw = across_html(found)
    page = Page(raw)
    assert "<script" not in raw
    assert "<b>a" not in raw
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script>1.0</script>" in page.text
    assert "<script" not in across_fragment(found)


def test_a_notebook_shows_sentences_and_scores(across: Across) -> None:
    shown = across._repr_html_()
    assert shown == across_fragment(across)
    assert shown.count("<table>") == 2
    assert "<p><b>s0, s1, s2, other are 4 runs of one recipe with the seeds 0, 1, 2, 3.</b></p>" in shown
    assert "Scores on capitals" in shown
