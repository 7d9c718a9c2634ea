"""Items and what judges them: a `Task` is answered by every contestant (`answer`) and then judged (`judge`)."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.data import TestItem
from finetune.data.item_choices import CHOICES, GOLD
from finetune.evaluation.compare import Answer, Item, TaskResult, clusters_of, compare
from finetune.evaluation.scoring.likelihood import continuations, judge_item
from finetune.evaluation.scoring.scorer import Score
from finetune.evaluation.scoring.scorers import Baseline, Scorer, choose_scorer, trivial_baseline
from finetune.recipe.schema import EvaluateSection
from finetune.recipe.tasks import HELD_OUT as HELD_OUT
from finetune.runtimes import Generation, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every contestant is asked, and how its answers are judged.

    Attributes:
        name: as verdicts say it.
        items: the items, drawn already.
        scorer: judges answers.
        baseline: the trivial baseline's scores on the same items, where there is one.
        stop: tokens that end an answer.
        max_new_tokens: longest answer.
        notes: what a person ought to know of the items.
    """

    name: str
    items: tuple[TestItem, ...]
    scorer: Scorer
    baseline: Baseline | None
    stop: tuple[int, ...]
    max_new_tokens: int
    notes: tuple[str, ...] = ()

    @property
    def clusters(self) -> list[Hashable] | None:
        """The cluster of each item, None where items are independent."""
        return clusters_of((item.example.id, item.example.group) for item in self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the answers and their scores."""
        digest = hashlib.sha256(f"{self.scorer.name} {self.scorer.description} {self.max_new_tokens}".encode())
        digest.update(np.asarray(self.stop, dtype=np.int64).tobytes())
        for item in self.items:
            said = f"{item.example.id}\0{item.example.reference}\0{prompt_hash(item.prompt)}\0{asked_hash(item)}\0"
            digest.update(said.encode("utf-8", "surrogatepass"))
            for row in item.rows if self.scorer.needs_likelihood else ():
                digest.update(row.input_ids.tobytes())
        return digest.hexdigest()


def make_task(
    section: EvaluateSection,
    items: Sequence[TestItem],
    *,
    name: str = HELD_OUT,
    train_references: Sequence[str],
    labels: Sequence[str] | None,
    raw_text: bool,
    stop: Sequence[int],
    seed: int,
    notes: Sequence[str] = (),
) -> Task:
    """Draw the items of a task and choose what judges them.

    Args:
        section: how it is judged: scorer, number of items, length of answers.
        items: the test rows.
        name: the task's.
        train_references: the training answers, for the trivial baseline; without any there is none.
        labels: the classes of classification data.
        raw_text: the rows are text without question and answer.
        stop: tokens that end an answer.
        seed: seed of the draw.
        notes: what a person ought to know of the items.

    Raises:
        FinetuneError: no test rows, or a scorer that does not fit them.
    """
    chosen = draw(items, section.max_items, seed)
    scorer = check_scorer(section, items, labels=labels, raw_text=raw_text, seed=seed)
    references = [item.example.reference for item in chosen]
    return Task(
        name=name,
        items=tuple(chosen),
        scorer=scorer,
        baseline=trivial_baseline(
            scorer,
            train_references,
            references,
            [item.example.metadata for item in chosen],
            alternatives=[item.example.alternatives for item in chosen],
            ids=[item.example.id for item in chosen],
        )
        if train_references
        else None,
        stop=tuple(stop),
        max_new_tokens=0 if scorer.needs_likelihood else longest_answer(chosen, section),
        notes=tuple(notes),
    )


def check_scorer(
    section: EvaluateSection, items: Sequence[TestItem], *, labels: Sequence[str] | None, raw_text: bool, seed: int
) -> Scorer:
    """Return the scorer that judges items; the arguments are those of `make_task`.

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
        alternatives=[example.alternatives for example in chosen],
        ids=[example.id for example in chosen],
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


def prompt_hash(tokens: Sequence[int]) -> str:
    """Return the SHA-256 of a prompt's tokens."""
    return hashlib.sha256(np.asarray(tokens, dtype=np.int64).tobytes()).hexdigest()


def asked_hash(item: TestItem) -> str:
    """Return the SHA-256 of what is asked, whoever's template writes it: roles and texts of the conversation."""
    said = "\0".join(f"{message.role}\0{message.said}" for message in item.asked)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


# ------------------------------------------------------------------------------------------------------- answering


def answer(
    runtime: Runtime, task: Task, items: Sequence[TestItem], watch: Callable[[int], None] | None
) -> list[Answer]:
    """Let a contestant answer items of a task, or score their references where the scorer needs likelihoods.

    Args:
        runtime: who answers; it was trained with the tokens of the items.
        task: the task.
        items: all of its items, or a part.
        watch: told how many have been answered.
    """
    if task.scorer.of_choices:
        return _choices(runtime, items, normalised=task.scorer.name == "likelihood_norm")
    if task.scorer.needs_likelihood:
        return _likelihoods(runtime, items, task.scorer)
    generations = runtime.generate(
        [item.prompt for item in items], max_new_tokens=task.max_new_tokens, stop=task.stop, progress=watch
    )
    return [
        judged(item, given, task.scorer, prompt_hash(item.prompt))
        for item, given in zip(items, generations, strict=True)
    ]


def judged(item: TestItem, given: Generation, scorer: Scorer, asked: str) -> Answer:
    """Score one answer; `asked` is the hash of what the contestant was given."""
    example = item.example
    score = scorer.score(
        given.text, example.reference, example.metadata, alternatives=example.alternatives, item=example.id
    )
    return Answer(
        item_id=item.example.id,
        text=given.text,
        ended=given.ended,
        tokens=given.tokens,
        score=score.value,
        detail=score.detail,
        prompt_hash=asked,
    )


def _choices(runtime: Runtime, items: Sequence[TestItem], *, normalised: bool) -> list[Answer]:
    """Take the likeliest of each item's choices for its answer."""
    found = runtime.choice_log_likelihoods([item.prompt for item in items], list(map(continuations, items)))
    return [
        _chosen(item, each, judge_item(item, each, normalised=normalised))
        for item, each in zip(items, found, strict=True)
    ]


def _chosen(item: TestItem, log_likelihoods: Sequence[float], score: Score) -> Answer:
    metadata = item.example.metadata
    return Answer(
        item_id=item.example.id,
        text=metadata[CHOICES][score.detail["chosen"]],
        ended=True,
        tokens=0,
        score=score.value,
        detail={**score.detail, "gold": metadata[GOLD]},
        log_likelihood=log_likelihoods[metadata[GOLD]],
        prompt_hash=prompt_hash(item.prompt),
    )


def _likelihoods(runtime: Runtime, items: Sequence[TestItem], scorer: Scorer) -> list[Answer]:
    """Score the reference texts themselves: no answer is generated."""
    rows = [(row.input_ids.tolist(), row.trained.tolist()) for item in items for row in item.rows]
    found = iter(runtime.log_likelihoods(rows))
    return [_measured(item, math.fsum(itertools.islice(found, len(item.rows))), scorer) for item in items]


def _measured(item: TestItem, likelihood: float, scorer: Scorer) -> Answer:
    assert scorer.measure is not None  # noqa: S101 - scorers of texts measure them
    score = scorer.measure(likelihood, item.example.reference, sum(int(row.trained.sum()) for row in item.rows))
    return Answer(
        item_id=item.example.id,
        text="",
        ended=True,
        tokens=sum(len(row) for row in item.rows),
        score=score.value,
        detail=score.detail,
        log_likelihood=likelihood,
        prompt_hash=prompt_hash(item.prompt),
    )


# --------------------------------------------------------------------------------------------------------- judging


def judge(
    task: Task,
    answers: Mapping[str, Sequence[Answer]],
    *,
    decode: Callable[[Sequence[int]], str],
    confidence: float,
    seed: int,
    seconds: Mapping[str, float],
) -> TaskResult:
    """Compare every contestant's answers with those of `base`.

    Args:
        task: the task.
        answers: by contestant, in the order of the items.
        decode: turns a prompt's tokens into text, for the record.
        confidence: level of intervals and verdict.
        seed: seed of the bootstrap.
        seconds: time each contestant took.

    Raises:
        FinetuneError: contestants answered other items or got other prompts.
    """
    return compare(
        task.name,
        task.scorer,
        [_item(item, decode) for item in task.items],
        answers,
        baseline=task.baseline,
        confidence=confidence,
        seed=seed,
        seconds=seconds,
    )


def _item(item: TestItem, decode: Callable[[Sequence[int]], str]) -> Item:
    example = item.example
    return Item(
        id=example.id,
        reference=example.reference,
        prompt_text=decode(item.prompt),
        group=example.group,
        asked_hash=asked_hash(item),
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
            given = answers[position]
            record[name] = {
                "text": given.text,
                "score": given.score,
                "ended": given.ended,
                "tokens": given.tokens,
                "log_likelihood": given.log_likelihood,
                "detail": given.detail,
            }
        records.append(record)
    return records
