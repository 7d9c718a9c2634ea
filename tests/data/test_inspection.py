"""Looking at a corpus: everything is counted, nothing from data becomes markup, and no base is needed to look."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetune as ft
from finetune import pipeline
from finetune.data.inspection import Inspection, histogram
from finetune.errors import FinetuneError
from tests.small_runs import questions, settings, small_recipe, texts, tickets, write_lines

HOSTILE = "</pre><script>alert('x')</script> & \" <b>bold</b> [red]x[/red] {{ 7 * 7 }}"
SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "datasets"


def of_recipe(base: Path, folder: Path, rows: list[Any], *, show: int = 3, **data: Any) -> Inspection:
    file = write_lines(folder / "rows.jsonl", rows)
    section = {"max_length": 256, **data}
    recipe = small_recipe(base, file, folder, data=section, train={"eval_every": None})
    return pipeline.inspect(recipe, rows=show)


def test_a_recipe_is_looked_at_with_its_bases_tokens(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*questions(40), {"id": "bad", "prompt": "p", "completion": ""}]
    seen = of_recipe(tiny_base, tmp_path, rows, on_bad_row="drop", show=2)
    value = json.loads(json.dumps(seen.as_dict()))
    assert value["format"]["name"] == "prompt_completion"
    assert value["rows"] == {"read": 41, "kept": 40, "dropped": {"empty answer": 1}, "left_out_by_sampling": 0}
    assert value["splits"] == {"train": 32, "validation": 4, "test": 4}
    assert sum(bar["rows"] for bar in value["histogram"]) == 32
    assert [example["id"] for example in value["examples"]] == [shown.id for shown in seen.examples]
    first = value["examples"][0]
    assert "".join(token["text"] for token in first["tokens"]) == "".join(piece["text"] for piece in first["pieces"])
    assert 0 < sum(token["trained"] for token in first["tokens"]) < len(first["tokens"])
    assert value["tokens"] == value["certificate"]["tokens"]
    assert [finding["kind"] for finding in value["findings"]] == [
        finding["kind"] for finding in value["certificate"]["findings"]
    ]
    assert seen.passed


def test_findings_stand_in_the_certificate_and_among_the_problems(tiny_base: Path, tmp_path: Path) -> None:
    rows = [*questions(40), {"id": "x", "prompt": "mail ann@a.org about it", "completion": "I cannot help with that."}]
    seen = of_recipe(tiny_base, tmp_path, rows, split={"validation": 0, "test": 0}, format="prompt_completion")
    kinds = {finding.kind: finding for finding in seen.findings}
    assert {"personal_data", "refusals"} <= set(kinds)
    told = [problem.what for problem in seen.problems]
    for finding in seen.findings:
        assert sum(what.startswith(finding.what) for what in told) == 1
    assert seen.certificate is not None
    assert "ann@a.org" not in json.dumps(seen.certificate)


def test_the_page_is_one_file_without_scripts_and_everything_is_escaped(tiny_base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": HOSTILE, "completion": HOSTILE}, *questions(20)]
    seen = of_recipe(tiny_base, tmp_path, rows, split={"validation": 0, "test": 0}, show=1)
    for page in (seen.page(), seen._repr_html_()):
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        assert "{{ 7 * 7 }}" in page
        assert not re.search(r"(src|href)=", page)
        assert set(re.findall(r"</?(\w+)", page)) <= {
            *("html", "head", "meta", "title", "style", "body", "h1", "h2", "table", "tr", "th", "td", "pre", "b", "p"),
            *("span", "div"),
        }
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in seen.page()
    assert seen.page().lstrip().startswith("<!DOCTYPE html>")
    assert seen.page().rstrip().endswith("</html>")
    assert "<html" not in seen._repr_html_()
    assert re.search(r">rows</th><td[^>]*>21 read, 21 kept, 0 dropped</td>", seen.page())


def test_data_without_a_recipe(tmp_path: Path) -> None:
    rows = [*tickets(30), {"text": "", "queue": "billing"}, {"text": "call +49 30 901820", "queue": "other"}]
    file = write_lines(tmp_path / "tickets.jsonl", rows)
    seen = pipeline.inspect_files(str(file), rows=2)
    assert (seen.title, seen.format) == (str(file), "classification")
    assert seen.rows == {"read": 32, "kept": 31, "dropped": {"empty prompt": 1}, "left_out_by_sampling": 0}
    assert (seen.tokens, seen.lengths, seen.histogram, seen.certificate) == (None, None, (), None)
    assert [finding.kind for finding in seen.findings] == ["personal_data"]
    assert [piece.trained for piece in seen.examples[0].pieces] == [False, False, False, True]
    assert seen.as_dict()["examples"][0]["tokens"] is None
    assert ("tokens", "not counted: no base model was given") in seen.facts()


def test_data_without_a_recipe_but_with_a_base(tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "tickets.jsonl", tickets(30))
    seen = pipeline.inspect_files(str(file), base=str(tiny_base))
    assert seen.tokens is not None
    assert 0 < seen.tokens["trained"] < seen.tokens["total"]
    assert sum(bar.rows for bar in seen.histogram) == 30
    assert seen.title == str(file)


def test_raw_text_is_looked_at_with_and_without_a_base(tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "texts.jsonl", texts(12))
    assert pipeline.inspect_files(str(file)).format == "text"
    seen = pipeline.inspect_files(str(file), base=str(tiny_base))
    assert seen.tokens is not None
    assert seen.tokens["trained"] > 0.9 * seen.tokens["total"]


def test_what_cannot_be_looked_at_says_where(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jsonl"
    with pytest.raises(FinetuneError) as caught:
        pipeline.inspect_files(str(missing))
    assert str(missing) in str(caught.value)


def test_a_notebook_looks_at_recipes_and_at_files(tiny_base: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", questions(20))
    assert "20 read, 20 kept" in ft.inspect(file)._repr_html_()
    recipe = small_recipe(tiny_base, file, tmp_path)
    assert "tokens are learned" in ft.inspect(recipe, rows=1)._repr_html_()
    with pytest.raises(FinetuneError, match=r"^`base` has no effect: the recipe names its base"):
        ft.inspect(recipe, base="x")


def test_sources_are_counted_one_by_one(tiny_base: Path, tmp_path: Path) -> None:
    one, two = (write_lines(tmp_path / name / "rows.jsonl", questions(12, seed)) for name, seed in (("a", 1), ("b", 2)))
    values = settings(tiny_base, one, tmp_path)
    values["data"]["train"] = [{"path": str(one)}, {"path": str(two), "weight": 2}]
    seen = pipeline.inspect(ft.Recipe.model_validate(values))
    assert [counts["read"] for counts in seen.sources.values()] == [12, 12]
    assert seen.page().count(">12</td>") >= 2


# ------------------------------------------------------------------------------------------------------ histogram


def test_ranges_of_lengths() -> None:
    assert [(bar.first, bar.last, bar.rows) for bar in histogram([1, 2, 3, 10, 11, 25])] == [
        (1, 5, 3),
        (6, 10, 1),
        (11, 15, 1),
        (16, 20, 0),
        (21, 25, 1),
    ]
    assert histogram([]) == ()


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50))
def test_every_row_is_in_one_range(lengths: list[int]) -> None:
    bars = histogram(lengths)
    assert len(bars) <= 12
    assert sum(bar.rows for bar in bars) == len(lengths)
    assert all(one.last + 1 == other.first for one, other in pairwise(bars))
    assert all(bar.rows == sum(bar.first <= length <= bar.last for length in lengths) for bar in bars)


# ------------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize("name", ["banking77", "pubmedqa", "gsm8k", "mts_dialog"])
def test_real_data_is_looked_at_and_every_row_accounted_for(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    seen = pipeline.inspect_files(str(SHARED / name), rows=1)
    assert seen.rows["read"] == seen.rows["kept"] + sum(seen.rows["dropped"].values()) > 500
    assert seen.format == name
