from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
FILES = ("train.jsonl", "test.jsonl")
QUEUES = {"billing", "access", "hardware", "network", "data", "bug", "how-to"}
PRIORITIES = {"low", "normal", "high", "urgent"}

Row = dict[str, Any]
Shingle = tuple[str, ...]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    return {
        Path(name).stem: [json.loads(line) for line in (DATA / "tickets" / name).read_text("utf-8").splitlines()]
        for name in FILES
    }


@pytest.fixture(scope="module")
def phrases() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / "tickets_phrases.json").read_text("utf-8"))
    return loaded


def shingles(text: str, size: int) -> set[Shingle]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def most_alike(left: list[Row], right: list[Row]) -> list[float]:
    """For each ticket of `left`, the highest 5-word-shingle Jaccard similarity with another ticket of `right`."""
    sets = [shingles(row["ticket"], 5) for row in right]
    holders: dict[Shingle, list[int]] = defaultdict(list)
    for i, found in enumerate(sets):
        for shingle in found:
            holders[shingle].append(i)
    best = []
    for row in left:
        mine = shingles(row["ticket"], 5)
        shared = Counter(i for shingle in mine for i in holders[shingle] if right[i]["id"] != row["id"])
        best.append(max((n / (len(mine) + len(sets[i]) - n) for i, n in shared.items()), default=0.0))
    return best


def largest_share(values: Iterable[str]) -> float:
    counted = Counter(values)
    return max(counted.values()) / counted.total()


def test_generator_rewrites_the_same_bytes(tmp_path: Path) -> None:
    for name in ("make_tickets.py", "tickets_phrases.json"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    subprocess.run([sys.executable, str(tmp_path / "make_tickets.py")], check=True, capture_output=True)
    for name in FILES:
        assert (tmp_path / "tickets" / name).read_bytes() == (DATA / "tickets" / name).read_bytes(), name


def test_counts_ids_and_size(splits: dict[str, list[Row]]) -> None:
    assert (len(splits["train"]), len(splits["test"])) == (1500, 300)
    ids = [row["id"] for rows in splits.values() for row in rows]
    assert ids == [f"T-{i:05d}" for i in range(1, 1801)]
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 2_000_000


def test_every_row_has_the_promised_shape(splits: dict[str, list[Row]]) -> None:
    for row in [*splits["train"], *splits["test"]]:
        assert list(row) == ["id", "customer", "ticket", "answer"]
        answer = row["answer"]
        assert list(answer) == ["queue", "priority", "product", "summary"]
        assert answer["queue"] in QUEUES
        assert answer["priority"] in PRIORITIES
        assert answer["product"] in row["ticket"], row["id"]
        assert answer["product"] in answer["summary"]
        assert len(answer["summary"]) <= 90
        assert 4 <= len(answer["summary"].split()) <= 14, answer["summary"]
        assert "\n" not in answer["summary"]
        assert not re.search(r"[{}\[\]]", row["ticket"]), row["ticket"]


def test_tickets_are_of_the_promised_length(splits: dict[str, list[Row]]) -> None:
    for rows in splits.values():
        lengths = [len(row["ticket"].split()) for row in rows]
        assert 35 <= sum(lengths) / len(lengths) <= 60
        assert max(lengths) <= 130
        assert min(lengths) >= 8


def test_all_labels_occur_and_none_dominates(splits: dict[str, list[Row]]) -> None:
    for rows in splits.values():
        assert {row["answer"]["queue"] for row in rows} == QUEUES
        assert {row["answer"]["priority"] for row in rows} == PRIORITIES
        assert largest_share(row["answer"]["queue"] for row in rows) <= 0.25
        assert largest_share(row["answer"]["priority"] for row in rows) <= 0.40


def test_priority_follows_from_the_effect_named_in_the_summary(
    splits: dict[str, list[Row]], phrases: dict[str, Any]
) -> None:
    priorities = {effect["summary"]: effect["priority"] for effect in phrases["effects"].values()}
    queues = {kind["summary"].split(" {product}")[0]: kind["queue"] for kind in phrases["kinds"]}
    assert (len(priorities), len(queues)) == (12, 44)
    for row in [*splits["train"], *splits["test"]]:
        problem, effect = row["answer"]["summary"].split("; ")
        assert priorities[effect] == row["answer"]["priority"]
        assert queues[problem.removesuffix(f" {row['answer']['product']}")] == row["answer"]["queue"]


def test_each_queue_has_enough_problem_kinds_and_phrasings(phrases: dict[str, Any]) -> None:
    kinds = Counter(kind["queue"] for kind in phrases["kinds"])
    assert set(kinds) == QUEUES
    assert min(kinds.values()) >= 5
    for kind in phrases["kinds"]:
        assert len(set(kind["train"])) >= 6, kind["kind"]
        assert len(set(kind["test"])) >= 3, kind["kind"]


def test_products_customers_and_people_are_on_one_side_only(
    splits: dict[str, list[Row]], phrases: dict[str, Any]
) -> None:
    train, test = ({row["answer"]["product"] for row in splits[name]} for name in ("train", "test"))
    assert len(train) > 60
    assert len(test) > 25
    assert not train & test
    train, test = ({row["customer"] for row in splits[name]} for name in ("train", "test"))
    assert len(train) > 150
    assert len(test) > 60
    assert not train & test
    sides = phrases["splits"]
    assert not set(sides["train"]["persons"]) & set(sides["test"]["persons"])
    for side, other in (("train", "test"), ("test", "train")):
        names = [name for group in sides[other]["products"].values() for name in group]
        assert len(names) > 25
        text = "\n".join(row["ticket"] for row in splits[side])
        assert [name for name in names if name in text] == []


def test_no_wording_is_shared_between_train_and_test(splits: dict[str, list[Row]]) -> None:
    train, test = (set().union(*(shingles(row["ticket"], 6) for row in splits[name])) for name in ("train", "test"))
    assert len(train) > 20_000
    assert len(test) > 5_000
    assert sorted(train & test) == []


def test_no_ticket_repeats_another(splits: dict[str, list[Row]]) -> None:
    everything = [row["ticket"] for rows in splits.values() for row in rows]
    assert len(everything) == len(set(everything)) == 1800
    within_train = most_alike(splits["train"], splits["train"])
    assert len(within_train) == 1500
    assert max(within_train) > 0.1, "the measure saw nothing"
    assert sum(value > 0.8 for value in within_train) < 15
    assert sum(value > 0.8 for value in most_alike(splits["test"], splits["test"])) < 3
    assert max(most_alike(splits["test"], splits["train"])) < 0.3
