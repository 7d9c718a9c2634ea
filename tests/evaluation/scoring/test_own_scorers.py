"""Scorers that the user wrote: what they are given, what they may return, and who allows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.own_scorers import own_scorer
from finetune.evaluation.scoring.scorers import choose_scorer, trivial_baseline
from finetune.recipe.schema import EvaluateSection

SOURCE = """
from dataclasses import dataclass


@dataclass
class Weight:
    value: float


def closeness(answer, reference, metadata):
    return Weight(1 - abs(int(answer) - int(reference)) / metadata["range"]).value


def right(answer, reference, metadata):
    return answer == reference


def word(answer, reference, metadata):
    return "good"


def much(answer, reference, metadata):
    return 1.5


def nothing(answer, reference, metadata):
    return float("nan")


def none(answer, reference, metadata):
    if answer == reference:
        return 1


def spoils(answer, reference, metadata):
    metadata.clear()
    return 1.0


def two(answer, reference):
    return 1.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "closeness.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_the_function_is_given_answer_reference_and_metadata(file: Path) -> None:
    scorer = own_scorer(f"{file}:closeness", allowed=True)
    assert scorer.score("7", "5", {"range": 10}, item="row-1").value == pytest.approx(0.8)
    assert (scorer.name, scorer.unit, scorer.binary) == ("closeness", "mean closeness", False)
    assert scorer.description.startswith("closeness() of closeness.py (SHA-256 ")
    assert own_scorer(f"{file}:right", allowed=True).score("a", "a", {}).value == 1


def test_what_it_does_to_metadata_stays_with_it(file: Path) -> None:
    metadata = {"a": 1}
    assert own_scorer(f"{file}:spoils", allowed=True).score("a", "a", metadata).value == 1
    assert metadata == {"a": 1}


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("word", "a", "word() returned 'good' (str), not a number from 0 to 1"),
        ("much", "a", "much() returned 1.5, not a number from 0 to 1"),
        ("nothing", "a", "nothing() returned nan, not a number from 0 to 1"),
        ("none", "b", "none() returned None (NoneType), not a number from 0 to 1"),
        (
            "closeness",
            "many",
            "closeness() raised ValueError at closeness.py:11: invalid literal for int() with base 10: 'many'",
        ),
        ("closeness", "2", "closeness() raised KeyError at closeness.py:11: 'range'"),
    ],
)
def test_a_wrong_return_value_is_an_error_with_the_item(file: Path, name: str, answer: str, message: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        own_scorer(f"{file}:{name}", allowed=True).score(answer, "1", {}, item="row-3")
    assert str(caught.value).startswith(f"evaluate.scorer: {name} cannot judge the answer to item 'row-3': {message}\n")


def test_nothing_is_imported_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(a, r, m): return 1\n", encoding="utf-8")
    section = EvaluateSection(scorer=f"{path}:f")
    with pytest.raises(FinetuneError) as caught:
        choose_scorer(section, ["a"], labels=None, raw_text=False)
    assert str(caught.value) == (
        f"evaluate.allow_code_execution: the scorer 'f' of {str(path)!r} is code, which would run with all your rights"
        "\n    -> read it, and where you want that, set evaluate.allow_code_execution: true"
    )
    assert not (tmp_path / "ran").exists()
    allowed = section.model_copy(update={"allow_code_execution": True})
    scorer, why = choose_scorer(allowed, ["a"], labels=None, raw_text=False)
    assert (scorer.name, why) == ("f", f"evaluate.scorer is {path}:f")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (SOURCE, "closenes", "has no function 'closenes'\n    -> did you mean 'closeness'?"),
        (SOURCE, "two", "does not take an answer, a reference and metadata: too many positional arguments"),
        ("import nowhere_at_all", "f", "cannot be imported: ModuleNotFoundError at own.py:1: No module named 'nowhere"),
        ("x = 1\ndef f(:", "f", "cannot be imported: SyntaxError at own.py:2: "),
        ("raise SystemExit(0)", "f", "cannot be imported: SystemExit at own.py:1: 0"),
    ],
)
def test_files_that_are_no_scorer(tmp_path: Path, source: str, name: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(FinetuneError) as caught:
        own_scorer(f"{path}:{name}", allowed=True)
    assert f"{str(path)!r} {message}" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="there is no file"):
        own_scorer(f"{tmp_path / 'gone.py'}:f", allowed=True)


def test_the_trivial_baseline_is_judged_by_it_too(file: Path) -> None:
    scorer = own_scorer(f"{file}:closeness", allowed=True)
    found = trivial_baseline(scorer, ["5", "5", "9"], ["5", "7"], [{"range": 10}] * 2, ids=["1", "2"])
    assert found is not None
    assert found.scores.tolist() == [1.0, 0.8]
