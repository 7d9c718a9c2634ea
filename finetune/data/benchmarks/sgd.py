"""Schema-Guided Dialogue: a user and a service talk a task through (Rastogi et al. 2020, arXiv:1909.05855)."""

from __future__ import annotations

from finetune.data.benchmarks.benchmark import Benchmark, Fields, has
from finetune.data.formats.conversations import RowRefused, as_text, conversation, shortened
from finetune.data.rows import Content, Message, Role

_SPEAKERS: dict[object, Role] = {"USER": "user", "SYSTEM": "assistant", 0: "user", 1: "assistant"}


def _content(fields: Fields) -> Content:
    turns = fields["turns"]
    if isinstance(turns, dict):  # the hub's copy: lists side by side
        turns = [dict(zip(turns, values, strict=True)) for values in zip(*turns.values(), strict=True)]
    return Content(messages=conversation([_turn(turn, number) for number, turn in enumerate(turns, 1)], None))


def _turn(turn: Fields, number: int) -> Message:
    speaker = turn.get("speaker")
    if speaker not in _SPEAKERS:
        raise RowRefused("unknown role", f"turn {number} has speaker {shortened(speaker)}")
    return Message(_SPEAKERS[speaker], as_text(turn.get("utterance"), f"turn {number}", empty="empty prompt"))


SGD = Benchmark(
    name="sgd",
    what="conversations of users with services, turn by turn",
    files={
        "train": ("train/dialogues_*.json",),
        "validation": ("dev/dialogues_*.json",),
        "test": ("test/dialogues_*.json",),
    },
    fits=has("dialogue_id", "services", "turns"),
    content=_content,
    scorer="rouge_l",
    hub="google-research-datasets/schema_guided_dstc8",
)
