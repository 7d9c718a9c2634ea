"""Names of data: what stands for the path, and what is said about it after."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.recipe import recipe_from_dict
from finetune.recipe.data_names import DataName, split_name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.json", DataName("a.json")),
        ("a.json#500", DataName("a.json", rows=500)),
        ("a.json::/data/rows", DataName("a.json", inside="/data/rows")),
        ("a.json::/data/rows#5", DataName("a.json", inside="/data/rows", rows=5)),
        ("a.json::/odd#key/x#5", DataName("a.json", inside="/odd#key/x", rows=5)),
        ("a.json::", DataName("a.json", inside="")),
        ("dir/*.jsonl#10", DataName("dir/*.jsonl", rows=10)),
        ("c#sharp.csv", DataName("c#sharp.csv")),
        ("hub:a/b@en:test#500", DataName("hub:a/b@en:test", rows=500)),
        ("a.zip!b/c.csv#3", DataName("a.zip", member="b/c.csv", rows=3)),
        ("a.ZIP!c.json::/rows", DataName("a.ZIP", member="c.json", inside="/rows")),
        ("what!.csv", DataName("what!.csv")),
        ("", DataName("")),
    ],
)
def test_names_are_taken_apart(value: str, expected: DataName) -> None:
    assert split_name(value) == expected
    assert str(expected) == value


def test_a_file_that_exists_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "c#500").write_text("x")
    (tmp_path / "x::y#3").write_text("x")
    for name in ("c#500", "x::y#3"):
        assert split_name(str(tmp_path / name)) == DataName(str(tmp_path / name))
        assert split_name(name, folder=str(tmp_path)) == DataName(name)
    assert split_name("c#500") == DataName("c", rows=500)


@given(st.text(max_size=30), st.integers(0, 10**6))
def test_a_name_is_the_sum_of_its_parts(text: str, rows: int) -> None:
    assert str(split_name(text)) == text
    assert str(split_name(f"{text}.csv#{rows:d}")) == f"{text}.csv#{rows:d}"


def test_a_recipe_counts_the_path_from_its_folder_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    recipe = recipe_from_dict(
        {"model": {"base": str(tmp_path)}, "data": {"train": f"{tmp_path}/x/../a.json::/a//b/../c#5"}}
    )
    assert recipe.data.train == f"{tmp_path / 'a.json'}::/a//b/../c#5"
