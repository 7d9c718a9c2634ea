"""Several labels of a text, in lists or divided by a sign; one label stays classification, what may be both is told."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.data.formats.examples import known_labels, to_examples
from tests.data.small_rows import asked, convert, recognised, refused, rows, said, section

LISTS = [{"text": f"t{n}", "labels": labels} for n, labels in enumerate([["a", "b"], ["b"], [], ["a"], ["a", "b"]])]


def divided(*labels: str, name: str = "labels") -> list[dict[str, Any]]:
    return [{"text": f"t{n}", name: each} for n, each in enumerate(labels)]


def test_lists_of_labels() -> None:
    found = recognised(*LISTS)
    assert (found.format, found.columns) == ("multi_label", {"text": "text", "labels": "labels"})
    assert found.why == "columns 'text' and 'labels'; 2 distinct labels in lists in 'labels' over 5 rows"
    examples, rejected = convert(*LISTS)
    assert rejected == []
    assert [example.reference for example in examples] == ["a, b", "b", "none", "a", "a, b"]
    assert asked(examples[0]) == (
        "Which of these labels does the text have?\nLabels: a, b\n"
        "Answer with the labels only, divided by ',', or with 'none'.\n\nText: t0"
    )
    assert asked(convert(*LISTS, instruction="Labels?")[0][0]) == "Labels?\n\nt0"
    numbers = [fields | {"labels": [len(fields["labels"])]} for fields in LISTS]
    assert [example.reference for example in convert(*numbers)[0]] == ["2", "1", "0", "1", "2"]


@pytest.mark.parametrize("sign", ["|", "; ", ","])
def test_divided_labels(sign: str) -> None:
    fields = divided(f"toys{sign}books", "toys", "books", f"books{sign}toys", "garden", f"garden{sign}toys")
    found = recognised(*fields)
    assert (found.format, found.decided) == ("multi_label", {"delimiter": sign.strip()})
    assert found.passed_over["classification"] == f"values of 'labels' are several labels, divided by {sign.strip()!r}"
    assert [example.reference for example in convert(*fields)[0]] == [
        *("toys, books", "toys", "books", "books, toys", "garden", "garden, toys"),
    ]


@pytest.mark.parametrize(
    "labels",
    [
        ["Refund, not received", "Lost card, or stolen", "Refund, not received", "Lost card, or stolen"],
        ["yes", "no", "yes", "no"],
    ],
)
def test_one_label_with_a_sign_in_it_stays_one(labels: list[str]) -> None:
    found = recognised(*divided(*labels))
    assert found.format == "classification"
    assert found.passed_over["multi_label"].startswith("no column holds lists of labels")


def test_labels_beside_a_class_are_refused_with_both_named() -> None:
    fields = [one | {"category": "xy"[number % 2]} for number, one in enumerate(LISTS)]
    (problem,) = refused(*fields)
    assert "as 'multi_label' (columns 'text' and 'labels'" in problem.what
    assert "as 'classification' (columns 'text' and 'category'" in problem.what
    assert problem.fix == "write `format: multi_label` or `format: classification` under data"


def test_labels_that_look_alike_and_rows_that_cannot_be_read() -> None:
    odd: tuple[Any, ...] = (["A"], None, [{}])
    bad: list[dict[str, Any]] = [{"text": f"odd {n}", "labels": labels} for n, labels in enumerate(odd)]
    fields = [*LISTS * 3, *bad]
    (note,) = recognised(*fields).notes
    assert note.what == "labels 'A' and 'a' differ only in case or white space"
    _, rejected = convert(*fields)
    assert said(rejected) == [
        (17, "empty answer", "column 'labels' is null"),
        (18, "not text", "a label of column 'labels' holds {}"),
    ]
    _, rejected = convert(*LISTS, {"text": "n", "labels": ["none"]})
    assert said(rejected) == [(3, "empty answer", "column 'labels' is [], and 'none' is a label")]


def test_further_files_have_the_labels_of_the_training_rows() -> None:
    found = recognised(*LISTS)
    known = known_labels(rows(*LISTS), found)
    assert known == ("a", "b")
    other = rows({"text": "x", "labels": ["b"]}, {"text": "y", "labels": ["c"]})
    examples, rejected = to_examples(other, found, section(), labels=known)
    assert "Labels: a, b\n" in asked(examples[0])
    assert said(rejected) == [(2, "label not in training data", "column 'labels' is 'c'")]


def test_labels_that_do_not_repeat_are_not_taken_for_raw_text() -> None:
    (problem,) = refused(*[{"text": f"t{n}", "labels": [f"a{n}", f"b{n}"]} for n in range(30)])
    assert "text: beside 'text', column 'labels' may be what is to be learned (needs" in problem.what


def test_labels_with_commas_are_joined_by_semicolons() -> None:
    examples, _ = convert(*[{"text": f"t{n}", "labels": ["x, y", "z"]} for n in range(4)])
    assert examples[0].reference == "x, y; z"
    assert "divided by ';'" in asked(examples[0])
