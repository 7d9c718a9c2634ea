"""The recipe's own test rows: base and tuned answer the same prompts, all answers are kept and compared."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetune.data import TestItem
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.scorers import Scorer, bits_per_byte, choose_scorer, trivial_baseline
from finetune.recipe.schema import EvaluateSection
from finetune.runtimes import Generation, Runtime

TASK = "held-out"

# Told which contestant answers, how many items it has answered, and of how many
Watch = Callable[[str, int, int], None]


def evaluate(
    section: EvaluateSection,
    items: Sequence[TestItem],
    contestants: Sequence[Runtime],
    *,
    train_references: Sequence[str],
    labels: Sequence[str] | None,
    raw_text: bool,
    stop: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    seed: int,
    watch: Watch | None = None,
) -> TaskResult:
    """Let every contestant answer the held-out items and compare them with `base`.

    Args:
        section: the recipe's `evaluate`.
        items: the test rows.
        contestants: runtimes named `base`, `tuned` and so on; they answer one after the other.
        train_references: the training answers, for the trivial baseline.
        labels: the classes of classification data.
        raw_text: the rows are text without question and answer.
        stop: tokens that end an answer.
        decode: turns a prompt's tokens into text, for the record.
        seed: seed of the draw and of the bootstrap.
        watch: told of the progress.

    Raises:
        FinetuneError: no test rows, or a scorer that does not fit them.
    """
    chosen = draw(items, section.max_items, seed)
    references = [item.example.reference for item in chosen]
    scorer = check_scorer(section, items, labels=labels, raw_text=raw_text, seed=seed)
    answers: dict[str, list[Answer]] = {}
    seconds: dict[str, float] = {}
    for runtime in contestants:
        started = time.perf_counter()
        answers[runtime.name] = answer(runtime, chosen, scorer, section, stop, watch)
        seconds[runtime.name] = time.perf_counter() - started
    return compare(
        TASK,
        scorer,
        [_item(item, decode) for item in chosen],
        answers,
        baseline=trivial_baseline(scorer, train_references, references, [item.example.metadata for item in chosen]),
        confidence=section.confidence,
        seed=seed,
        seconds=seconds,
    )


def check_scorer(
    section: EvaluateSection, items: Sequence[TestItem], *, labels: Sequence[str] | None, raw_text: bool, seed: int
) -> Scorer:
    """Return the scorer that judges the held-out items; the arguments are those of `evaluate`.

    Raises:
        FinetuneError: no test rows, or a scorer that does not fit them.
    """
    chosen = [item.example for item in draw(items, section.max_items, seed)]
    benchmarks = {example.benchmark for example in chosen}
    return choose_scorer(
        section,
        [example.reference for example in chosen],
        labels=labels,
        raw_text=raw_text,
        benchmark=benchmarks.pop() if len(benchmarks) == 1 else "",
        metadata=[example.metadata for example in chosen],
    )[0]


def draw(items: Sequence[TestItem], at_most: int | None, seed: int) -> list[TestItem]:
    """Return at most so many items, drawn at random but kept in order."""
    if at_most is None or len(items) <= at_most:
        return list(items)
    kept = np.random.default_rng(seed).choice(len(items), at_most, replace=False)
    return [items[index] for index in sorted(kept)]


def longest_answer(items: Sequence[TestItem], section: EvaluateSection) -> int:
    """Return how many tokens an answer may have: a quarter more than the longest reference, or what the recipe says."""
    return section.max_new_tokens or math.ceil(1.25 * max(int(item.row.trained.sum()) for item in items))


def _item(item: TestItem, decode: Callable[[Sequence[int]], str]) -> Item:
    example = item.example
    return Item(
        id=example.id,
        reference=example.reference,
        prompt_text=decode(item.prompt),
        group=example.group,
    )


def _prompt_hash(tokens: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(tokens, dtype=np.int64).tobytes()).hexdigest()


def answer(
    runtime: Runtime,
    items: Sequence[TestItem],
    scorer: Scorer,
    section: EvaluateSection,
    stop: Sequence[int],
    watch: Watch | None,
) -> list[Answer]:
    """Let one contestant answer items, or score their references where the scorer needs likelihoods."""
    return (_likelihoods if scorer.needs_likelihood else _answers)(runtime, items, scorer, section, stop, watch)


def _answers(
    runtime: Runtime,
    items: Sequence[TestItem],
    scorer: Scorer,
    section: EvaluateSection,
    stop: Sequence[int],
    watch: Watch | None,
) -> list[Answer]:
    def progress(done: int) -> None:
        if watch is not None:
            watch(runtime.name, done, len(items))

    generations = runtime.generate(
        [item.prompt for item in items],
        max_new_tokens=longest_answer(items, section),
        stop=stop,
        progress=progress,
    )
    return [_judged(item, given, scorer) for item, given in zip(items, generations, strict=True)]


def _judged(item: TestItem, given: Generation, scorer: Scorer) -> Answer:
    score = scorer.score(given.text, item.example.reference, item.example.metadata)
    return Answer(
        item_id=item.example.id,
        text=given.text,
        ended=given.ended,
        tokens=len(given.token_ids),
        score=score.value,
        detail=score.detail,
        prompt_hash=_prompt_hash(item.prompt),
    )


def _likelihoods(
    runtime: Runtime,
    items: Sequence[TestItem],
    scorer: Scorer,
    section: EvaluateSection,
    stop: Sequence[int],
    watch: Watch | None,
) -> list[Answer]:
    """Score the reference texts themselves: no answer is generated."""
    rows = [(row.input_ids.tolist(), row.trained.tolist()) for item in items for row in item.rows]
    found = iter(runtime.log_likelihoods(rows))
    return [_measured(item, math.fsum(itertools.islice(found, len(item.rows)))) for item in items]


def _measured(item: TestItem, likelihood: float) -> Answer:
    return Answer(
        item_id=item.example.id,
        text="",
        ended=True,
        tokens=sum(len(row) for row in item.rows),
        score=bits_per_byte(likelihood, item.example.reference),
        detail={},
        log_likelihood=likelihood,
        prompt_hash=_prompt_hash(item.prompt),
    )


def answer_records(result: TaskResult) -> list[dict[str, Any]]:
    """Return one record an item with its prompt, its reference and what every contestant answered."""
    records: list[dict[str, Any]] = []
    for position, item in enumerate(result.items):
        record: dict[str, Any] = {
            "id": item.id,
            "group": item.group,
            "prompt": item.prompt_text,
            "reference": item.reference,
        }
        for name, answers in result.contestants.items():
            answer = answers[position]
            record[name] = {
                "text": answer.text,
                "score": answer.score,
                "ended": answer.ended,
                "tokens": answer.tokens,
                "log_likelihood": answer.log_likelihood,
                "detail": answer.detail,
            }
        records.append(record)
    return records
