"""Forgetting: nothing where nothing was learned, named where it was planted, figures as by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.errors import FinetuneError
from finetune.evaluation.forgetting import Forgetting, measure_forgetting, text_rise
from finetune.evaluation.general_items import ANSWER_TOKENS, OWN, read_questions, read_texts
from finetune.models import attach
from finetune.recipe.forgetting import ForgettingSection
from finetune.recipe.schema import LoraMethod
from finetune.runtimes import Generation, TransformersRuntime
from tests.small_runs import lines, write_lines
from tests.tiny import tiny_model, tiny_tokenizer

OURS = ForgettingSection()
TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def known_texts(tmp_path_factory: pytest.TempPathFactory) -> ForgettingSection:
    """Twelve short texts, which the base of `learner` knows by heart."""
    first = [{"text": one["text"].partition(".")[0]} for one in lines(OWN / "texts.jsonl")[:12]]
    return ForgettingSection(texts=str(write_lines(tmp_path_factory.mktemp("texts") / "known.jsonl", first)))


@cache
def knowing(texts: str) -> dict[str, Any]:
    """Weights of a small model that has learned these texts."""
    model = tiny_model(TOKENIZER).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = TOKENIZER([one["text"] for one in lines(Path(texts))], padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(60):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.state_dict())


def learner(strength: float, texts: str | None = None) -> Any:
    """A model whose adapter does nothing at strength 0, and the more harm the larger it is."""
    plain = tiny_model(TOKENIZER)
    if texts is not None:
        plain.load_state_dict(knowing(texts))
    model = attach(plain, LoraMethod(rank=4)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(strength * torch.randn_like(value))
    return model


def measured(strength: float, section: ForgettingSection = OURS) -> Forgetting:
    model = learner(strength, section.texts)
    base, tuned = (TransformersRuntime(model, TOKENIZER, name=n, adapter=n == "tuned") for n in ("base", "tuned"))
    return measured_between(base, tuned, section)


def measured_between(base: Any, tuned: Any, section: ForgettingSection = OURS) -> Forgetting:
    return measure_forgetting(
        section,
        base,
        tuned,
        TOKENIZER,
        encode=lambda text: TOKENIZER(text)["input_ids"],
        stop=[TOKENIZER.eos_token_id],
        context_length=512,
        seed=0,
    )


class Known:
    """A contestant of known bits per byte on each text, that answers some questions right; token 1 is its next one."""

    def __init__(self, name: str, bits: Sequence[float], right: Sequence[bool], sureness: float = 0.5) -> None:
        self.name, self.bits, self.right, self.sureness = name, bits, right, sureness
        self.texts = read_texts(OURS, TOKENIZER, context_length=512).items
        self.questions = read_questions(OURS, TOKENIZER, context_length=512).items

    def log_likelihoods(self, rows: Sequence[Any]) -> list[float]:
        assert list(rows) == [row for text in self.texts for row in text.rows]
        sizes = [len(text.text.encode()) for text in self.texts]
        return [-bits * size * math.log(2) for bits, size in zip(self.bits, sizes, strict=True)]

    def choice_log_likelihoods(self, prompts: Sequence[Any], continuations: Sequence[Any]) -> list[list[float]]:
        assert list(prompts) == [one.prompt for one in self.questions]
        assert [len(one) for one in continuations] == [4] * 60
        chosen = [
            one.answer if right else (one.answer + 1) % 4 for one, right in zip(self.questions, self.right, strict=True)
        ]
        # By the byte the chosen one is likelier than the others, in all it may not be
        return [
            [-(1.0 if place == best else 1.1) * len(choice.encode()) for place, choice in enumerate(one.choices)]
            for one, best in zip(self.questions, chosen, strict=True)
        ]

    def generate(self, prompts: Sequence[Any], *, max_new_tokens: int, **_: Any) -> list[Generation]:
        assert max_new_tokens == ANSWER_TOKENS
        return [Generation((1,), "x", True) for _ in prompts]

    def log_probabilities(self, token_ids: Sequence[int]) -> np.ndarray:
        row = np.log([self.sureness, 1 - self.sureness])
        return np.tile(row, (len(token_ids), 1)).astype(np.float32)

    def size_bytes(self) -> int:
        return 0


def known(rise: Sequence[float], lost: int, sureness: float = 0.5) -> Forgetting:
    base = Known("base", [1.0] * 40, [True] * 50 + [False] * 10)
    tuned = Known("tuned", [1.0 + one for one in rise], [True] * (50 - lost) + [False] * (10 + lost), sureness)
    return measured_between(base, tuned)


def around(mean: float, spread: float = 0.02) -> list[float]:
    return [mean + spread * (1 if number % 2 else -1) for number in range(40)]


# --------------------------------------------------------------------------------------------------------- by hand


def test_figures_by_hand() -> None:
    found = known(around(0.2), lost=5, sureness=0.75).as_json()
    assert found["text_bits"]["base"] == pytest.approx(1.0)
    assert found["text_bits"]["tuned"] == pytest.approx(1.2)
    assert found["text_bits"]["difference"] == pytest.approx(0.2)
    low, high = found["text_bits"]["interval"]
    assert 0.19 < low < 0.2 < high < 0.21
    assert (found["text_bits"]["n"], found["choices"]["n"], found["items"]) == (40, 60, 100)
    assert (found["choices"]["base"], found["choices"]["tuned"]) == (pytest.approx(50 / 60), pytest.approx(45 / 60))
    # Two positions a prompt: the one that predicts the answer's token, and the one that predicts its end
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found["kl"] == {"mean": pytest.approx(divergence), "max": pytest.approx(divergence), "positions": 48}
    assert found["lost"] == [f"question-{number}" for number in range(46, 51)]
    assert found["texts"][0] == {"id": "text-01", "base": pytest.approx(1.0), "tuned": pytest.approx(1.18)}
    assert {name: one["n"] for name, one in found["sources"].items()} == {"texts": 40, "questions": 60, "prompts": 24}


@pytest.mark.parametrize(
    ("rise", "lost", "texts", "questions", "verdict"),
    [
        (around(0.0), 0, "keeps", "keeps", "keeps"),
        (around(-0.3), 0, "keeps", "keeps", "keeps"),
        (around(0.2), 0, "forgets", "keeps", "forgets"),
        (around(0.05, 0.1), 0, "cannot tell", "keeps", "cannot tell"),
        (around(0.0), 30, "keeps", "forgets", "forgets"),
        (around(0.0), 5, "keeps", "cannot tell", "cannot tell"),
        (around(0.2), 30, "forgets", "forgets", "forgets"),
    ],
)
def test_verdicts(rise: list[float], lost: int, texts: str, questions: str, verdict: str) -> None:
    found = known(rise, lost).as_json()
    assert (found["text_bits"]["verdict"], found["choices"]["verdict"]) == (texts, questions)
    assert (found["verdict"], found["forgets"]) == (verdict, verdict == "forgets")


def test_sentences() -> None:
    assert known(around(0.2), lost=0).sentence() == (
        "The tuned model forgets what its base knew of general matters: 40 general texts take 1.200 bits per byte "
        "against 1.000, difference +0.200 [0.194, 0.206], beyond the margin of 0.05, and 50 of 60 general questions "
        "are answered right against 50, difference 0.00 [-0.06, 0.06], within the margin of 0.1 (95 %)."
    )
    assert known(around(0.0), lost=0).sentence().startswith("The tuned model keeps what its base knew of general")
    unknown = known(around(0.0), lost=5).sentence()
    assert unknown.startswith("Whether the tuned model forgets what its base knew cannot be told: 40 general texts")
    assert "], which may or may not be within the margin of 0.1 (95 %)." in unknown


def test_margins_are_the_recipes() -> None:
    base = Known("base", [1.0] * 40, [True] * 60)
    tuned = Known("tuned", [1.0 + one for one in around(0.2)], [True] * 45 + [False] * 15)
    strict = measured_between(base, tuned)
    lenient = measured_between(base, tuned, ForgettingSection(margin=0.3, questions_margin=0.5))
    assert (strict.verdict, lenient.verdict) == ("forgets", "keeps")
    assert (lenient.as_json()["margin"], lenient.as_json()["questions_margin"]) == (0.3, 0.5)


def test_predictions_that_are_no_numbers_are_named() -> None:
    base = Known("base", [1.0] * 40, [True] * 60)
    tuned = Known("tuned", [1.0] * 39 + [math.nan], [True] * 60)
    with pytest.raises(FinetuneError, match=r"^evaluation: tuned predicts no numbers on the general text 'text-40'"):
        measured_between(base, tuned)


# ------------------------------------------------------------------------------------------------------- real models


def test_who_has_learned_nothing_forgets_nothing() -> None:
    found = measured(0.0)
    assert found.texts.difference == 0.0
    assert found.questions.difference == 0.0
    assert (found.kl.mean, found.kl.max) == (0.0, 0.0)
    assert found.kl.positions > 24
    assert found.verdict == "keeps"
    assert found.lost == ()


def test_a_planted_loss_is_found_and_grows(known_texts: ForgettingSection) -> None:
    little, much = measured(0.003, known_texts), measured(0.3, known_texts)
    assert little.texts.base == much.texts.base < 4
    assert 0 < little.kl.mean < much.kl.mean
    assert abs(little.texts.difference) < 0.05 < much.texts.difference
    assert little.texts_kept.verdict == "keeps"
    assert much.texts_kept.verdict == "forgets"
    assert much.verdict == "forgets"


def test_bits_are_those_of_the_likelihoods_added_up() -> None:
    model = learner(0.0)
    runtime = TransformersRuntime(model, TOKENIZER, name="base", adapter=False)
    found = measured(0.0)
    texts = read_texts(OURS, TOKENIZER, context_length=512).items
    for text, figures in list(zip(texts, found.per_text, strict=True))[:3]:
        ids = TOKENIZER(text.text)["input_ids"]
        scores = runtime.log_probabilities(ids)
        nats = -sum(float(scores[place - 1, ids[place]]) for place in range(1, len(ids)))
        assert figures["base"] == pytest.approx(nats / math.log(2) / len(text.text.encode()), rel=1e-4)


def test_pieces_of_the_context_add_up() -> None:
    model = learner(0.0)
    runtime = TransformersRuntime(model, TOKENIZER, name="tuned")
    assert text_rise(OURS, runtime, TOKENIZER, context_length=64)() == 0.0


def test_the_rise_is_what_the_evaluation_measures(known_texts: ForgettingSection) -> None:
    model = learner(0.0, known_texts.texts)
    rise = text_rise(known_texts, TransformersRuntime(model, TOKENIZER, name="tuned"), TOKENIZER, context_length=512)
    assert rise() == 0.0
    model.load_state_dict(learner(0.3, known_texts.texts).state_dict())
    assert rise() == pytest.approx(measured(0.3, known_texts).texts.difference, abs=1e-6)
    assert rise() > 0.05
