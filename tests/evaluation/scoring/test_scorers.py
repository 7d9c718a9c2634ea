"""The choice of a scorer, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.scorers import choose_scorer
from finetune.evaluation.scoring.text_scorers import number_scorer
from finetune.recipe.schema import EvaluateSection


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


@pytest.mark.parametrize(
    "name", ["exact", "number", "contains", "token_f1", "rouge_l", "chrf", "bits_per_byte", "perplexity"]
)
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
            {"scorer": "macro_f1"},
            ["yes"],
            False,
            "evaluate.scorer: macro_f1 cannot judge these rows: they are no classification data with known labels\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "choice"},
            ["A", "the knee"],
            False,
            "evaluate.scorer: choice cannot judge these rows: the reference 'the knee' names no letter\n"
            "    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "chrf"},
            [" "],
            False,
            "evaluate.scorer: chrf cannot judge these rows: the reference ' ' is empty and has no characters\n"
            "    -> remove the empty rows",
        ),
        (
            {"scorer": "likelihood"},
            ["yes"],
            False,
            "evaluate.scorer: likelihood cannot judge these rows: they have no choices whose likelihoods could be "
            "compared\n    -> set evaluate.scorer to auto",
        ),
        (
            {"scorer": "json_schema"},
            ["{}"],
            False,
            "evaluate.schema_file: json_schema checks answers against a JSON Schema, and none is given\n"
            "    -> give the schema's file",
        ),
        (
            {"schema_file": "/a.json"},
            ["Ada"],
            False,
            "evaluate.schema_file: the schema '/a.json' is only looked at by json_schema, but the scorer is 'exact' "
            "(the reference answers are short (longest in words: 1))\n"
            "    -> remove it, or set evaluate.scorer to json_schema",
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


def test_benchmarks_are_judged_by_their_own_metric() -> None:
    def chosen(benchmark: str, references: list[str], labels: list[str] | None = None) -> tuple[str, str]:
        scorer, why = choose_scorer(
            EvaluateSection(),
            references,
            labels=labels,
            raw_text=False,
            benchmark=benchmark,
            metadata=[{"task": "t"}] * len(references),
        )
        return scorer.name, why

    assert chosen("medmcqa", ["A"]) == ("choice", "the rows are those of the benchmark medmcqa")
    assert chosen("legalbench", ["Yes", "No"], ["Yes", "No"])[0] == "balanced"
    assert chosen("pubmedqa", ["yes"], ["yes", "no"])[0] == "label"
    assert chosen("tatqa", ["1 million"])[0] == "tatqa"
    assert chosen("gsm8k", ["It is 2.\n#### 2"])[0] == "number"
    assert chosen("medquad", ["An illness."])[0] == "rouge_l"
    assert chosen("of nobody's", ["Yes"])[0] == "exact"
    assert number_scorer().judge("So 1,000 it is.\n#### 1,002", "1000+2=<<1000+2=1002>>1002\n#### 1002").value == 1


def test_unfit_references_are_told_with_their_items() -> None:
    with pytest.raises(FinetuneError) as caught:
        choose_scorer(
            EvaluateSection(scorer="number"),
            ["12", "twelve", "none", "13"],
            labels=None,
            raw_text=False,
            ids=["row-1", "row-2", "row-3", "row-4"],
            alternatives=[(), (), (), ("thirteen",)],
        )
    assert str(caught.value) == (
        "evaluate.scorer: number cannot judge these rows: the reference 'twelve' of item 'row-2' has no number; "
        "2 more like it: 'row-3', 'row-4'\n    -> set evaluate.scorer to auto"
    )


def test_right_answers_have_to_be_valid_for_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"required": ["a"]}', encoding="utf-8")
    section = EvaluateSection(scorer="json_schema", schema_file=str(path))
    scorer, why = choose_scorer(section, ['{"a": 1}'], labels=None, raw_text=False)
    assert (scorer.name, why) == ("json_schema", "evaluate.scorer is json_schema")
    with pytest.raises(FinetuneError) as caught:
        choose_scorer(section, ['{"a": 1}', "{}", "-"], labels=None, raw_text=False, ids=["x", "y", "z"])
    assert str(caught.value) == (
        "evaluate.schema_file: json_schema cannot judge these rows: the reference '{}' of item 'y' is not valid: "
        "$: 'a' is a required property; 1 more like it: 'z'\n"
        "    -> mend the schema or the rows: a right answer has to be valid"
    )


def test_choices_are_judged_by_likelihood() -> None:
    items = [{"choices": ["a", "b"], "gold": 1}]
    for name in ("likelihood", "likelihood_norm"):
        section = EvaluateSection.model_validate({"scorer": name})
        scorer, _ = choose_scorer(section, ["b"], labels=None, raw_text=False, metadata=items)
        assert (scorer.name, scorer.binary, scorer.unit) == (name, True, "share right")
        assert (scorer.needs_likelihood, scorer.of_choices, scorer.bounds) == (True, True, (0.0, 1.0))
        with pytest.raises(ValueError, match=f"^{name} judges no answers"):
            scorer.judge("b", "b")


def test_macro_f1_is_chosen_by_name() -> None:
    section = EvaluateSection(scorer="macro_f1")
    scorer, _ = choose_scorer(section, ["a", "b"], labels=["a", "c"], raw_text=False)
    assert (scorer.name, scorer.description) == ("macro_f1", "mean F1 of 2 classes")
