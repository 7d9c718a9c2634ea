"""The medical recipes load under their own names, chain, and read the original files where these are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune.data import read_corpus
from finetune.recipe import PretrainObjective, load_recipe, problems

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes" / "medical").glob("*.yaml"))
SHARED = Path(os.environ.get("FINETUNE_SHARED", ROOT.parent / "shared")) / "datasets"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not on this machine")


def test_there_are_recipes() -> None:
    assert [path.stem for path in RECIPES] == ["1_pretrain_anatomy", "2_pubmedqa", "3_medmcqa", "4_mixture"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_under_its_own_name_and_lacks_only_files(path: Path) -> None:
    assert load_recipe(path).run.name == path.stem
    lacking = [problem.what for problem in problems(path)]
    assert lacking
    assert all("does not exist" in what for what in lacking)


def test_the_later_recipes_start_from_the_first_one_s_export() -> None:
    first, *later = (load_recipe(path) for path in RECIPES[:3])
    assert [export.kind for export in first.export] == ["merged"]
    for recipe in later:
        assert recipe.model.base == str(ROOT / "runs" / str(first.run.name) / "exports" / "merged")


@needs_data
def test_the_textbook_is_read_whole() -> None:
    recipe = load_recipe(RECIPES[0], [f"data.train={SHARED}/openstax_anatomy"])
    assert isinstance(recipe.objective, PretrainObjective)
    corpus = read_corpus(recipe)
    division = corpus.division
    assert corpus.raw_text
    assert len(division.train) + len(division.validation) + len(division.test) == 198
    assert (len(division.test), corpus.dropped) == (20, [])


@needs_data
def test_pubmedqa_is_recognised_with_its_official_test() -> None:
    corpus = read_corpus(load_recipe(RECIPES[1], [f"data.train={SHARED}/pubmedqa"]))
    assert corpus.recognition.format == "pubmedqa"
    division = corpus.division
    assert (len(division.train) + len(division.validation), len(division.test), corpus.dropped) == (500, 500, [])


@needs_data
def test_medmcqa_is_recognised() -> None:
    corpus = read_corpus(load_recipe(RECIPES[2], [f"data.train={SHARED}/medmcqa"]))
    assert corpus.recognition.format == "medmcqa"
    division = corpus.division
    assert (len(corpus.train), corpus.dropped) == (2000, [])
    assert len(division.train) + len(division.validation) + len(division.test) == 4183


@needs_data
def test_the_mixture_draws_from_its_three_sources() -> None:
    sources = (("openstax_anatomy", 0.25), ("pubmedqa", 1), ("self_instruct", 0.5))
    listed = ", ".join(f"{{path: {SHARED}/{name}, weight: {weight}}}" for name, weight in sources)
    corpus = read_corpus(load_recipe(RECIPES[3], [f"data.train=[{listed}]"]))
    assert [part.recognition.format for part in corpus.parts][:2] == ["text", "pubmedqa"]
    drawn = [example.source for example in corpus.train]
    assert all(drawn.count(part.name) > 0 for part in corpus.parts)
    assert {example.text is not None for example in corpus.division.test} == {False}
    assert len(corpus.division.test) >= 500
