"""Dividing: a partition, groups and near-identical texts on one side, the same result for any order of the rows."""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.formats.examples import to_examples
from finetune.data.formats.recognise import recognise
from finetune.data.near_duplicates import near_duplicates, normalise, without_common_ends
from finetune.data.reading.sources import read_rows
from finetune.data.rows import Example, Message, Origin
from finetune.data.splits import Division, divide, load_test_ids, sample
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection, SampleSection, SplitSection

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "datasets"
WORDS = [f"{first}{second}{third}" for first in "bdfklm" for second in "aeiou" for third in "nrst"]


def shared(name: str) -> str:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return str(path)


def example(text: str, number: int, label: str | None = None, group: str | None = None) -> Example:
    messages = (Message("user", text), Message("assistant", label or "ok"))
    return Example(id=f"r{number}", origin=Origin("a.jsonl", number), messages=messages, label=label, group=group)


def corpus(count: int, labels: str = "", groups: int = 0, seed: int = 0) -> list[Example]:
    """Texts of words drawn at random, so that no two are alike."""
    draw = random.Random(seed)
    return [
        example(
            " ".join(draw.choices(WORDS, k=12)),
            number,
            labels[number % len(labels)] if labels else None,
            f"g{draw.randrange(groups)}" if groups else None,
        )
        for number in range(1, count + 1)
    ]


def split(examples: list[Example], **settings: Any) -> Division:
    own = {name: settings.pop(name, False) for name in ("has_validation", "has_test")}
    ids = settings.pop("ids", None)
    return divide(examples, SplitSection(**settings), **own, test_ids=ids)


def refused(examples: list[Example], **settings: Any) -> Problem:
    with pytest.raises(FinetuneError) as caught:
        split(examples, **settings)
    (problem,) = caught.value.problems
    return problem


def sides(division: Division) -> dict[str, str]:
    parts = {"train": division.train, "validation": division.validation, "test": division.test}
    return {each.id: name for name, part in parts.items() for each in part}


# ---------------------------------------------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(4, 80),
    groups=st.integers(0, 30),
    labels=st.sampled_from(["", "ab", "aaabc"]),
    test=st.sampled_from([0.0, 0.1, 0.34]),
    validation=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 3),
    shuffled=st.randoms(use_true_random=False),
)
def test_any_division_is_a_repeatable_partition_that_keeps_groups_together(
    count: int, groups: int, labels: str, test: float, validation: float, seed: int, shuffled: random.Random
) -> None:
    examples = corpus(count, labels, groups, seed)
    chosen = {"test": test, "validation": validation, "seed": seed, "group_by": "g" if groups else None}
    try:
        division = split(examples, **chosen)
    except FinetuneError:
        assert groups or labels, "rows that are free of each other can always be divided"
        return
    where = sides(division)
    assert len(division.train) + len(division.validation) + len(division.test) == count == len(where)
    assert bool(division.test) == bool(test)
    assert bool(division.validation) == bool(validation)
    assert division.train
    by_group: dict[str, set[str]] = {}
    for each in examples:
        by_group.setdefault(each.group or each.id, set()).add(where[each.id])
    assert all(len(found) == 1 for found in by_group.values())
    again = list(examples)
    shuffled.shuffle(again)
    assert sides(split(again, **chosen)) == where
    if not labels:
        largest = max(Counter(each.group or each.id for each in examples).values())
        assert abs(len(division.test) - test * count) < largest + 0.5
        assert abs(len(division.validation) - validation * (count - len(division.test))) < largest + 0.5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("abcde 0.,", max_size=30), max_size=12), st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_order(texts: list[str], shuffled: random.Random) -> None:
    order = list(range(len(texts)))
    shuffled.shuffle(order)
    straight = near_duplicates(texts)
    mixed = near_duplicates([texts[index] for index in order])
    pairs = {(straight[index], number) for index, number in zip(order, mixed, strict=True)}
    assert len(pairs) == len(set(straight)) == len(set(mixed))
    assert list(dict.fromkeys(straight)) == list(range(len(set(straight))))


@given(st.lists(st.text("ab \n", max_size=12), min_size=2, max_size=6))
def test_cutting_common_ends_keeps_texts_apart(texts: list[str]) -> None:
    assert len(set(without_common_ends(texts))) == len(set(texts))


# ------------------------------------------------------------------------------------------------- near-identity


def test_nearly_identical_texts_share_a_cluster() -> None:
    long = " ".join(random.Random(1).choices(WORDS, k=60))
    texts = [
        "My top-up is still pending",
        "my top up   is still PENDING!",
        "Where is my card?",
        long,
        long + " added",
        long.replace(" ", ", ", 7),
        " ".join(random.Random(2).choices(WORDS, k=60)),
        "Order 1234 is late",
        "Order 9876 is late",
        "???",
        "...",
        "",
    ]
    assert near_duplicates(texts) == [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5]
    assert normalise("Größe: 12-a_b") == "grösse 00 a b"
    assert normalise("Größe: 12", fold_digits=False) == "grösse 12"


def test_similarity_is_that_of_what_differs() -> None:
    classes = ", ".join(WORDS)
    texts = [f"Which class of: {classes}\n\nText: {word} {word}\nAnswer." for word in ("lost card", "top up", "pin")]
    assert list(without_common_ends(texts)) == ["lost card lost card", "top up top up", "pin pin"]
    assert near_duplicates(without_common_ends(texts)) == [0, 1, 2]
    form = " ".join(random.Random(1).choices(WORDS, k=80))
    filled = [f"{number:b} {form} " + " ".join(random.Random(number).choices(WORDS, k=6)) for number in range(400)]
    assert len(set(near_duplicates(filled))) > 390


def test_near_duplicates_stay_together_unless_told_otherwise() -> None:
    examples = corpus(40)
    copies = [example(each.messages[0].content + "!", 100 + number) for number, each in enumerate(examples)]
    division = split(examples + copies, test=0.3)
    where = sides(division)
    assert division.clusters == 40
    assert all(where[each.id] == where[copy.id] for each, copy in zip(examples, copies, strict=True))
    (note,) = division.notes
    assert note.severity == "note"
    assert note.what == (
        "80 rows are nearly identical to others or in one group with them: 40 clusters, the largest of 2 rows; each "
        "stays on one side of the split"
    )
    loose = split(examples + copies, test=0.3, near_duplicates="ignore")
    assert (loose.clusters, loose.notes, len(loose.test)) == (80, (), 24)


def test_the_same_text_with_two_labels_stays_together() -> None:
    examples = corpus(20, "ab")
    twice = [example(each.messages[0].content, 100 + n, "a") for n, each in enumerate(examples)]
    assert split(examples + twice).clusters == 20


# --------------------------------------------------------------------------------------------------- the division


def test_labels_keep_their_shares() -> None:
    examples = corpus(1000, "aaaaaaabbc")
    division = split(examples, test=0.2, validation=0.1)
    assert Counter(each.label for each in division.test) == {"a": 140, "b": 40, "c": 20}
    assert Counter(each.label for each in division.validation) == {"a": 56, "b": 16, "c": 8}
    assert [each.origin.line for each in division.train] == sorted(each.origin.line for each in division.train)


def test_every_label_is_trained_on() -> None:
    examples = [*corpus(30, "a"), example("one of a kind", 99, "b"), example("nothing like it", 98, "c")]
    division = split(examples, test=0.5, validation=0.4)
    assert {each.label for each in division.train} == {"a", "b", "c"}


def test_the_seed_decides() -> None:
    examples = corpus(50)
    assert sides(split(examples, seed=1)) != sides(split(examples, seed=2))


def test_files_of_their_own_take_the_place_of_shares() -> None:
    division = split(corpus(20), has_validation=True, has_test=True)
    assert (len(division.train), division.validation, division.test) == (20, [], [])
    division = split(corpus(20), has_test=True)
    assert (len(division.train), len(division.validation), division.test) == (18, 2, [])


def test_impossible_splits_say_why() -> None:
    same = [example("the same words", number) for number in range(5)]
    problem = refused(same, validation=0)
    assert problem.where == "data.split"
    assert problem.what == (
        "impossible split: 1 of 5 rows are asked for test, but they form 1 cluster kept whole (the largest has 5 rows) "
        "and one is needed to train on"
    )
    assert problem.fix == (
        "give more rows, set `test: 0`, name a file as `data.test`, or set `near_duplicates: ignore` or another "
        "`group_by`"
    )
    assert "asked for validation" in refused(corpus(2)).what
    assert refused(corpus(3, "abc")).what.endswith("each label needs one to train on")
    assert refused([]).what == "there are no rows to divide"
    assert [len(part) for part in (split(corpus(3)).test, split(corpus(3)).validation)] == [1, 1]


# ------------------------------------------------------------------------------------------------- official tests


def test_official_test_rows() -> None:
    examples = corpus(20)
    examples.append(example(examples[3].messages[0].content.upper(), 77))
    division = split(examples, ids={"r4", "r5"}, validation=0.2)
    assert [each.id for each in division.test] == ["r4", "r5"]
    assert len(division.validation) == 4
    assert sides(division)["r77"] != "test"
    warning = division.notes[-1]
    assert warning.severity == "warning"
    assert warning.what == (
        "1 rows outside the official test are nearly identical to test rows, or in one group with them: "
        "r77 (a.jsonl:77)"
    )


def test_unknown_test_ids_are_refused() -> None:
    problem = refused(corpus(5), ids={"r1", "x1", "x2"})
    assert problem.what == "2 of 3 test ids are in no row: 'x1', 'x2'"
    assert problem.fix == "the rows have ids such as 'r1', 'r2', 'r3'; name their column as `columns: {id: ...}`"
    problem = refused(corpus(2), ids={"r1", "r2"}, validation=0)
    assert problem.what == "no row is left to train on"


@pytest.mark.parametrize(
    ("content", "ids"),
    [('["a", 2]', {"a", "2"}), ('{"a": "yes", "2": "no"}', {"a", "2"}), ("a\r\n\n 2 \n", {"a", "2"})],
)
def test_id_files(tmp_path: Path, content: str, ids: set[str]) -> None:
    (tmp_path / "ids").write_text(content)
    assert load_test_ids(str(tmp_path / "ids")) == ids


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('["a",\n', "broken JSON: Expecting value at column 1"),
        ('[{"id": 1}]', "not an id: \"{'id': 1}\""),
        ("[]", "no ids in the file"),
        (" \n", "the file is empty"),
    ],
)
def test_broken_id_files(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "ids.json").write_text(content)
    with pytest.raises(FinetuneError) as caught:
        load_test_ids(str(tmp_path / "ids.json"))
    assert caught.value.problems[0].what == what
    with pytest.raises(FinetuneError, match=r"did you mean '.*ids\.json'"):
        load_test_ids(str(tmp_path / "idz.json"))


# --------------------------------------------------------------------------------------------------------- sample


def test_samples_grow_and_do_not_depend_on_order() -> None:
    examples = corpus(60, "aab")
    ten = sample(examples, SampleSection(rows=10))
    twenty = sample(examples[::-1], SampleSection(rows=20))
    assert (len(ten), len(twenty)) == (10, 20)
    assert {each.id for each in ten} < {each.id for each in twenty}
    assert [each.origin.line for each in ten] == sorted(each.origin.line for each in ten)
    assert sample(examples, SampleSection(rows=10, seed=1)) != ten
    assert sample(examples, SampleSection()) == examples
    assert Counter(each.label for each in sample(examples, SampleSection(per_label=25))) == {"a": 25, "b": 20}
    assert len(sample(examples, SampleSection(per_label=5, rows=7))) == 7


def test_per_label_needs_labels() -> None:
    with pytest.raises(FinetuneError) as caught:
        sample(corpus(3), SampleSection(per_label=1), where="recipe.yaml:9")
    assert str(caught.value) == (
        "recipe.yaml:9: `per_label` needs rows with labels\n    -> use `sample: {rows: N}`, or `format: classification`"
    )


# ------------------------------------------------------------------------------------------------------ real data


def read(name: str, **settings: Any) -> list[Example]:
    data = DataSection.model_validate({"train": shared(name)} | settings)
    source = read_rows(data.train)
    examples, rejected = to_examples(source.rows, recognise(source.rows, data), data)
    assert rejected == []
    return examples


@pytest.mark.slow
def test_banking77() -> None:
    examples = read("banking77/train.csv")
    division = split(examples)
    assert 9_850 < division.clusters < 10_003
    shares = Counter(each.label for each in division.test)
    whole = Counter(each.label for each in examples)
    assert len(shares) == 77
    assert all(abs(shares[label] - whole[label] / 10) <= 3 for label in whole)
    assert abs(len(division.test) - 1000) <= 3


@pytest.mark.slow
def test_legal_texts_with_many_copies() -> None:
    examples = read("legalbench/overruling/test.tsv")
    division = split(examples, test=0.25)
    assert len(examples) == 2_394
    assert division.clusters < 1_600
    assert abs(len(division.test) - 598) <= 10
    said = {normalise(each.messages[0].content) for each in division.train}
    assert said.isdisjoint(normalise(each.messages[0].content) for each in division.test)


def test_pubmedqa_official_ids() -> None:
    template = {"prompt": "{{ QUESTION }}", "completion": "{{ final_decision }}"}
    examples = read("pubmedqa/ori_pqal.json", template=template)
    ids = load_test_ids(shared("pubmedqa/test_ground_truth.json"))
    division = split(examples, ids=ids)
    assert (len(division.test), len(division.validation), len(division.train)) == (500, 50, 450)
    truth = json.loads(Path(shared("pubmedqa/test_ground_truth.json")).read_text())
    assert {each.id: each.reference for each in division.test} == truth
