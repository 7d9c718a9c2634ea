"""What a tuned model has lost of what its base could do: `measure_forgetting` on general items, in every evaluation.

`text_rise` measures the part of it that is cheap enough to choose checkpoints by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError
from finetune.evaluation.general_items import (
    ANSWER_TOKENS,
    GeneralQuestion,
    GeneralText,
    Items,
    NeutralPrompt,
    read_prompts,
    read_questions,
    read_texts,
)
from finetune.evaluation.scoring.likelihood import judge_choices
from finetune.evaluation.scoring.text_measures import bits_per_byte
from finetune.evaluation.statistics.multiple import Keeping, NonInferiority, non_inferiority
from finetune.evaluation.statistics.paired import Comparison, paired_comparison
from finetune.evaluation.wording import decimals, percent, with_interval
from finetune.recipe.forgetting import ForgettingSection
from finetune.runtimes import Runtime
from finetune.runtimes.divergence import kl_divergence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(base || tuned) in nats at each token of the base's own greedy answers to neutral prompts."""

    mean: float
    max: float
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What general items say of a tuned model, each paired with its base.

    Attributes:
        texts: bits per byte of the general texts; lower is better.
        questions: share of the general questions answered right.
        kl: divergence on neutral prompts; told, not judged.
        texts_kept: whether the rise of `texts` stays within its margin.
        questions_kept: whether the loss of `questions` stays within its own.
        per_text: for each text its id and both figures.
        lost: ids of the questions that base answers right and tuned wrong.
        sources: for each kind of items their number, their file (empty for finetune's own) and its hash.
    """

    texts: Comparison
    questions: Comparison
    kl: Divergence
    texts_kept: NonInferiority
    questions_kept: NonInferiority
    per_text: tuple[dict[str, Any], ...]
    lost: tuple[str, ...]
    sources: dict[str, dict[str, Any]]

    @property
    def verdict(self) -> Keeping:
        """`forgets` where texts or questions show it, `keeps` where both exclude it, else `cannot tell`."""
        found = {self.texts_kept.verdict, self.questions_kept.verdict}
        return "forgets" if "forgets" in found else "keeps" if found == {"keeps"} else "cannot tell"

    def sentence(self) -> str:
        """Say the verdict with both differences and their margins."""
        lead = {
            "keeps": "The tuned model keeps what its base knew of general matters",
            "forgets": "The tuned model forgets what its base knew of general matters",
            "cannot tell": "Whether the tuned model forgets what its base knew cannot be told",
        }[self.verdict]
        return f"{lead}: {self._texts_sentence()}, and {self._questions_sentence()} ({percent(self.texts.confidence)})."

    def _texts_sentence(self) -> str:
        found, places = self.texts, decimals(self.texts.interval, 3)
        return (
            f"{found.n} general texts take {found.tuned:.{places}f} bits per byte against {found.base:.{places}f}, "
            f"difference {with_interval(found.difference, found.interval, places, signed=True)}, "
            f"{_words(self.texts_kept)}"
        )

    def _questions_sentence(self) -> str:
        found, places = self.questions, decimals(self.questions.interval)
        right = round(found.n * found.tuned), round(found.n * found.base)
        return (
            f"{right[0]} of {found.n} general questions are answered right against {right[1]}, difference "
            f"{with_interval(found.difference, found.interval, places, signed=True)}, "
            f"{_words(self.questions_kept)}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `evaluation/results.json` holds under `forgetting`, in values of strict JSON."""
        return {
            "margin": self.texts_kept.margin,
            "questions_margin": self.questions_kept.margin,
            "items": self.texts.n + self.questions.n,
            "text_bits": {**_figures(self.texts), "verdict": self.texts_kept.verdict},
            "choices": {**_figures(self.questions), "verdict": self.questions_kept.verdict},
            "kl": asdict(self.kl),
            "forgets": self.verdict == "forgets",
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "texts": list(self.per_text),
            "lost": list(self.lost),
            "sources": self.sources,
        }


def _words(kept: NonInferiority) -> str:
    outcome = {"keeps": "within", "forgets": "beyond", "cannot tell": "which may or may not be within"}
    return f"{outcome[kept.verdict]} the margin of {kept.margin:g}"


def measure_forgetting(
    section: ForgettingSection,
    base: Runtime,
    tuned: Runtime,
    tokenizer: PreTrainedTokenizerBase,
    *,
    encode: Callable[[str], Sequence[int]],
    stop: Sequence[int],
    context_length: int | None,
    seed: int,
    confidence: float = 0.95,
) -> Forgetting:
    """Let base and tuned predict general texts, choose answers to general questions, and compare their predictions.

    Both texts and questions are judged by non-inferiority: what was lost is within the margin where the whole interval
    of the difference is (Piaggio et al. 2012, JAMA 308:2594-2604). A choice is the answer whose tokens are likeliest
    by the byte. The divergence is taken along the answers that base itself gives to the neutral prompts.

    Args:
        section: the recipe's `evaluate.forgetting`.
        base: answers as the base.
        tuned: answers as the tuned model.
        tokenizer: that of both.
        encode: turns a person's words into the tokens that the models are asked.
        stop: tokens that end an answer.
        context_length: longest text that the models take, in tokens; None where the base does not say.
        seed: seed of the bootstrap.
        confidence: level of the intervals.

    Raises:
        FinetuneError: items that cannot be read or used, or a model whose predictions are no numbers.
    """
    texts = read_texts(section, tokenizer, context_length=context_length)
    questions = read_questions(section, tokenizer, context_length=context_length)
    prompts = read_prompts(section, encode, context_length=context_length)
    bits = _bits(base, texts.items), _bits(tuned, texts.items)
    right = _right(base, questions.items), _right(tuned, questions.items)
    of_texts = paired_comparison(
        *bits, binary=False, higher_is_better=False, confidence=confidence, bounds=None, seed=seed
    )
    of_questions = paired_comparison(*right, binary=True, higher_is_better=True, confidence=confidence, seed=seed)
    return Forgetting(
        texts=of_texts,
        questions=of_questions,
        kl=_diverge(base, tuned, prompts.items, stop),
        texts_kept=non_inferiority(of_texts, margin=section.margin, higher_is_better=False),
        questions_kept=non_inferiority(of_questions, margin=section.questions_margin, higher_is_better=True),
        per_text=tuple(
            {"id": text.id, "base": old, "tuned": new} for text, old, new in zip(texts.items, *bits, strict=True)
        ),
        lost=tuple(question.id for question, old, new in zip(questions.items, *right, strict=True) if old > new),
        sources={"texts": _source(texts), "questions": _source(questions), "prompts": _source(prompts)},
    )


def text_rise(
    section: ForgettingSection, runtime: Runtime, tokenizer: PreTrainedTokenizerBase, *, context_length: int | None
) -> Callable[[], float]:
    """Measure the general texts now, before training; returns what measures how much they have risen since.

    Args:
        section: the recipe's `evaluate.forgetting`.
        runtime: the model that is going to learn.
        tokenizer: its own.
        context_length: longest text that it takes, in tokens; None where the base does not say.

    Returns:
        A function that returns the rise of the texts' mean bits per byte.

    Raises:
        FinetuneError: texts that cannot be read or used, or a model whose predictions are no numbers.
    """
    texts = read_texts(section, tokenizer, context_length=context_length).items

    def level() -> float:
        return math.fsum(_bits(runtime, texts)) / len(texts)

    before = level()
    return lambda: level() - before


# ------------------------------------------------------------------------------------------------------- measuring


def _bits(runtime: Runtime, texts: Sequence[GeneralText]) -> list[float]:
    """Return the bits per byte of each text."""
    found = iter(runtime.log_likelihoods([row for text in texts for row in text.rows]))
    bits = [bits_per_byte(math.fsum(islice(found, len(text.rows))), text.text) for text in texts]
    for text, value in zip(texts, bits, strict=True):
        if not math.isfinite(value):
            raise FinetuneError(
                f"{runtime.name} predicts no numbers on the general text {text.id!r}",
                where="evaluation",
                fix="train again with a lower learning rate, or with model.dtype: float32",
            )
    return bits


def _right(runtime: Runtime, questions: Sequence[GeneralQuestion]) -> list[float]:
    """Return 1 for each question that is answered right, else 0."""
    found = runtime.choice_log_likelihoods(
        [question.prompt for question in questions], [question.continuations for question in questions]
    )
    return [_is_right(question, likelihoods) for question, likelihoods in zip(questions, found, strict=True)]


def _is_right(question: GeneralQuestion, likelihoods: Sequence[float]) -> float:
    sizes = [len(choice.encode()) for choice in question.choices]
    return judge_choices(likelihoods, sizes, question.answer, normalised=True).value


def _diverge(base: Runtime, tuned: Runtime, prompts: Sequence[NeutralPrompt], stop: Sequence[int]) -> Divergence:
    asked = [prompt.tokens for prompt in prompts]
    answers = base.generate(asked, max_new_tokens=ANSWER_TOKENS, stop=stop, progress=None)
    found: list[NDArray[np.float32]] = []
    for prompt, answer in zip(asked, answers, strict=True):
        # One prompt at a time: predictions over a large vocabulary take megabytes a token
        whole, first = (*prompt, *answer.token_ids), len(prompt) - 1
        found.append(kl_divergence(base.log_probabilities(whole)[first:], tuned.log_probabilities(whole)[first:]))
    every = np.concatenate(found).astype(np.float64)
    return Divergence(float(every.mean()), float(every.max()), len(every))


def _figures(found: Comparison) -> dict[str, Any]:
    return {
        "base": found.base,
        "tuned": found.tuned,
        "difference": found.difference,
        "interval": list(found.interval),
        "n": found.n,
    }


def _source(found: Items[Any]) -> dict[str, Any]:
    return {"n": len(found.items), "file": found.file, "sha256": found.sha256}
