"""Planted leaks are found with the training row they stand in, clean items are not accused, and are scored alone."""

from __future__ import annotations

import csv
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.data import Example, Message, Origin, TestItem, read_corpus
from finetune.data.store import Store
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.leaks import Leaks, Overlap, find_leaks, judge_leaks
from finetune.evaluation.scoring.text_scorers import exact_scorer
from finetune.recipe import recipe_from_dict
from tests.check_rows import asked, numbered, prose, raw

SHARED = Path(os.environ.get("FINETUNE_SHARED", Path(__file__).parents[3] / "shared")) / "datasets"


def as_items(examples: Sequence[Example]) -> list[TestItem]:
    return [TestItem(example, (), ()) for example in examples]


def told(leaks: Leaks) -> dict[str, tuple[str, str]]:
    return {one.item_id: (one.kind, one.train_id) for one in leaks.overlaps}


def corpus(words: int, *, train: int = 300, test: int = 60) -> tuple[list[Example], list[Example]]:
    """Questions and answers drawn at random, that have nothing in common but words."""
    chance = random.Random(words)

    def rows(count: int, file: str) -> list[Example]:
        return numbered([(prose(chance, words), prose(chance, 2 * words)) for _ in range(count)], file)

    return rows(train, "train.jsonl"), rows(test, "test.jsonl")


def question(example: Example) -> str:
    return example.messages[0].content


def said(example: Example, prompt: str, answer: str | None = None) -> Example:
    """The same row with another question."""
    return replace(example, messages=(Message("user", prompt), Message("assistant", answer or example.reference)))


@pytest.mark.parametrize("words", [5, 9, 13, 40, 200])
def test_a_clean_split_is_not_accused(words: int) -> None:
    train, test = corpus(words)
    assert find_leaks(as_items(test), train) == Leaks((), 60)


def loud(text: str) -> str:
    return re.sub(r" ", " - ", text).upper() + " ?"


def framed(text: str) -> str:
    return f"Hello there, I have a question for you. {text} Thank you very much for looking into it."


def half(text: str) -> str:
    words = text.split()
    return " ".join([*words[: len(words) // 2], *(f"other{place}" for place in range(len(words) - len(words) // 2))])


@pytest.mark.parametrize(
    ("words", "change", "kind"),
    [
        (5, str, "exact"),
        (40, str, "exact"),
        (5, loud, "normalised"),
        (40, loud, "normalised"),
        (9, framed, "contained"),
        (40, framed, "contained"),
        (40, half, "13-gram"),
    ],
)
def test_planted_questions_are_found_with_the_row_they_stand_in(
    words: int, change: Callable[[str], str], kind: str
) -> None:
    train, test = corpus(words)
    for place in range(0, 60, 6):
        train[3 * place] = said(train[3 * place], change(question(test[place])))
    leaks = find_leaks(as_items(test), train)
    assert told(leaks) == {
        f"test.jsonl:{place + 1}": (kind, f"train.jsonl:{3 * place + 1}") for place in range(0, 60, 6)
    }
    assert leaks.n_clean == 50
    first = leaks.overlaps[0]
    assert first.train_where == "train.jsonl:1"
    assert first.share == (0.5 if kind == "13-gram" else 1.0)


def test_planted_answers_are_found_unless_they_are_short() -> None:
    train, test = corpus(30)
    train[7] = said(train[7], question(train[7]), f"It is known that {test[3].reference}")
    train[8] = said(train[8], question(train[8]), "yes")
    test[4] = said(test[4], question(test[4]), "yes")
    assert told(find_leaks(as_items(test), train)) == {"test.jsonl:4": ("contained", "train.jsonl:8")}


def test_the_instruction_of_a_task_does_not_hide_a_question_nor_accuse_one() -> None:
    train, test = corpus(6)
    instruction = "Read the message of the customer below with care and then name the queue that it belongs to:\n\n{}"
    train = [said(one, instruction.format(question(one))) for one in train]
    train[9] = said(train[9], instruction.format(question(test[2])))
    other = [said(one, f"Which queue is this for? {question(one)} Name it.") for one in test]
    assert told(find_leaks(as_items(other), train)) == {"test.jsonl:3": ("exact", "train.jsonl:10")}
    same = [said(one, instruction.format(question(one))) for one in test]
    assert told(find_leaks(as_items(same), train)) == {"test.jsonl:3": ("exact", "train.jsonl:10")}


def test_each_source_of_a_mixture_has_its_own_instruction() -> None:
    train, test = corpus(6)
    frames = {"one": "Which queue is this for? {}", "two": "Sort the following message into a queue: {} Be brief."}
    train[9], train[30] = said(train[9], question(test[2])), said(train[30], question(test[3]))
    mixed = [
        replace(said(one, frames[source].format(question(one))), source=source)
        for place, one in enumerate(train)
        for source in (("one", "two")[place % 2],)
    ]
    asked_anew = [said(one, f"Name the queue. {question(one)}") for one in test]
    assert told(find_leaks(as_items(asked_anew), mixed)) == {
        "test.jsonl:3": ("exact", "train.jsonl:10"),
        "test.jsonl:4": ("exact", "train.jsonl:31"),
    }


def test_what_many_rows_have_in_common_is_a_form() -> None:
    clause = prose(random.Random(1), 30)
    train, test = corpus(40)
    train = [said(one, f"{question(one)} {clause} {one.id}") if place % 20 else one for place, one in enumerate(train)]
    test = [said(one, f"{question(one)} {clause} {one.id}") if place % 5 else one for place, one in enumerate(test)]
    assert find_leaks(as_items(test), train).overlaps == ()
    few = train[:8] + [said(one, question(one).replace(clause, "")) for one in train[8:]]
    assert len(find_leaks(as_items(test[:3]), few).overlaps) == 2


def test_a_common_question_with_many_answers_is_a_form_too() -> None:
    train, test = corpus(12)
    train = [said(one, "Go on.") if place < 40 else one for place, one in enumerate(train)]
    test[0], test[1] = said(test[0], "Go on."), said(test[1], "Go on.", train[5].reference)
    assert told(find_leaks(as_items(test), train)) == {"test.jsonl:2": ("exact", "train.jsonl:6")}


def test_rows_that_are_taken_often_are_one_row() -> None:
    train, test = corpus(40)
    copy = said(train[0], framed(question(test[0])))
    assert told(find_leaks(as_items(test), [*train, *[copy] * 50])) == {"test.jsonl:1": ("contained", "train.jsonl:1")}


def test_classes_are_no_leak() -> None:
    chance = random.Random(2)
    label = " ".join(f"part{number}" for number in range(20))
    train = numbered([(prose(chance, 30), label) for _ in range(9)], "train.jsonl", labels=True)
    test = numbered([(prose(chance, 30), label) for _ in range(3)], "test.jsonl", labels=True)
    assert find_leaks(as_items(test), train).overlaps == ()


def test_digits_count() -> None:
    sums = ["If one shop sells {} apples a day and another one sells {}, how many do both sell in {} days?"] * 60
    train = numbered([text.format(n, n + 3, n + 40) for n, text in enumerate(sums)], "train.jsonl")
    test = numbered([text.format(n + 100, n + 303, n + 500) for n, text in enumerate(sums)], "test.jsonl")
    test[5] = said(test[5], question(train[7]))
    assert told(find_leaks(as_items(test), train)) == {"test.jsonl:6": ("exact", "train.jsonl:8")}


def test_raw_texts_and_conversations() -> None:
    chance = random.Random(3)
    train = [raw(prose(chance, 300), line=line, file="train.txt") for line in range(1, 30)]
    test = [raw(prose(chance, 300), line=line, file="test.txt") for line in range(1, 10)]
    train[4] = raw(f"{prose(chance, 50)} {test[2].text} {prose(chance, 50)}", line=5, file="train.txt")
    train[6] = raw(str(test[3].text), line=7, file="train.txt")
    assert told(find_leaks(as_items(test), train)) == {
        "test.txt:3": ("contained", "train.txt:5"),
        "test.txt:4": ("exact", "train.txt:7"),
    }
    turns = [Message("user", prose(chance, 20)), Message("assistant", prose(chance, 20)), Message("user", "Why?")]
    long = Example(id="a", origin=Origin("a", 1), messages=(*turns, Message("assistant", prose(chance, 20))))
    longer = replace(long, id="b", messages=(*long.messages, Message("user", "Really?"), Message("assistant", "Yes.")))
    assert told(find_leaks(as_items([long]), [*train, longer])) == {"a": ("contained", "b")}


def test_examples_before_a_question_are_no_part_of_it() -> None:
    train, test = corpus(40)
    item = TestItem(test[0], (), (), train[0].messages)
    assert find_leaks([item], train).overlaps == ()


def test_training_rows_on_disk_are_looked_at_like_others() -> None:
    train, test = corpus(40)
    train[11] = said(train[11], half(question(test[1])))
    # Longer than any window, with the leak in its midst
    book = " ".join(prose(random.Random(seed), 400) for seed in range(600))
    train.append(raw(f"{book} {question(test[4])} {book}", file="book.txt"))
    stored = Store(train, memory=0)
    assert stored.on_disk
    found = find_leaks(as_items(test), stored)
    assert found == find_leaks(as_items(test), train)
    assert told(found) == {"test.jsonl:2": ("13-gram", "train.jsonl:12"), "test.jsonl:5": ("contained", "book.txt:1")}


def test_nothing_to_look_at() -> None:
    train, test = corpus(20, train=3, test=2)
    assert find_leaks(as_items(test), []) == Leaks((), 2)
    assert find_leaks([], train) == Leaks((), 0)
    assert find_leaks(as_items([asked("", "")]), [asked("", ""), asked("!", "?")]) == Leaks((), 1)


@pytest.mark.skipif(not (SHARED / "banking77").is_dir(), reason="needs datasets/banking77 in FINETUNE_SHARED")
def test_banking77_repeats_itself_between_its_splits() -> None:
    """The official splits have messages in common; found here by comparing the files' own texts."""
    folder = SHARED / "banking77"
    data = {"train": str(folder), "split": {"validation": 0.0}}
    values = {"model": {"base": "none"}, "data": data, "run": {"name": "banking"}}
    made = read_corpus(recipe_from_dict(values, where="test"))
    leaks = find_leaks(as_items(made.division.test), made.train)
    texts = {name: _texts(folder / f"{name}.csv") for name in ("train", "test")}
    shared = set(map(_plain, texts["train"]))
    equal = [text for text in texts["test"] if _plain(text) in shared]
    kinds = Counter(one.kind for one in leaks.overlaps)
    assert kinds["exact"] + kinds["normalised"] == len(equal) > 0
    runs = {run for text in texts["train"] for run in _runs(_plain(text).split())}
    sharing = {_plain(text) for text in texts["test"] if not runs.isdisjoint(_runs(_plain(text).split()))}
    by_id = {example.id: question(example) for example in made.division.test}
    for one in leaks.overlaps:
        text = _plain(by_id[one.item_id].partition("\n\n")[2])
        if one.kind == "13-gram":
            assert text in sharing
        if one.kind == "contained":
            assert any(f" {text} " in f" {_plain(other)} " for other in texts["train"])
    assert len(leaks.overlaps) < 0.03 * leaks.n


def _texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + 13]) for start in range(len(words) - 12)}


# ---------------------------------------------------------------------------------------------------- what is judged


def result_of(base: Sequence[float], tuned: Sequence[float]) -> TaskResult:
    items = [Item(id=f"row-{place}", reference="yes", prompt_text="?") for place in range(len(base))]

    def answers(scores: Sequence[float]) -> list[Answer]:
        return [
            Answer(item_id=item.id, prompt_hash="same", text="yes", ended=True, tokens=1, score=score)
            for item, score in zip(items, scores, strict=True)
        ]

    given = {"base": answers(base), "tuned": answers(tuned)}
    return compare("held-out", exact_scorer(), items, given, baseline=None, confidence=0.95)


def leaked(*places: int, n: int) -> Leaks:
    return Leaks(
        tuple(
            Overlap(item_id=f"row-{place}", kind="exact", share=1.0, train_id=f"t-{place}", train_where=f"t:{place}")
            for place in places
        ),
        n,
    )


def test_a_verdict_that_rests_on_leaked_items_is_told() -> None:
    base, tuned = [0.0, 1.0] * 30, [0.0, 1.0] * 30
    tuned[:24:2] = [1.0] * 12
    result = result_of(base, tuned)
    assert result.comparison.verdict == "better"
    found = judge_leaks(result, leaked(*range(0, 24, 2), n=60), exact_scorer(), confidence=0.95, seed=0)
    assert found["n_clean"] == 48
    assert found["clean"]["n"] == 48
    assert found["clean"]["verdict"] == "no detectable difference"
    assert found["overlap"][1] == {
        "id": "row-2",
        "kind": "exact",
        "share": 1.0,
        "train_id": "t-2",
        "train_where": "t:2",
    }
    low, high = found["clean"]["interval"]
    assert found["sentence"] == (
        "12 of 60 items of held-out stand in the training rows (12 to the letter); on the 48 others the verdict is not "
        f"what it is on all of them (better) but no detectable difference, difference 0.00 [{low:.2f}, {high:.2f}]."
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_verdict_that_stands_without_leaked_items_is_told() -> None:
    result = result_of([0.0] * 60, [1.0, 0.0, 1.0] * 20)
    found = judge_leaks(result, leaked(0, n=60), exact_scorer(), confidence=0.95, seed=0)
    assert found["clean"]["verdict"] == "better"
    assert found["sentence"].startswith(
        "1 of 60 items of held-out stands in the training rows (1 to the letter); on the 59 others the verdict is the "
        "same: better, difference +0.66 ["
    )


def test_nothing_or_everything_leaked() -> None:
    result = result_of([0.0] * 3, [1.0] * 3)
    nothing = judge_leaks(result, leaked(n=3), exact_scorer(), confidence=0.95, seed=0)
    assert nothing == {
        "overlap": [],
        "n_clean": 3,
        "clean": None,
        "sentence": "None of the 3 items of held-out stands in the training rows.",
    }
    everything = judge_leaks(result, leaked(0, 1, 2, n=3), exact_scorer(), confidence=0.95, seed=0)
    assert (everything["n_clean"], everything["clean"]) == (0, None)
    assert everything["sentence"] == (
        "3 of 3 items of held-out stand in the training rows (3 to the letter): no item is left that could tell "
        "whether anything but them was learned."
    )
