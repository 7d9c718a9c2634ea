"""Tokenising a corpus: the same rows by one process or several, from the rows or from the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.chat.encoder import ChatEncoder
from finetune.data.prepare import Prepared, prepare
from finetune.data.rows import Example, Message, Origin
from finetune.data.store import Store
from finetune.data.tokenising import tokenised
from finetune.data.tokenising.encoding import Encoding
from finetune.recipe import Recipe
from finetune.recipe.schema import DataSection
from tests.tiny import CHATML, tiny_tokenizer


def example(number: int) -> Example:
    said = "The customer asks where order is. " * (1 + number % 7)
    turns = (Message("user", f"{said} {number}"), Message("assistant", f"On its way: {number}"))
    return Example(id=f"r:{number}", origin=Origin("a.jsonl", number + 1), messages=turns, source="a" * (number % 2))


def facts(kept: Any) -> tuple[Any, ...]:
    encoded = kept.encoded
    return (
        *(kept.id, kept.source, kept.example, encoded.input_ids.tolist(), encoded.trained.tolist(), encoded.turns),
        *(encoded.proof, encoded.neutralised, encoded.piece),
    )


@pytest.mark.parametrize("overlong", ["drop", "truncate_prompt", "error"])
def test_processes_make_the_same_rows_in_the_same_order(overlong: Any) -> None:
    examples: Store[Example] = Store(map(example, range(700)), memory=0)
    section = DataSection(train="a", max_length=64, overlong=overlong)
    tokenizer = tiny_tokenizer()
    alone, divided = (Encoding(section, tokenizer, ChatEncoder(tokenizer), "here") for _ in range(2))
    wanted = [facts(kept) for kept in alone.stream(examples, whole=True, processes=1)]
    found = [facts(kept) for kept in divided.stream(examples, whole=True, processes=2)]
    assert found == wanted
    assert len(wanted) == {"drop": 500, "error": 500, "truncate_prompt": 700}[overlong]
    assert divided.account == alone.account
    assert (alone.account.overlong, len(alone.account.dropped)) == {
        "drop": (0, 200),
        "error": (200, 0),
        "truncate_prompt": (0, 0),
    }[overlong]


def test_raw_texts_are_cut_alike_by_processes() -> None:
    texts = [
        Example(id=f"d{n}", origin=Origin("t", n), text=f"Where is it? {n} " * (1 + 9 * (n % 3))) for n in range(600)
    ]
    section, tokenizer = DataSection(train="a", max_length=32), tiny_tokenizer()
    alone, divided = (Encoding(section, tokenizer, None, "here") for _ in range(2))
    wanted = [facts(kept) for kept in alone.stream(texts, processes=1)]
    assert [facts(kept) for kept in divided.stream(texts, processes=3)] == wanted
    assert len(wanted) > 600
    assert alone.account.truncated == divided.account.truncated == 400


def prepared(folder: Path, rows: list[dict[str, str]], template: str = CHATML, **data: Any) -> Prepared:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: Any = {"train": str(path), "max_length": 96, **data}
    recipe = Recipe(model={"base": "x"}, data=settings)  # type: ignore[arg-type]
    return prepare(recipe, tiny_tokenizer(template), context_length=None)


def told(found: Prepared) -> Any:
    def row(one: Any) -> Any:
        return one.id, one.input_ids.tolist(), one.trained.tolist(), one.piece

    tests = [(item.example, item.prompt, [row(one) for one in item.rows]) for item in found.test]
    return (
        [list(map(row, part)) for part in (found.train, found.validation)],
        tests,
        found.certificate.as_dict(),
        list(found.train_references),
        found.dropped,
    )


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep small corpora too, in a cache of the test's own."""
    monkeypatch.setattr(tokenised, "MEMORY", 0)
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path


ROWS = [{"prompt": f"Where is order {n * n}? " + "Please. " * (n % 9), "completion": f"Box {n}."} for n in range(60)]


def test_a_second_run_takes_the_same_rows_from_the_cache(every_size: Path) -> None:
    first = prepared(every_size, ROWS, overlong="drop", max_length=48)
    assert first.cached is None
    again = prepared(every_size, ROWS, overlong="drop", max_length=48)
    assert again.cached is not None
    assert again.cached.parent == every_size / "cache" / "tokens"
    assert told(again) == told(first)
    assert len(again.train) > 30
    assert again.certificate.dropped == first.certificate.dropped != {}
    assert isinstance(again.test[0].prompt, tuple)


def test_a_change_of_anything_that_matters_is_a_miss(every_size: Path) -> None:
    prepared(every_size, ROWS)
    assert prepared(every_size, ROWS).cached is not None
    assert prepared(every_size, ROWS, max_length=97).cached is None
    assert prepared(every_size, [*ROWS[:-1], {**ROWS[-1], "completion": "Box 58."}]).cached is None
    assert prepared(every_size, ROWS, CHATML.replace("assistant\n", "assistant \n")).cached is None
    assert prepared(every_size, ROWS).cached is not None


def test_a_damaged_entry_is_made_again(every_size: Path) -> None:
    first = prepared(every_size, ROWS)
    (entry,) = (every_size / "cache" / "tokens").iterdir()
    entry.write_bytes(entry.read_bytes()[:-200] + b"x" * 200)
    made = prepared(every_size, ROWS)
    assert made.cached is None
    assert told(made) == told(first)
    assert prepared(every_size, ROWS).cached == entry


def test_a_corpus_that_refuses_the_run_is_not_kept(every_size: Path) -> None:
    long = [*ROWS, {"prompt": "where " * 200, "completion": "here"}]
    for _ in range(2):
        with pytest.raises(Exception, match="1 rows are longer than max_length 96"):
            prepared(every_size, long)
    assert not (every_size / "cache").exists()


def test_prompts_of_test_items_are_what_the_encoder_asks(every_size: Path) -> None:
    found = prepared(every_size, ROWS)
    encoder = ChatEncoder(tiny_tokenizer())
    assert len(found.test) == 6
    for item in found.test:
        assert list(item.prompt) == encoder.prompt(item.example.context)
        assert np.array_equal(item.row.input_ids[: len(item.prompt)], item.prompt)
