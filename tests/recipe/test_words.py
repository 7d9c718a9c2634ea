from __future__ import annotations

import pytest

from finetune.recipe.names import all_keys
from finetune.recipe.schema import EvaluateSection, Recipe
from finetune.recipe.words import accepts, kinds, or_list, sections, show


def test_every_field_can_be_said_in_words() -> None:
    said = 0
    todo = [Recipe]
    while todo:
        for field in todo.pop().model_fields.values():
            assert accepts(field.annotation, field)
            todo += sections(field.annotation)
            said += 1
    assert said >= len(all_keys())


def test_ranges() -> None:
    field = EvaluateSection.model_fields["confidence"]
    assert accepts(field.annotation, field) == "a number, greater than 0.5 and less than 1"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "empty"), (True, "true"), ({}, "an empty mapping"), ([1], "a list"), ("a", "'a'"), (1.5, "1.5")],
)
def test_values_are_shown_as_they_are_written(value: object, shown: str) -> None:
    assert show(value) == shown


def test_names_are_joined() -> None:
    assert (or_list(["a"]), or_list(["a", "b"]), or_list("abc")) == ("a", "a or b", "a, b or c")


def test_kinds_are_found() -> None:
    assert list(kinds(sections(Recipe.model_fields["method"].annotation))) == ["lora", "qlora", "full"]
