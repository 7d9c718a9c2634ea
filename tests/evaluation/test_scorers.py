"""Every scorer on right, wrong and awkward answers; the choice of scorer; trivial baselines."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.evaluation.scorers import (
    Scorer,
    bits_per_byte,
    bits_per_byte_scorer,
    choose_scorer,
    contains_scorer,
    exact_scorer,
    json_fields_scorer,
    label_scorer,
    number_scorer,
    token_f1_scorer,
    trivial_baseline,
)
from finetune.recipe.schema import EvaluateSection

TEXT_SCORERS = [exact_scorer(), label_scorer(["yes", "no"]), number_scorer(), contains_scorer(), token_f1_scorer()]


def value(scorer: Scorer, answer: str, reference: str) -> float:
    return scorer.judge(answer, reference).value


@given(st.text(), st.text())
def test_every_judgement_is_a_share_and_strict_json(answer: str, reference: str) -> None:
    for scorer in [*TEXT_SCORERS, json_fields_scorer()]:
        score = scorer.judge(answer, json.dumps({"a": reference}) if scorer.name == "json_fields" else reference)
        assert 0 <= score.value <= 1
        assert not scorer.binary or score.value in (0, 1)
        json.dumps(score.detail, allow_nan=False)


@given(st.text(min_size=1))
def test_the_reference_itself_is_right(text: str) -> None:
    assert value(exact_scorer(), text, text) == 1
    assert value(token_f1_scorer(), text, text) == 1
    assert not text.strip() or value(contains_scorer(), text, text) == 1
    assert len(text.splitlines()) > 1 or not text.strip() or value(label_scorer([text, "other"]), text, text) == 1


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Paris", "Paris", 1),
        ("  Paris\n", "Paris", 1),
        ("New   York", "New York", 1),
        ("cafe\u0301", "caf\u00e9", 1),
        ("paris", "Paris", 0),
        ("Paris.", "Paris", 0),
        ("", "Paris", 0),
    ],
)
def test_exact(answer: str, reference: str, right: float) -> None:
    assert value(exact_scorer(), answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        ("card_arrival", "card_arrival", 1),
        ("\n\nCard_Arrival.\nBecause the card is late.", "card_arrival", 1),
        ('"refund"', "refund", 1),
        ("**Refund**", "refund", 1),
        ("refund", "card_arrival", 0),
        ("the label is refund", None, 0),
        ("refund card_arrival", None, 0),
        ("", None, 0),
    ],
)
def test_label(answer: str, label: str | None, right: float) -> None:
    score = label_scorer(["card_arrival", "refund"]).judge(answer, label or "refund")
    assert score.value == right
    assert score.detail == {"label": label if right else score.detail["label"]}
    if label is None:
        assert score.detail == {"label": None}


@pytest.mark.parametrize(
    ("labels", "answer", "given_label"),
    [
        (["C", "C++"], "c++", "C++"),
        (["C", "C++"], "c", "C"),
        (["yes", "Yes"], "Yes", "Yes"),
        (["+", "neutral"], "+", "+"),
        (["+", "neutral"], "...", None),
        (["+", "neutral"], "", None),
        (["A", "B"], "(a)", "A"),
    ],
)
def test_labels_that_differ_only_by_case_or_punctuation_stay_apart(
    labels: list[str], answer: str, given_label: str | None
) -> None:
    assert label_scorer(labels).judge(answer, labels[0]).detail == {"label": given_label}


def test_label_needs_labels() -> None:
    with pytest.raises(ValueError, match=r"^a label scorer needs labels$"):
        label_scorer([])


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("She pays 18 dollars.", "9 * 2 = 18\n#### 18", 1),
        ("#### 1,000", "1000", 1),
        ("$12.00", "12", 1),
        ("-3", "3", 0),
        ("0.3333333", "0.33333333", 1),
        ("0.333", "0.33333333", 0),
        ("none", "0", 0),
        ("0", "0.0", 1),
    ],
)
def test_number(answer: str, reference: str, right: float) -> None:
    assert value(number_scorer(), answer, reference) == right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("It is Paris, of course.", "paris", 1),
        ("The answer is 12.", "12", 1),
        ("The answer is 3128.", "12", 0),
        ("112 and 12", "12", 1),
        ("catalogue", "cat", 0),
        ("\u6771\u4eac\u90fd", "\u6771\u4eac", 1),
        ("C++ is it", "C++", 1),
        ("", "x", 0),
    ],
)
def test_contains(answer: str, reference: str, right: float) -> None:
    assert value(contains_scorer(), answer, reference) == right


def test_json_fields() -> None:
    reference = '{"name": "Ada", "age": 36, "tags": ["a", "b"], "home": {"city": "London"}, "alive": false}'
    answer = (
        '{"age": 36.0, "name": " Ada ", "tags": ["b", "a"], "home": {"city": "London"}, "alive": 0, "mood": "good"}'
    )
    score = json_fields_scorer().judge(answer, reference)
    assert score.value == pytest.approx(3 / 5)
    assert score.detail == {
        "valid_json": True,
        "fenced": False,
        "fields": {"name": True, "age": True, "tags": False, "home": True, "alive": False},
        "extra": ["mood"],
    }


@pytest.mark.parametrize(
    ("answer", "expected", "valid", "fenced"),
    [
        ('{"a": 1, "b": null}', 1.0, True, False),
        ('```json\n{"a": 1, "b": null}\n```', 1.0, True, True),
        ('{"a": 1}', 0.5, True, False),
        ('{"a": "1", "b": null}', 0.5, True, False),
        ('{"a": true, "b": null}', 0.5, True, False),
        ('{"a": 1, "b": null} That is all.', 0.0, False, False),
        ('Sure: {"a": 1, "b": null}', 0.0, False, False),
        ('[{"a": 1, "b": null}]', 0.0, False, False),
        ("", 0.0, False, False),
    ],
)
def test_json_answers(answer: str, expected: float, valid: bool, fenced: bool) -> None:
    score = json_fields_scorer().judge(answer, '{"a": 1, "b": null}')
    assert score.value == expected
    assert (score.detail["valid_json"], score.detail["fenced"]) == (valid, fenced)
    assert list(score.detail["fields"]) == ["a", "b"]


def test_json_fields_looks_at_the_chosen_fields_only() -> None:
    scorer = json_fields_scorer(("a", "c"))
    assert scorer.judge('{"a": 1, "b": 9}', '{"a": 1, "b": 2}').value == 1
    assert scorer.judge('{"a": 1, "c": 9}', '{"a": 1, "b": 2}').value == 0.5


def test_a_reference_that_is_no_json_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"^the reference is no JSON object: 'x'$"):
        json_fields_scorer().judge("{}", "x")


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the cat", "a cat", 1.0),
        ("The cat sat.", "cat", 2 / 3),
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("", "", 1.0),
        ("A", "A", 1.0),
        ("The", "A", 0.0),
        ("\u6771\u4eac", "\u6771\u4eac\u90fd", 0.8),
    ],
)
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert value(token_f1_scorer(), answer, reference) == pytest.approx(f1)


@given(st.text(), st.text())
def test_token_f1_is_symmetric(first: str, second: str) -> None:
    assert value(token_f1_scorer(), first, second) == value(token_f1_scorer(), second, first)


def test_bits_per_byte() -> None:
    assert bits_per_byte(-8 * math.log(2), "four") == pytest.approx(2)
    assert bits_per_byte(-8 * math.log(2), "\u00e9") == pytest.approx(4)
    with pytest.raises(ValueError, match=r"^an empty text has no bits per byte$"):
        bits_per_byte(-1.0, "")
    scorer = bits_per_byte_scorer()
    assert scorer.needs_likelihood
    assert not scorer.higher_is_better
    assert scorer.bounds is None
    with pytest.raises(ValueError, match=r"^bits_per_byte judges no answers: take the runtime's log-likelihood to "):
        scorer.judge("a", "a")


# ---------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("references", "labels", "raw_text", "name", "why"),
    [
        (["yes", "no"], ["yes", "no"], False, "label", "the rows are classification data with 2 labels"),
        (
            ["yes", "maybe"],
            ["yes", "no"],
            False,
            "label",
            "the rows are classification data with 3 labels; 1 of them only in the test rows",
        ),
        (["some text"], None, True, "bits_per_byte", "the rows are raw text"),
        (['{"a": 1}', '{"b": 2}'], None, False, "json_fields", "all 2 reference answers are JSON objects"),
        (["Paris", "New York City"], None, False, "exact", "the reference answers are short (longest in words: 3)"),
        (
            ["Paris", "It is the city on the Seine"],
            None,
            False,
            "token_f1",
            "the reference answers are texts (longest in words: 7)",
        ),
        (["one\ntwo"], None, False, "token_f1", "the reference answers are texts (longest in words: 2)"),
        (['{"a": 1}', "none"], None, False, "exact", "the reference answers are short (longest in words: 2)"),
    ],
)
def test_automatic_choice(references: list[str], labels: list[str] | None, raw_text: bool, name: str, why: str) -> None:
    scorer, reason = choose_scorer(EvaluateSection(), references, labels=labels, raw_text=raw_text)
    assert (scorer.name, reason) == (name, why)


@pytest.mark.parametrize("name", ["exact", "number", "contains", "token_f1", "bits_per_byte"])
def test_named_choice(name: str) -> None:
    section = EvaluateSection.model_validate({"scorer": name})
    scorer, why = choose_scorer(section, ["12 apples"], labels=None, raw_text=False)
    assert (scorer.name, why) == (name, f"evaluate.scorer is {name}")


@pytest.mark.parametrize(
    ("section", "references", "raw_text", "message"),
    [
        (
            {},
            [],
            False,
            "evaluate: there are no test rows to evaluate on\n    -> give data.test, or a data.split.test above 0",
        ),
        (
            {"scorer": "exact"},
            ["text"],
            True,
            "evaluate.scorer: exact cannot judge these rows: raw text has no answers\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "label"},
            ["yes"],
            False,
            "evaluate.scorer: label cannot judge these rows: they are no classification data with known labels\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "number"},
            ["12", "twelve"],
            False,
            "evaluate.scorer: number cannot judge these rows: the reference 'twelve' has no number\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "contains"},
            [" "],
            False,
            "evaluate.scorer: contains cannot judge these rows: the reference ' ' is empty and occurs in every answer\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "json_fields"},
            ['{"a": 1}', "{}"],
            False,
            "evaluate.scorer: json_fields cannot judge these rows: the reference '{}' is no JSON object with content\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "bits_per_byte"},
            [""],
            True,
            "evaluate.scorer: bits_per_byte cannot judge these rows: the reference '' is empty and has no bytes\n"
            "    -> remove the empty rows",
        ),
        (
            {"fields": ["name"]},
            ["Ada"],
            False,
            "evaluate.fields: the fields ['name'] are only compared by json_fields, but the scorer is 'exact' (the "
            "reference answers are short (longest in words: 1))\n"
            "    -> remove them, or set evaluate.scorer to json_fields",
        ),
        (
            {"fields": ["nmae"]},
            ['{"name": "Ada", "age": 1}'],
            False,
            "evaluate.fields: no reference has the field 'nmae'\n    -> did you mean 'name'?",
        ),
        (
            {"fields": ["x"]},
            ['{"name": "Ada", "age": 1}'],
            False,
            "evaluate.fields: no reference has the field 'x'\n    -> they have: age, name",
        ),
    ],
)
def test_refused_choice(section: dict[str, object], references: list[str], raw_text: bool, message: str) -> None:
    with pytest.raises(FinetuneError) as caught:
        choose_scorer(EvaluateSection.model_validate(section), references, labels=None, raw_text=raw_text)
    assert str(caught.value) == message


# --------------------------------------------------------------------------------------------- trivial baselines


def test_baseline_of_labels_is_the_majority() -> None:
    found = trivial_baseline(label_scorer(["a", "b"]), ["a", "b", "b"], ["b", "a", "a"])
    assert found.scores.tolist() == [1, 0, 0]
    assert (found.name, found.what) == ("commonest training answer", "always answers 'b'")


def test_baseline_of_json_takes_each_fields_commonest_value() -> None:
    train = ['{"a": 1, "b": "x"}', '{"a": 1, "b": "y"}', '{"a": 2, "b": "y"}']
    found = trivial_baseline(json_fields_scorer(), train, ['{"a": 1, "b": "y"}', '{"a": 1, "b": "z"}'])
    assert found.scores.tolist() == [1, 0.5]
    assert found.what == """always answers '{"a": 1, "b": "y"}'"""


def test_baseline_of_numbers_looks_at_the_number() -> None:
    train = ["first 1\n#### 7", "second 2\n#### 7.0", "third\n#### 3"]
    found = trivial_baseline(number_scorer(), train, ["#### 7", "#### 3"])
    assert found.scores.tolist() == [1, 0]


def test_baseline_of_raw_text_codes_bytes_by_frequency() -> None:
    found = trivial_baseline(bits_per_byte_scorer(), ["a" * 768], ["aa", "b"])
    assert found.scores == pytest.approx([-math.log2(769 / 1024), 10])
    assert found.what == "each byte coded by its frequency in the training text"


def test_baseline_scores_are_one_a_test_row() -> None:
    for scorer in TEXT_SCORERS:
        found = trivial_baseline(scorer, ["yes 1", "no 2"], ["yes 1"] * 5)
        assert found.scores.shape == (5,)
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(("train", "test"), [([], ["a"]), (["a"], [])])
def test_baseline_needs_references(train: list[str], test: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^a trivial baseline needs training and test references$"):
        trivial_baseline(exact_scorer(), train, test)
