"""Every shipped recipe loads, names what exists, and reads its corpus; the reference of options is up to date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.data import read_corpus
from finetune.recipe import load_recipe, missing_files, reference_markdown

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SHARED = Path(os.environ.get("FINETUNE_SHARED", ROOT.parent / "shared")) / "datasets"


def test_there_are_recipes() -> None:
    assert [path.stem for path in RECIPES] == ["banking77", "pubmedqa", "quickstart", "verdict"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_under_its_own_name(path: Path) -> None:
    assert load_recipe(path).run.name == path.stem


def test_quickstart_has_all_its_files() -> None:
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    assert missing_files(recipe) == []
    corpus = read_corpus(recipe)
    assert len(corpus.division.test) == 300
    assert len(corpus.train) + len(corpus.division.validation) == 1500
    assert corpus.dropped == []


def test_reference_of_options_is_what_the_fields_say() -> None:
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8").strip() == reference_markdown().strip()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not on this machine")
def test_banking77_reads_its_original_files() -> None:
    folder = SHARED / "banking77"
    corpus = read_corpus(
        load_recipe(
            ROOT / "recipes" / "banking77.yaml", [f"data.train={folder}/train.csv", f"data.test={folder}/test.csv"]
        )
    )
    assert (corpus.recognition.format, len(corpus.labels or ())) == ("classification", 77)
    assert len(corpus.division.train) + len(corpus.division.validation) == 10_003
    assert (len(corpus.train), len(corpus.division.test), corpus.dropped) == (770, 3080, [])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not on this machine")
def test_pubmedqa_takes_its_official_test_ids() -> None:
    folder = SHARED / "pubmedqa"
    corpus = read_corpus(
        load_recipe(
            ROOT / "recipes" / "pubmedqa.yaml",
            [f"data.train={folder}/ori_pqal.json", f"data.split.test_ids={folder}/test_ground_truth.json"],
        )
    )
    assert corpus.labels == ("maybe", "no", "yes")
    answers = [example.reference for example in corpus.division.test]
    assert {answer: answers.count(answer) for answer in set(answers)} == {"yes": 276, "no": 169, "maybe": 55}
    prompt = corpus.train[0].messages[-2].content
    assert prompt.endswith("Answer yes, no or maybe.")
