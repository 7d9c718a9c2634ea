"""Tasks of lm-eval, asked of any contestant and judged like every other task.

`run_lm_eval(section, contestants, tokenizer, ...)` does all; `prepare_lm_eval`, `answer_lm_eval` and `judge_lm_eval`
are its parts, for contestants that are not open at the same time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import FinetuneError
from finetune.evaluation.compare import Answer, Item, TaskResult, compare
from finetune.evaluation.lm_eval.preparing import WHERE, LmEval, golds_of, hash_of, make_requests, prepare_lm_eval
from finetune.runtimes import Runtime

if TYPE_CHECKING:
    from finetune.evaluation.lm_eval.model import RuntimeLM
    from finetune.recipe.tasks import LmEvalTask


def run_lm_eval(
    section: LmEvalTask,
    contestants: Sequence[Runtime],
    tokenizer: Any,
    *,
    context_length: int | None,
    confidence: float,
    seed: int,
    stop: Sequence[int] = (),
    watch: Callable[[str, int, int], None] | None = None,
) -> TaskResult:
    """Ask every contestant a task of lm-eval and compare them with `base`.

    Args:
        section: the recipe's task.
        contestants: runtimes named `base`, `tuned` and so on, all of this tokenizer.
        tokenizer: the run's.
        context_length: tokens that the model takes.
        confidence: level of intervals and verdict.
        seed: seed of the bootstrap.
        stop: tokens that end an answer beside the task's own texts.
        watch: told which contestant has answered how many of how many requests.

    Raises:
        FinetuneError: lm-eval is not installed, or the task cannot be asked or judged as it is.
    """
    task = prepare_lm_eval(section, tokenizer, context_length=context_length)
    answers: dict[str, list[Answer]] = {}
    seconds: dict[str, float] = {}
    for runtime in contestants:
        started = time.perf_counter()
        answers[runtime.name] = answer_lm_eval(
            task, runtime, tokenizer, context_length=context_length, stop=stop, watch=watch
        )
        seconds[runtime.name] = time.perf_counter() - started
    return judge_lm_eval(task, answers, confidence=confidence, seed=seed, seconds=seconds)


def answer_lm_eval(
    task: LmEval,
    runtime: Runtime,
    tokenizer: Any,
    *,
    context_length: int | None,
    stop: Sequence[int] = (),
    own_template: bool = False,
    watch: Callable[[str, int, int], None] | None = None,
) -> list[Answer]:
    """Let one contestant answer; lm-eval makes the prompts and judges.

    Args:
        task: from `prepare_lm_eval`.
        runtime: who answers.
        tokenizer: its own.
        context_length: tokens that it takes.
        stop: tokens that end an answer beside the task's own texts.
        own_template: it is another model than the run's, and is asked the same in its own chat template.
        watch: told which contestant has answered how many of how many requests.

    Raises:
        FinetuneError: prompts that are longer than its context, with the items.
    """
    from finetune.evaluation.lm_eval.engine import quiet
    from finetune.evaluation.lm_eval.model import RuntimeLM

    lm = RuntimeLM(runtime, tokenizer, context_length=context_length, stop=stop)
    requests = make_requests(task.section, task.engine, task.numbers, lm)
    flat = [request for those in requests for request in those]
    if watch is not None:
        lm.progress = lambda done: watch(runtime.name, done, len(flat))
    for request, given in zip(flat, getattr(lm, flat[0].request_type)(flat), strict=True):
        request.resps.append(given)
    with quiet():
        task.engine.apply_filters()
    return [_answer(task, lm, place, those, own_template=own_template) for place, those in enumerate(requests)]


def judge_lm_eval(
    task: LmEval,
    answers: Mapping[str, Sequence[Answer]],
    *,
    confidence: float,
    seed: int,
    seconds: Mapping[str, float] | None = None,
) -> TaskResult:
    """Pair every contestant with base and test the difference; the arguments are those of `compare`."""
    return compare(
        task.name,
        task.scorer,
        task.items,
        answers,
        baseline=None,
        confidence=confidence,
        seed=seed,
        seconds=seconds,
    )


def _answer(task: LmEval, lm: RuntimeLM, place: int, requests: Sequence[Any], *, own_template: bool) -> Answer:
    engine, item = task.engine, task.items[place]
    doc = requests[0].doc
    read = [request.filtered_resps[task.answer_filter] for request in requests]
    score = _figure(task, item, engine.process_results(doc, read).get(task.metric))
    detail: dict[str, Any] = {}
    likelihood, given = None, lm.given.get(place)
    text = given.text if given is not None else ""
    if engine.OUTPUT_TYPE == "multiple_choice":
        text, likelihood, detail = _of_choices(engine, doc, [one for one, _ in read])
    elif given is None:
        likelihood = float(read[0][0] if isinstance(read[0], tuple) else read[0])
    elif read[0] != text:
        detail = {"read": read[0]}
    return Answer(
        item_id=item.id,
        prompt_hash=item.asked_hash if own_template else hash_of([request.args for request in requests]),
        text=text,
        ended=given.ended if given is not None else True,
        tokens=given.tokens if given is not None else 0,
        score=score,
        detail=detail,
        log_likelihood=likelihood,
    )


def _figure(task: LmEval, item: Item, value: Any) -> float:
    """Return an item's score.

    Raises:
        FinetuneError: the metric has no figure of one item, or one outside 0 to 1.
    """
    if task.engine.OUTPUT_TYPE == "loglikelihood_rolling" and task.metric == "bits_per_byte":
        likelihood, size = value
        return float(-likelihood / (size * math.log(2)))
    if isinstance(value, (bool, int, float, np.number)) and 0 <= float(value) <= task.scorer.highest:
        return float(value)
    what = f"{task.metric} gives {str(value)[:80]!r} to item {item.id}, and verdicts need a figure of 0 to 1 for each"
    raise FinetuneError(what, where=f"{WHERE}.metric", fix="take another metric of the task")


def _of_choices(engine: Any, doc: Any, figures: Sequence[float]) -> tuple[str, float, dict[str, Any]]:
    """Return the likeliest choice, the log-likelihood of the right one, and what calibration needs."""
    choices, golds = engine.doc_to_choice(doc), golds_of(engine, doc)
    those = np.array(figures[: len(choices)])
    chosen = int(those.argmax())
    probabilities = np.exp(those - those.max())
    probabilities /= probabilities.sum()
    detail = {"chosen": chosen, "gold": golds[0], "probabilities": probabilities.tolist()}
    return choices[chosen], float(those[golds[0]]), detail
