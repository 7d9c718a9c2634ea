"""Planted leaks are found with the places of both rows; splits without any are not accused."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.checks.containment import contained
from finetune.data.checks.leaks import reworded
from finetune.data.checks.material import prompt_of
from finetune.data.near_duplicates import normalise
from finetune.data.rows import Example
from tests.check_rows import asked, found, numbered, of_kind, prose, raw, word

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[4] / "shared")) / "datasets"


def shared(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no data set {name} under FINETUNE_SHARED")
    return SHARED / name


def corpus(words: int, *, train: int = 400, test: int = 100) -> tuple[list[Example], list[Example]]:
    chance = random.Random(words)
    return (
        numbered((prose(chance, words) for _ in range(train)), "train.jsonl"),
        numbered((prose(chance, words) for _ in range(test)), "test.jsonl"),
    )


def a_word_changed(text: str, chance: random.Random) -> str:
    words = text.split()
    words[chance.randrange(len(words))] = word(chance)
    return " ".join(words)


def other_punctuation(text: str, chance: random.Random) -> str:
    return ", ".join(part for part in text.capitalize().split(" ")) + "!"


def two_words_exchanged(text: str, chance: random.Random) -> str:
    words = text.split()
    long = [place for place, one in enumerate(words) if len(one) > 3]
    for place in chance.sample(long, 2):
        words[place] = word(chance)
    return " ".join(words)


def swapped(text: str, chance: random.Random) -> str:
    words = text.split()
    place = chance.randrange(1, len(words) - 1)
    return " ".join([*words[place:], *words[:place]])


CHANGES = (a_word_changed, other_punctuation, two_words_exchanged, swapped)


def planted(
    train: list[Example], test: list[Example], change: Callable[[str, random.Random], str], count: int = 10
) -> tuple[list[Example], dict[str, str]]:
    """Add `count` test rows in other words to the training rows; returns also where they stand, by test row."""
    chance = random.Random(7)
    places = {}
    copied = list(train)
    for example in chance.sample(test, count):
        line = len(copied) + 1
        text = change(example.messages[0].content, chance)
        copied.append(asked(text, f"another answer {line}", line=line, file="train.jsonl"))
        places[str(example.origin)] = f"train.jsonl:{line}"
    return copied, places


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("words", [18, 60, 250])
def test_rows_planted_in_other_words_are_found(words: int, change: Callable[[str, random.Random], str]) -> None:
    train, test = corpus(words)
    train, places = planted(train, test, change)
    alike = reworded(train, test)
    pairs = {str(test[one.test].origin): str(train[one.train].origin) for one in alike}
    assert pairs == places
    (leak,) = of_kind(found(train, test=test), "leaks")
    assert (leak.severity, leak.count, len(leak.examples)) == ("warning", 10, 5)
    assert leak.what == "10 of 100 test rows are training rows in slightly other words"
    assert {seen.where for seen in leak.examples} <= {f"{one} ~ {other}" for one, other in places.items()}


@pytest.mark.parametrize("words", [6, 18, 60, 250])
def test_a_clean_split_is_not_accused(words: int) -> None:
    train, test = corpus(words)
    assert [finding.kind for finding in found(train, test=test)] == []


def test_equal_rows_are_named_with_both_places() -> None:
    train = numbered(["What is a heron?", "Where do otters sleep at night?"], "train.jsonl")
    test = [asked("where do OTTERS sleep, at night", "answer number 2", line=9, file="test.jsonl")]
    (leak,) = of_kind(found(train, test=test), "leaks")
    assert str(leak.problem("recipe.yaml:4")) == (
        "recipe.yaml:4: 1 of 1 test rows are in the training rows too, case and punctuation aside: "
        "test.jsonl:9 = train.jsonl:2 (where do OTTERS sleep, at night)\n"
        "    -> the verdict counts them; remove them from one side for a clean comparison"
    )
    assert leak.severity == "warning"


def test_with_classes_the_text_alone_counts() -> None:
    train = numbered([("an odd ticket about a parcel", "shipping"), ("no money came", "billing")], labels=True)
    test = numbered([("An odd ticket about a parcel.", "billing")], "test.jsonl", labels=True)
    assert [finding.count for finding in of_kind(found(train, test=test), "leaks")] == [1]


def test_numbers_tell_rows_apart() -> None:
    train = numbered([("What is 3 + 4?", "7"), ("What is 5 + 6?", "11")], "train.jsonl")
    assert found(train, test=numbered([("What is 5 + 4?", "9")], "test.jsonl")) == []


def test_a_form_that_rows_fill_in_is_no_copy() -> None:
    chance = random.Random(0)
    form = "Is it safe to take {} together with {} before a long flight, and what should the patient look out for?"
    train = numbered(form.format(word(chance), word(chance)) for _ in range(200))
    test = numbered((form.format(word(chance), word(chance)) for _ in range(50)), "test.jsonl")
    assert of_kind(found(train, test=test), "leaks") == []


def test_what_is_usual_among_training_rows_is_only_noted() -> None:
    chance = random.Random(1)
    texts = [prose(chance, 20) for _ in range(100)]
    twice = [one for text in texts for one in (text, two_words_exchanged(text, chance))]
    train, test = (
        numbered(twice, "train.jsonl"),
        numbered(map(lambda text: a_word_changed(text, chance), texts[:30]), "t"),
    )
    (leak,) = of_kind(found(train, test=test), "leaks")
    assert (leak.severity, leak.count) == ("note", 30)
    assert leak.what.startswith("30 of 30 test rows are training rows in slightly other words, as ")


def test_an_answer_inside_a_training_text_is_found() -> None:
    chance = random.Random(2)
    answer = prose(chance, 40)
    train = [
        *numbered(prose(chance, 30) for _ in range(20)),
        raw(f"{prose(chance, 100)} {answer}. {prose(chance, 90)}", line=21),
    ]
    test = [asked(prose(chance, 12), answer, line=3, file="test.jsonl")]
    (held,) = of_kind(found(train, test=test), "contained_texts")
    assert (held.severity, held.count) == ("warning", 1)
    assert held.examples[0].where == "test.jsonl:3 in rows.jsonl:21"
    assert held.what == (
        "1 of 1 test rows have a question or an answer that stands word for word inside a training row"
    )


def test_short_answers_and_forms_are_not_contained() -> None:
    chance = random.Random(3)
    form = prose(chance, 20)
    train = numbered((prose(chance, 20), f"{form} {word(chance)}") for _ in range(20))
    test = numbered([(prose(chance, 20), f"{form} {word(chance)}"), (prose(chance, 20), "yes")], "test.jsonl")
    assert contained(train, test) == {}


def test_time_grows_with_the_rows_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    train, test = corpus(20, train=2_000, test=500)
    from finetune.data.checks import leaks

    like = leaks._Searched.like

    def counted(self: leaks._Searched, block: object, texts: object) -> object:
        pairs = (self._probes @ block.T).tocoo()  # type: ignore[attr-defined]
        compared.append(int((pairs.data >= 2).sum()))
        return like(self, block, texts)  # type: ignore[arg-type]

    monkeypatch.setattr(leaks._Searched, "like", counted)
    leaks.reworded(train, test)
    assert len(compared) > 0
    assert sum(compared) < 2_000 * 500 / 50


@given(st.text(st.characters(max_codepoint=127)), st.booleans())
def test_plain_letters_are_normalised_as_all_others_are(text: str, fold_digits: bool) -> None:
    # The sign that is no ASCII sends the text the other way
    other = normalise(f"{text} \u00e9", fold_digits=fold_digits)
    assert f"{normalise(text, fold_digits=fold_digits)} \u00e9".strip() == other


# ----------------------------------------------------------------------------------------------------- real data


def test_banking77_has_texts_in_both_splits() -> None:
    folder = shared("banking77")

    def read(name: str) -> list[Example]:
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
            return numbered(
                [(row["text"], row["category"]) for row in csv.DictReader(handle)], f"{name}.csv", labels=True
            )

    train, test = read("train"), read("test")
    leaks = of_kind(found(train, test=test), "leaks")
    assert (leaks[0].count, leaks[0].severity) == (25, "warning")
    in_both = {prompt_of(one).strip() for one in train} & {prompt_of(one).strip() for one in test}
    assert len(in_both) == 6
    # Customers ask alike: that is how this corpus is, and no accusation
    assert leaks[1].severity == "note"


def test_the_official_split_of_pubmedqa_is_clean() -> None:
    folder = shared("pubmedqa")
    rows = json.loads((folder / "ori_pqal.json").read_text(encoding="utf-8"))
    official = json.loads((folder / "test_ground_truth.json").read_text(encoding="utf-8"))

    def side(*, test: bool, contexts: bool) -> list[Example]:
        own = [row for key, row in rows.items() if (key in official) is test]
        texts = (" ".join([row["QUESTION"], *row["CONTEXTS"] * contexts]) for row in own)
        return numbered(zip(texts, (row["final_decision"] for row in own), strict=True), f"{test}")

    for contexts in (True, False):
        train, test = side(test=False, contexts=contexts), side(test=True, contexts=contexts)
        assert (len(train), len(test)) == (500, 500)
        assert of_kind(found(train, test=test), "leaks") == []
        assert of_kind(found(train, test=test), "contained_texts") == []
        copied, places = planted(train, test, two_words_exchanged)
        alike = reworded(copied, test)
        pairs = {str(test[one.test].origin): str(copied[one.train].origin) for one in alike}
        assert len(pairs.items() & places.items()) >= 8
        assert pairs.items() <= places.items()


def test_training_rows_of_legalbench_inside_its_test_are_found() -> None:
    folder = shared("legalbench") / "cuad_governing_law"

    def read(name: str) -> list[Example]:
        with (folder / f"{name}.tsv").open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, delimiter="\t")
            return numbered([(row["text"], row["label"]) for row in reader], f"{name}.tsv", labels=True)

    train, test = read("train"), read("test")
    equal = {example.messages[0].content for example in train} & {example.messages[0].content for example in test}
    leak = of_kind(found(train, test=test), "leaks")[0]
    assert leak.count >= len([example for example in test if example.messages[0].content in equal]) > 0
    assert all(" = train.tsv:" in seen.where for seen in leak.examples)
