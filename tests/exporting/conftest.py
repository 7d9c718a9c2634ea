"""What was trained, without a run: a small model with weights large enough that every part of them tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.data import Example, Message, Origin, TestItem
from finetune.data.chat.encoder import ChatEncoder
from finetune.exporting import ProofRow, Trained, conversations_of
from finetune.exporting.gguf import convert
from finetune.hardware import inspect_machine
from finetune.models import folder_base
from finetune.recipe import recipe_from_dict
from tests.small_runs import questions
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged model: random weights, large enough that every part of them tells."""
    folder = tmp_path_factory.mktemp("source") / "merged"
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, initializer_range=0.15)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(source: Path) -> Trained:
    """The same weights as a run that tuned all of them would leave them."""
    tokenizer = tiny_tokenizer()
    encoder, rows = ChatEncoder(tokenizer), []
    origin = Origin("rows.jsonl", 1)
    items = []
    for number, row in enumerate(questions(6)):
        messages = (Message("user", row["prompt"]), Message("assistant", row["completion"]))
        prompt, encoded = tuple(encoder.prompt(messages[:1])), encoder.encode(messages)
        rows.append(ProofRow(row["id"], prompt, tuple(encoded.input_ids.tolist())))
        items.append(TestItem(Example(id=f"q{number}", origin=origin, messages=messages), prompt, ()))
    return Trained(
        recipe_from_dict({"model": {"base": "a/b"}, "data": {"train": "x"}, "method": {"kind": "full"}}),
        base=folder_base(source),
        folder=source,
        tokenizer=tokenizer,
        rows=rows,
        conversations=conversations_of(items, tokenizer, 5),
        stop=encoder.stop_token_ids,
        machine=inspect_machine(),
    )


@pytest.fixture(scope="session")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged file."""
    return convert(source, tmp_path_factory.mktemp("files") / "whole.gguf", kind="f16").path
