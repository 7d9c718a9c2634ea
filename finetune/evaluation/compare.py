"""Set contestants' answers to one task side by side: `compare` pairs and tests, `verdict_sentence` says the outcome."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.errors import FinetuneError
from finetune.evaluation.scoring.scorers import BITS_PER_BYTE, Baseline, Scorer
from finetune.evaluation.scoring.words import repetitive
from finetune.evaluation.statistics.paired import Comparison, Estimate, mean_interval
from finetune.evaluation.statistics.pairing import Scored, compare_scores
from finetune.evaluation.wording import comparison_words, decimals, unseen_words, with_interval

BASE = "base"
TUNED = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One test item. Items of one `group` (document, customer) are not independent of each other.

    `asked_hash` is that of the conversation, which a contestant with a template of its own is asked instead of tokens.
    """

    id: str
    reference: str
    prompt_text: str
    group: str | None = None
    asked_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a contestant said to one item and how it was judged.

    `prompt_hash` is that of the prompt this contestant really got. `ended` is False where the answer
    was cut at the length limit; `tokens` counts those generated. `log_likelihood` is in nats, None where the task
    does not need it.
    """

    item_id: str
    prompt_hash: str
    text: str
    ended: bool
    tokens: int
    score: float
    detail: dict[str, Any] = field(default_factory=dict)
    log_likelihood: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Shares of a contestant's answers that ended by themselves, were cut, are empty, run in circles, are no JSON.

    `invalid_json` is None where the task asks for no JSON.
    """

    ended: float
    cut: float
    empty: float
    repetitive: float
    invalid_json: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """The trivial baseline's score, and the comparison of the tuned contestant with it (in the place of base)."""

    name: str
    what: str
    estimate: Estimate
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All that is known of one task. Answers stand in the order of `items`; `seconds` are a contestant's in all.

    `comparisons` holds every other contestant against base. `health` is empty for tasks without answers
    (bits_per_byte), `field_scores` for tasks without JSON fields.
    """

    task: str
    scorer: str
    unit: str
    higher_is_better: bool
    n: int
    items: tuple[Item, ...]
    contestants: dict[str, list[Answer]]
    comparisons: dict[str, Comparison]
    baseline: BaselineResult | None
    health: dict[str, Health]
    field_scores: dict[str, dict[str, Estimate]]
    prompt_hash: str
    seconds: dict[str, float]

    @property
    def subject(self) -> str:
        """The contestant the verdict is about: `tuned`, or the first one beside base."""
        return TUNED if TUNED in self.comparisons else next(iter(self.comparisons))

    @property
    def comparison(self) -> Comparison:
        """The subject against base."""
        return self.comparisons[self.subject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One item as both answered it; `gain` is positive where the contestant did better than base."""

    item: Item
    base: Answer
    tuned: Answer
    gain: float


def compare(
    task: str,
    scorer: Scorer,
    items: Sequence[Item],
    answers_by_contestant: Mapping[str, Sequence[Answer]],
    *,
    baseline: Baseline | None,
    confidence: float,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    seconds: Mapping[str, float] | None = None,
) -> TaskResult:
    """Pair every contestant with base on the same items and prompts, and test the difference.

    Args:
        task: Name of the task as the verdict says it.
        scorer: What the answers were judged with.
        items: The test items.
        answers_by_contestant: Answers in the order of `items`; `base` and at least one other.
        baseline: Scores of the trivial baseline on the same items, if there is one.
        confidence: Level of intervals and verdict.
        clusters: Group of each item; None takes the items' own groups, an item without one standing alone.
        seed: Seed of the bootstrap.
        seconds: Time each contestant took, for the record.

    Raises:
        FinetuneError: Contestants answered other items or got other prompts.
        ValueError: No items, an id twice, no base, nobody to compare with it, or scores that do not fit the scorer.
    """
    answers = {name: list(given) for name, given in answers_by_contestant.items()}
    _check_pairing(task, items, answers)
    groups = list(clusters) if clusters is not None else clusters_of((item.id, item.group) for item in items)
    against = functools.partial(compare_scores, scorer, confidence=confidence, clusters=groups, seed=seed)
    scores = {
        name: Scored([answer.score for answer in given], [answer.detail for answer in given])
        for name, given in answers.items()
    }
    comparisons = {name: against(scores[BASE], scores[name]) for name in answers if name != BASE}
    subject = TUNED if TUNED in comparisons else next(iter(comparisons))
    return TaskResult(
        task=task,
        scorer=scorer.name,
        unit=scorer.unit,
        higher_is_better=scorer.higher_is_better,
        n=len(items),
        items=tuple(items),
        contestants=answers,
        comparisons=comparisons,
        baseline=None
        if baseline is None
        else _judge_baseline(baseline, against(Scored(baseline.scores, baseline.details), scores[subject])),
        health={} if scorer.needs_likelihood else {name: _health(given) for name, given in answers.items()},
        field_scores=_field_scores(answers, confidence, groups, seed),
        prompt_hash=_hash_of_all(answers[BASE]),
        seconds=dict(seconds or {}),
    )


def verdict_sentence(result: TaskResult, contestant: str | None = None) -> str:
    """The outcome in words: verdict, both scores, difference, each with its interval, and the test behind it.

    Args:
        result: The task.
        contestant: Whom to compare with base; None means the result's subject.
    """
    name = contestant or result.subject
    found = result.comparisons[name]
    places = decimals(found.interval, _least_decimals(result))
    title = name[:1].upper() + name[1:]
    lead = {
        "better": f"{title} is better than base",
        "worse": f"{title} is worse than base",
        "no detectable difference": f"No detectable difference{'' if name == TUNED else f' between {name} and base'}",
        "too few items to tell": f"Too few items to tell{'' if name == TUNED else f' {name} from base'}",
    }[found.verdict]
    figures = comparison_words(found, places, higher_is_better=result.higher_is_better)
    sentence = f"{lead} on {result.task}: {result.scorer} {figures}{unseen_words(found, places)}."
    return sentence + (_baseline_sentence(result, title) if name == result.subject else "")


def wins(result: TaskResult, k: int | None = None) -> list[Pair]:
    """Items on which the subject did better than base, largest gain first; at most `k`."""
    return sorted((pair for pair in _pairs(result) if pair.gain > 0), key=lambda pair: -pair.gain)[:k]


def losses(result: TaskResult, k: int | None = None) -> list[Pair]:
    """Items on which the subject did worse than base, largest loss first; at most `k`."""
    return sorted((pair for pair in _pairs(result) if pair.gain < 0), key=lambda pair: pair.gain)[:k]


def regressions(result: TaskResult, k: int | None = None) -> list[Pair]:
    """Losses that base had wholly right (score 1), largest loss first; none where there is no such thing as right."""
    if not result.higher_is_better:
        return []
    return [pair for pair in losses(result) if pair.base.score == 1.0][:k]


def as_json(result: TaskResult) -> dict[str, Any]:
    """The result without the answers, in values of strict JSON; the subject's comparison lies at the top."""
    return {
        "task": result.task,
        "scorer": result.scorer,
        "unit": result.unit,
        "higher_is_better": result.higher_is_better,
        "subject": result.subject,
        **_comparison_json(result.comparison),
        "sentence": verdict_sentence(result),
        "comparisons": {name: _comparison_json(found) for name, found in result.comparisons.items()},
        "baseline": _baseline_json(result.baseline),
        "health": {name: asdict(health) for name, health in result.health.items()},
        "field_scores": {
            name: {key: _estimate_json(estimate) for key, estimate in fields.items()}
            for name, fields in result.field_scores.items()
        },
        "prompt_hash": result.prompt_hash,
        "seconds": result.seconds,
    }


# ------------------------------------------------------------------------------------------------------- pairing


def _check_pairing(task: str, items: Sequence[Item], answers: Mapping[str, Sequence[Answer]]) -> None:
    ids = [item.id for item in items]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"task {task!r} needs at least one item, and no id twice")
    if BASE not in answers or len(answers) < 2:
        raise ValueError(f"task {task!r} needs {BASE!r} and another contestant, not {list(answers)!r}")
    for name, given in answers.items():
        if [answer.item_id for answer in given] != ids:
            raise FinetuneError(
                f"{name!r} did not answer the same items in the same order: {_first_difference(ids, given)}",
                where=f"evaluation of {task}",
                fix="let all contestants answer again",
            )
        other = [
            item.id
            for item, mine, its in zip(items, given, answers[BASE], strict=True)
            if mine.prompt_hash not in (its.prompt_hash, item.asked_hash)
        ]
        if other:
            raise FinetuneError(
                f"{name!r} and {BASE!r} got different prompts on {len(other)} of {len(ids)} items, "
                f"first on {other[0]!r}",
                where=f"evaluation of {task}",
                fix="give all contestants the same chat template and system prompt",
            )


def _hash_of_all(answers: Sequence[Answer]) -> str:
    lines = "\n".join(f"{answer.item_id} {answer.prompt_hash}" for answer in answers)
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def _first_difference(ids: Sequence[str], given: Sequence[Answer]) -> str:
    for position, (expected, answer) in enumerate(zip(ids, given, strict=False), 1):
        if expected != answer.item_id:
            return f"item {position} is {expected!r}, its answer is to {answer.item_id!r}"
    return f"{len(ids)} items, {len(given)} answers"


def clusters_of(items: Iterable[tuple[str, str | None]]) -> list[Hashable] | None:
    """Return the cluster of each item, from its id and its group; None where no item belongs to a group.

    An item without a group stands alone.
    """
    known = list(items)
    if all(group is None for _, group in known):
        return None
    return [("item", name) if group is None else ("group", group) for name, group in known]


def _pairs(result: TaskResult) -> list[Pair]:
    sign = 1 if result.higher_is_better else -1
    columns = zip(result.items, result.contestants[BASE], result.contestants[result.subject], strict=True)
    return [Pair(item=item, base=old, tuned=new, gain=sign * (new.score - old.score)) for item, old, new in columns]


# ------------------------------------------------------------------------------------- what goes beside the verdict


def _judge_baseline(baseline: Baseline, comparison: Comparison) -> BaselineResult:
    return BaselineResult(
        name=baseline.name,
        what=baseline.what,
        estimate=Estimate(mean=comparison.base, interval=comparison.base_interval, n=comparison.n),
        comparison=comparison,
    )


def _health(answers: Sequence[Answer]) -> Health:
    def share(flags: Sequence[bool]) -> float:
        return sum(flags) / len(flags)

    validity = [not answer.detail["valid_json"] for answer in answers if "valid_json" in answer.detail]
    return Health(
        ended=share([answer.ended for answer in answers]),
        cut=share([not answer.ended for answer in answers]),
        empty=share([not answer.text.strip() for answer in answers]),
        repetitive=share([repetitive(answer.text) for answer in answers]),
        invalid_json=share(validity) if validity else None,
    )


def _field_scores(
    answers: Mapping[str, Sequence[Answer]], confidence: float, groups: Sequence[Hashable] | None, seed: int
) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {}
    for name, given in answers.items():
        columns: dict[str, list[int]] = {}
        for position, answer in enumerate(given):
            for key in answer.detail.get("fields", ()):
                columns.setdefault(key, []).append(position)
        if columns:
            found[name] = {
                key: mean_interval(
                    [float(given[position].detail["fields"][key]) for position in positions],
                    binary=True,
                    confidence=confidence,
                    clusters=None if groups is None else [groups[position] for position in positions],
                    seed=seed,
                )
                for key, positions in columns.items()
            }
    return found


# --------------------------------------------------------------------------------------------------- words and JSON


def _least_decimals(result: TaskResult) -> int:
    return 3 if result.unit == BITS_PER_BYTE else 2


def _baseline_sentence(result: TaskResult, title: str) -> str:
    if result.baseline is None or result.baseline.comparison.verdict in ("better", "too few items to tell"):
        return ""
    estimate = result.baseline.estimate
    score = with_interval(estimate.mean, estimate.interval, _least_decimals(result))
    return f" {title} does not beat the trivial baseline ({result.baseline.what}), which scores {score}."


def _comparison_json(found: Comparison) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(found).items()}


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {"score": estimate.mean, "interval": list(estimate.interval), "n": estimate.n}


def _baseline_json(baseline: BaselineResult | None) -> dict[str, Any] | None:
    if baseline is None:
        return None
    return {
        "name": baseline.name,
        "what": baseline.what,
        **_estimate_json(baseline.estimate),
        "verdict_of_subject": baseline.comparison.verdict,
    }
