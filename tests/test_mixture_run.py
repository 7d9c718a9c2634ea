"""A whole run on a mixture of documents, questions and chats: everything learned once or as often as it weighs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from finetune import pipeline
from tests.small_runs import lines, questions, sentence, small_recipe, texts, tickets, write_lines


def test_documents_questions_and_chats_are_learned_in_one_run(tiny_base: Path, tmp_path: Path) -> None:
    import random

    chance = random.Random(4)
    chats = [
        {"conversations": [{"from": "human", "value": sentence(chance)}, {"from": "gpt", "value": "Thank you."}]}
        for _ in range(16)
    ]
    train = [
        {"path": str(write_lines(tmp_path / "book.jsonl", texts(12, 150))), "weight": 0.5},
        {"path": str(write_lines(tmp_path / "faq.jsonl", questions(24))), "weight": 2.0},
        {"path": str(write_lines(tmp_path / "chats.jsonl", chats))},
        {"path": str(write_lines(tmp_path / "queues.jsonl", tickets(16))), "instruction": "Which queue?"},
    ]
    recipe = small_recipe(tiny_base, tmp_path / "none", tmp_path / "runs", data={"train": train, "max_length": 128})
    result = pipeline.run(recipe)
    folder = tmp_path / "runs" / "run"

    certificate = json.loads((folder / "data" / "certificate.json").read_text(encoding="utf-8"))
    sources = certificate["sources"]
    assert {name: source["format"] for name, source in sources.items()} == {
        "book": "text",
        "faq": "prompt_completion",
        "chats": "sharegpt",
        "queues": "classification",
    }
    assert certificate["format"] == "mixture"
    assert certificate["rows_read"] == 68 == sum(source["read"] for source in sources.values())
    kept = sum(source["kept"] for source in sources.values())
    assert certificate["rows_kept"] == kept == sum(certificate["splits"].values())
    assert kept + certificate["left_out_by_sampling"] + sum(certificate["dropped"].values()) == 68
    assert all(source["tokens"] > 0 for source in sources.values())
    assert sum(source["tokens"] for source in sources.values()) == certificate["tokens"]["total"]

    splits = json.loads((folder / "data" / "splits.json").read_text(encoding="utf-8"))
    assert not any(identity.startswith("book:") for identity in splits["test"])
    books = Counter(identity.split(":")[0] for identity in splits["train"])["book"]
    assert books == sources["book"]["drawn"] == round((books + sources["book"]["left_out"]) / 2) > 0
    pieces = lines(folder / "data" / "pieces.jsonl")
    assert {piece["document"] for piece in pieces if piece["split"] == "train"} <= set(splits["train"])
    assert len(pieces) > books

    (task,) = result.evaluation.tasks
    assert task["n"] == certificate["splits"]["test"] > 0
