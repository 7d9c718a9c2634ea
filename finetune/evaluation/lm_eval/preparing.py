"""A task of lm-eval made ready to be asked: `prepare_lm_eval(section, tokenizer, ...)` checks it down to every item."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import FinetuneError, Problem, missing_extra, nearest, some
from finetune.evaluation.compare import Item, clusters_of
from finetune.evaluation.scoring.scorer import Score, Scorer

if TYPE_CHECKING:
    from finetune.evaluation.lm_eval.model import RuntimeLM
    from finetune.recipe.tasks import LmEvalTask

WHERE = "evaluate.tasks"
_BINARY = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEval:
    """A task of lm-eval that has been checked and can be asked.

    Attributes:
        name: as verdicts say it.
        items: the items, drawn already.
        fingerprint: SHA-256 of all that decides the answers and their scores, the contestant aside.
        notes: what was decided about examples.
        files: sha256 of each file that was read.
        engine: lm-eval's object.
        numbers: those of the items in the task's split.
        scorer: what the verdict is of, without the judging, which lm-eval does.
        metric: its name in lm-eval.
        answer_filter: the way of reading answers that counts.
        section: the recipe's.
    """

    name: str
    items: tuple[Item, ...]
    fingerprint: str
    notes: tuple[str, ...]
    files: Mapping[str, str]
    engine: Any
    numbers: tuple[int, ...]
    scorer: Scorer
    metric: str
    answer_filter: str
    section: LmEvalTask

    @property
    def clusters(self) -> list[Hashable] | None:
        """The cluster of each item, None where items are independent."""
        return clusters_of((item.id, item.group) for item in self.items)


def prepare_lm_eval(section: LmEvalTask, tokenizer: Any, *, context_length: int | None) -> LmEval:
    """Read a task, check all of its items and draw those that are asked.

    Raises:
        FinetuneError: with everything that is wrong.
    """
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise missing_extra("lm_eval", "lm-eval", "a task of lm-eval")
    from finetune.evaluation.lm_eval.model import RuntimeLM

    engine, files = _engine(section)
    whole = engine.eval_docs
    numbers = _draw(len(whole), section.max_items, section.seed)
    docs = [whole[number] for number in numbers]
    _require_items(section, engine, docs, numbers)
    metric, answer_filter = _metric(section, engine)
    notes = _set_shots(section, engine, docs)
    _set_length(section, engine)
    _check_group(section, engine)
    requests = make_requests(section, engine, numbers, RuntimeLM(None, tokenizer, context_length=context_length))
    items = tuple(
        _item(section, engine, number, doc, requests[place])
        for place, (number, doc) in enumerate(zip(numbers, docs, strict=True))
    )
    said = [metric, answer_filter, engine.OUTPUT_TYPE, *(f"{item.id} {item.asked_hash}" for item in items)]
    return LmEval(
        name=section.name or engine.config.task,
        items=items,
        fingerprint=hashlib.sha256("\n".join(said).encode()).hexdigest(),
        notes=notes,
        files=files,
        engine=engine,
        numbers=tuple(numbers),
        scorer=_scorer(engine, metric, answer_filter),
        metric=metric,
        answer_filter=answer_filter,
        section=section,
    )


def _engine(section: LmEvalTask) -> tuple[Any, Mapping[str, str]]:
    from finetune.evaluation.lm_eval.engine import own_engine, stock_engine
    from finetune.evaluation.lm_eval.task_files import read_task_file

    if (section.task is None) == (section.path is None):
        what = "a task of lm-eval needs either `task` or `path`" + (", not both" if section.task else "")
        raise FinetuneError(what, where=WHERE, fix="name one of lm-eval's tasks, or a YAML file of yours")
    if section.path is None:
        return stock_engine(str(section.task), WHERE), {}
    file = read_task_file(section.path)
    return own_engine(file), file.files


def _draw(count: int, at_most: int | None, seed: int) -> list[int]:
    if not count:
        raise FinetuneError("the task has no items", where=WHERE, fix="name a split that has rows")
    if at_most is None or count <= at_most:
        return list(range(count))
    return sorted(map(int, np.random.default_rng(seed).choice(count, at_most, replace=False)))


def _require_items(section: LmEvalTask, engine: Any, docs: Sequence[Any], numbers: Sequence[int]) -> None:
    """Refuse items of lm-eval's own tasks that would score 0 for what is wrong with them; a file's are checked."""
    if section.path is not None:
        return
    from finetune.evaluation.lm_eval.engine import item_fault

    problems = []
    for number, doc in zip(numbers, docs, strict=True):
        choices = engine.doc_to_choice(doc) if engine.config.doc_to_choice is not None else None
        fault = item_fault(engine.OUTPUT_TYPE, engine.doc_to_text(doc), engine.doc_to_target(doc), choices)
        if fault:
            problems.append(Problem(f"{section.task}, item {number}", fault, "the task itself is at fault"))
    if problems:
        raise FinetuneError.of(problems)


def _metric(section: LmEvalTask, engine: Any) -> tuple[str, str]:
    """Return the names of the metric and of the filter that the verdict is of."""
    metrics = [name for name in engine.aggregation() if name != "bypass"]
    metric = section.metric or metrics[0]
    if metric not in metrics:
        near = nearest(metric, metrics)
        fix = f"did you mean {near!r}?" if near else f"it has {some(metrics)}"
        raise FinetuneError(f"the task has no metric {metric!r}", where=f"{WHERE}.metric", fix=fix)
    filters = [one.name for one in engine._filters]
    chosen = section.answer_filter or filters[0]
    if chosen not in filters:
        near = nearest(chosen, filters)
        fix = f"did you mean {near!r}?" if near else f"it has {some(filters)}"
        what = f"the task has no way {chosen!r} to read answers"
        raise FinetuneError(what, where=f"{WHERE}.answer_filter", fix=fix)
    return metric, chosen


def _set_shots(section: LmEvalTask, engine: Any, docs: Sequence[Any]) -> tuple[str, ...]:
    """Settle how many examples stand before a question; none of them is ever an item that is asked.

    Raises:
        FinetuneError: examples are wanted, and there is no split that they come from, or too few rows in it.
    """
    shots = section.shots if section.shots is not None else engine.config.num_fewshot or 0
    engine.config.num_fewshot = shots
    if not shots:
        return ()
    split, samples = engine.fewshot_cfg.split, engine.fewshot_cfg.samples
    if split is None and samples is None:
        what = f"the task says no split that its {shots} examples come from"
        raise FinetuneError(what, where=section.path or WHERE, fix="add `fewshot_split: train`, or set shots: 0")
    asked = {_asked(engine, doc) for doc in docs}
    pool = list(engine.sampler.fewshot_docs())
    kept = [doc for doc in pool if _asked(engine, doc) not in asked]
    # Where both come from one split, lm-eval draws one more, to have enough without the item itself
    needed = shots + (split is not None and split == engine.config.test_split)
    if len(kept) < needed:
        what = f"{shots} examples are wanted, and of {len(pool)} rows {len(kept)} are not asked themselves"
        raise FinetuneError(what, where=section.path or WHERE, fix="give a fewshot_split of its own, or set shots: 0")
    engine.sampler.replace_df(kept)
    if len(kept) == len(pool):
        return ()
    return (f"{len(pool) - len(kept)} of {len(pool)} rows for examples are asked themselves and were left out",)


def _asked(engine: Any, doc: Any) -> str:
    """Return what an item asks, the choices where the question is only the number of one."""
    text = engine.doc_to_text(doc)
    return text if isinstance(text, str) else json.dumps(engine.doc_to_choice(doc))


def _set_length(section: LmEvalTask, engine: Any) -> None:
    if engine.OUTPUT_TYPE != "generate_until":
        if section.max_new_tokens is not None:
            what = f"the task is answered by likelihood ({engine.OUTPUT_TYPE}), not in writing"
            raise FinetuneError(what, where=f"{WHERE}.max_new_tokens", fix="take max_new_tokens out")
        return
    wishes = engine.config.generation_kwargs
    if wishes.get("do_sample") and wishes.get("temperature", 1.0) > 0:
        raise FinetuneError("the task wants answers drawn at random", where=WHERE, fix="answers are greedy here")
    if section.max_new_tokens is not None:
        wishes["max_gen_toks"] = section.max_new_tokens


def _check_group(section: LmEvalTask, engine: Any) -> None:
    columns = list(engine.features)
    if section.group_by is not None and section.group_by not in columns:
        near = nearest(section.group_by, columns)
        fix = f"did you mean {near!r}?" if near else f"the columns are {some(columns, 12)}"
        raise FinetuneError(f"there is no column {section.group_by!r}", where=f"{WHERE}.group_by", fix=fix)


def make_requests(section: LmEvalTask, engine: Any, numbers: Sequence[int], lm: RuntimeLM) -> list[list[Any]]:
    """Let lm-eval make the requests of each item, the same for everyone who has this tokenizer and template.

    Raises:
        FinetuneError: prompts that are longer than the context.
    """
    from finetune.evaluation.lm_eval.engine import quiet

    engine.set_fewshot_seed(section.seed)
    with quiet():
        engine.build_all_requests(
            samples=list(numbers),
            apply_chat_template=section.chat_template,
            fewshot_as_multiturn=section.chat_template,
            chat_template=lm.apply_chat_template if section.chat_template else None,
            tokenizer_name=lm.tokenizer_name,
        )
    lm.names = {place: f"{engine.config.task}, item {number}" for place, number in enumerate(numbers)}
    lm.require_room(engine.instances)
    found: list[list[Any]] = [[] for _ in numbers]
    for request in engine.instances:
        found[request.doc_id].append(request)
    return found


def _item(section: LmEvalTask, engine: Any, number: int, doc: Any, requests: Sequence[Any]) -> Item:
    group = doc.get(section.group_by) if section.group_by is not None else None
    return Item(
        id=str(number),
        reference=_reference(engine, doc),
        prompt_text=str(requests[0].args[0]) if engine.OUTPUT_TYPE != "loglikelihood_rolling" else "",
        group=None if group is None else str(group),
        asked_hash=hash_of([doc, engine.config.num_fewshot, section.seed]),
    )


def _reference(engine: Any, doc: Any) -> str:
    target = engine.doc_to_target(doc)
    if engine.OUTPUT_TYPE == "multiple_choice":
        golds = golds_of(engine, doc)
        return " / ".join(engine.doc_to_choice(doc)[gold] for gold in golds)
    return " / ".join(map(str, target)) if isinstance(target, (list, tuple)) else str(target)


def golds_of(engine: Any, doc: Any) -> list[int]:
    """Return the numbers of the right choices."""
    gold = engine.doc_to_text(doc) if engine.multiple_input else engine.doc_to_target(doc)
    choices = engine.doc_to_choice(doc)
    given = gold if isinstance(gold, (list, tuple)) else [gold]
    return [one if isinstance(one, int) else choices.index(one) for one in given]


def hash_of(value: Any) -> str:
    """Return the SHA-256 of a value as JSON."""
    said = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _scorer(engine: Any, metric: str, answer_filter: str) -> Scorer:
    """Return what the verdict is called and how its figures are to be compared."""

    def judge(answer: str, reference: str) -> Score:
        raise ValueError(f"{metric} is judged by lm-eval")

    kind, rolling = engine.OUTPUT_TYPE, engine.OUTPUT_TYPE == "loglikelihood_rolling"
    ways = "" if len(engine._filters) < 2 else f" ({answer_filter})"
    binary = metric in _BINARY
    return Scorer(
        metric + ways,
        binary,
        bool(engine.higher_is_better().get(metric, True)),
        "bits per byte" if rolling else "share right" if binary else f"mean {metric}",
        judge,
        f"lm-eval's {metric}{ways}",
        needs_likelihood=kind != "generate_until",
        of_choices=kind == "multiple_choice",
        highest=math.inf if rolling else 1.0,
    )
