"""The error that a user sees: every problem with its place and its remedy, and the nearest name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError, Problem, missing_extra, nearest


def test_one_problem_reads_place_fault_remedy() -> None:
    error = FinetuneError("no such file 'a.csv'", where="recipe.yaml:3", fix="give a path that exists")
    assert str(error) == "recipe.yaml:3: no such file 'a.csv'\n    -> give a path that exists"
    assert error.problems == (Problem("recipe.yaml:3", "no such file 'a.csv'", "give a path that exists", "error"),)


def test_place_and_remedy_may_be_missing() -> None:
    assert str(FinetuneError("the disk is full")) == "the disk is full"
    assert str(Problem("", "the disk is full", "free some space")) == "the disk is full\n    -> free some space"


def test_several_problems_are_counted_and_numbered() -> None:
    problems = [Problem("a:1", "first", "mend it"), Problem("b:2", "second", severity="warning")]
    error = FinetuneError.of(problems)
    assert str(error) == "2 problems:\n  1. a:1: first\n    -> mend it\n  2. b:2: second"
    assert error.problems == tuple(problems)


def test_a_bundle_of_one_is_that_one() -> None:
    problem = Problem("a:1", "first", "mend it", "warning")
    error = FinetuneError.of([problem])
    assert str(error) == str(problem)
    assert error.problems == (problem,)


def test_a_bundle_of_none_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"^a FinetuneError needs at least one problem$"):
        FinetuneError.of([])


def test_a_problem_as_dict_is_what_the_command_line_prints() -> None:
    assert Problem("a:1", "first").as_dict() == {"where": "a:1", "what": "first", "fix": "", "severity": "error"}


def test_missing_extra_names_the_command() -> None:
    error = missing_extra("bitsandbytes", "quant", "method.kind: qlora")
    assert str(error) == (
        "method.kind: qlora needs the package 'bitsandbytes', which is not installed\n"
        "    -> pip install 'finetune[quant]'"
    )


@pytest.mark.parametrize(
    ("name", "valid", "expected"),
    [
        ("q_prj", ["k_proj", "q_proj"], "q_proj"),
        ("Q_PROJ", ["q_proj"], "q_proj"),
        ("wqkv", ["WQKV", "dense"], "WQKV"),
        ("smollm2-135m", ["SmolLM2-135M", "Qwen"], "SmolLM2-135M"),
        ("zebra", ["q_proj", "k_proj"], None),
        ("anything", [], None),
    ],
)
def test_nearest_looks_past_case(name: str, valid: list[str], expected: str | None) -> None:
    assert nearest(name, valid) == expected


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=8))
def test_a_valid_name_is_its_own_nearest_up_to_case(valid: list[str]) -> None:
    found = nearest(valid[0], valid)
    assert found in valid
    assert found.lower() == valid[0].lower()
