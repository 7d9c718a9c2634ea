"""Token labels: joined to entities, asked for as JSON; tags that do not fit their tokens are rejected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.formats.conversations import RowRefused
from finetune.data.formats.examples import known_labels, to_examples
from finetune.data.formats.tags import entities
from tests.data.small_rows import asked, convert, recognised, refused, rows, said, section

TAGGED = {"tokens": ["Ann", "Lee", "met", "Bo"], "ner_tags": ["B-PER", "I-PER", "O", "B-PER"]}


def test_tags_are_recognised_and_become_a_json_list() -> None:
    found = recognised(TAGGED, TAGGED)
    assert (found.format, found.columns) == ("tags", {"tokens": "tokens", "tags": "ner_tags"})
    assert found.why == "columns 'tokens' and 'ner_tags' over 2 rows"
    none = {"tokens": ["Rain", "."], "ner_tags": ["O", "O"]}
    examples, rejected = convert(TAGGED, none)
    assert rejected == []
    assert asked(examples[0]) == (
        'List the entities of the text as a JSON list of objects with "type" and "text", in their order; [] where '
        "there are none.\nTypes: PER\n\nText: Ann Lee met Bo"
    )
    assert json.loads(examples[0].reference) == [{"type": "PER", "text": "Ann Lee"}, {"type": "PER", "text": "Bo"}]
    assert examples[1].reference == "[]"
    (example,), _ = convert(TAGGED, instruction="Names?")
    assert asked(example) == "Names?\n\nText: Ann Lee met Bo"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            TAGGED | {"ner_tags": [1, 2, 0, 1]},
            "column 'ner_tags' holds numbers, and which tag each of them means is not said",
        ),
        (
            TAGGED | {"ner_tags": ["DT", "NN", "VB", "NN"]},
            "values of 'ner_tags' are no tags such as O, B-NAME and I-NAME",
        ),
        (TAGGED | {"tokens": "Ann Lee met Bo"}, "column 'tokens' does not hold lists of words"),
        ({"tokens": ["a"], "x": ["O"]}, "no column that is usually named as their tags"),
    ],
)
def test_what_are_no_tags(fields: dict[str, object], why: str) -> None:
    (problem,) = refused(fields, fields)
    assert f"tags: {why} (needs lists" in problem.what


def test_texts_are_divided_at_white_space_where_the_recipe_says_tags() -> None:
    (example,), _ = convert({"tokens": "Ann  met Bo", "tags": "S-PER O U-PER"}, format="tags")
    assert json.loads(example.reference) == [{"type": "PER", "text": "Ann"}, {"type": "PER", "text": "Bo"}]


def test_tags_that_do_not_fit_are_rejected() -> None:
    _, rejected = convert(
        TAGGED,
        TAGGED | {"ner_tags": ["B-PER", "O"]},
        TAGGED | {"ner_tags": ["O", "I-PER", "O", "O"]},
        TAGGED | {"ner_tags": ["B-PER", "I-LOC", "O", "O"]},
        TAGGED | {"ner_tags": ["S-PER", "I-PER", "O", "O"]},
        TAGGED | {"ner_tags": ["PER", "O", "O", "O"]},
        TAGGED | {"tokens": ["Ann", "", "met", "Bo"]},
        TAGGED | {"tokens": []},
        format="tags",
    )
    reason = "tags do not fit the tokens"
    assert said(rejected) == [
        (2, reason, "4 tokens and 2 tags"),
        (3, reason, "tag 2 is 'I-PER', but no entity 'PER' has begun"),
        (4, reason, "tag 2 is 'I-LOC', but no entity 'LOC' has begun"),
        (5, reason, "tag 2 is 'I-PER', but no entity 'PER' has begun"),
        (6, reason, "tag 1 is 'PER'"),
        (7, "empty prompt", "item 2 of column 'tokens' is ''"),
        (8, "empty prompt", "column 'tokens' is []"),
    ]
    assert rejected[1].fix == "write 'B-PER' where an entity begins"


def test_further_files_are_asked_with_the_types_of_the_training_rows() -> None:
    found, data = recognised(TAGGED), section()
    other = rows({"tokens": ["Rome"], "ner_tags": ["B-LOC"]})
    (example,), _ = to_examples(other, found, data, labels=known_labels(rows(TAGGED), found))
    assert "Types: PER\n" in asked(example)


ENTITY = st.tuples(st.sampled_from(["PER", "LOC", ""]), st.integers(1, 4))


@given(st.lists(ENTITY, max_size=8), st.booleans())
def test_entities_are_what_was_tagged(parts: list[tuple[str, int]], ends: bool) -> None:
    tokens, tags, expected = [], [], []
    for number, (kind, length) in enumerate(parts):
        words = [f"w{number}.{place}" for place in range(length)]
        tokens += words
        if not kind:
            tags += ["O"] * length
            continue
        expected.append({"type": kind, "text": " ".join(words)})
        last = [f"E-{kind}" if ends else f"I-{kind}"] if length > 1 else []
        first = f"S-{kind}" if ends and length == 1 else f"B-{kind}"
        tags += [first, *[f"I-{kind}"] * (length - 2), *last]
    assert entities(tokens, tags) == expected
    if tags:
        with pytest.raises(RowRefused):
            entities(tokens, tags[:-1])
