"""A task that a recipe describes as data, to the items that every contestant is asked: `read_task(section, ...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.data.asking import ask_all
from finetune.data.chat.encoder import ChatEncoder
from finetune.data.item_choices import CHOICES, same_for_all
from finetune.data.mixtures import bad_row_problems
from finetune.data.rows import Example, Rejected
from finetune.data.shots import Shots, question_key
from finetune.data.splits import sample
from finetune.data.store import View
from finetune.data.task_rows import TaskRows, Where, read_task_rows, task_section
from finetune.data.tokenising.encoding import Encoding
from finetune.data.tokenising.tokenised import TestItem, held_out
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import Recipe, SampleSection
from finetune.recipe.tasks import DataTask, task_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskItems:
    """A task ready to be asked.

    Attributes:
        name: what verdicts call it.
        items: what is asked, in the order of the files.
        train_references: the answers of the pool that examples come from, for the trivial baseline; none without one.
        labels: the classes of classification data.
        raw_text: the items are text without question and answer.
        stop: tokens that end an answer.
        normalised: how the likeliest choice is found, by its log-likelihood or by that of each byte; None where answers
            are written.
        shots: the rows that stand before each question.
        files: SHA-256 of each file's content.
        dropped: items that were left out, with the reason.
        notes: what a person ought to know of the items.
    """

    name: str
    items: tuple[TestItem, ...]
    train_references: Sequence[str]
    labels: tuple[str, ...] | None
    raw_text: bool
    stop: tuple[int, ...]
    normalised: bool | None
    shots: tuple[Example, ...]
    files: Mapping[str, str]
    dropped: tuple[Rejected, ...]
    notes: tuple[Problem, ...]


def read_task(
    section: DataTask, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, *, context_length: int | None
) -> TaskItems:
    """Read the items of a task and encode them as contestants are asked them.

    Args:
        section: one of the recipe's `evaluate.tasks`; its paths are absolute.
        recipe: the recipe.
        tokenizer: of the base model, with its chat template.
        context_length: longest text the model takes, in tokens; None where it does not say.

    Raises:
        FinetuneError: unreadable files, unknown format, settings that contradict, no items, too few examples; and with
            `on_bad_row: error` every item that cannot be read, asked within the context or judged.
    """
    where = _where(section, recipe)
    read = read_task_rows(section, recipe, where)
    encoder = None if read.raw else ChatEncoder(tokenizer)
    shots = _shots(read, section, where)
    drawn = sample(read.items, SampleSection(rows=section.max_items, seed=section.seed), where=where("max_items"))
    refused: list[Rejected] = []
    if encoder is None:
        longest = min(recipe.data.max_length, context_length or recipe.data.max_length)
        items = _raw_items(drawn, section, tokenizer, longest, where)
    else:
        items, refused = ask_all(
            drawn, encoder, shots, context_length=context_length, max_new_tokens=section.max_new_tokens
        )
    rejected = [*read.rejected, *refused]
    _require(section, items, rejected, where)
    normalised = _normalised(section, where)
    return TaskItems(
        name=task_name(section),
        items=tuple(items),
        train_references=View(read.pool, None, _reference),
        labels=read.labels,
        raw_text=read.raw,
        stop=encoder.stop_token_ids if encoder else (int(tokenizer.eos_token_id),),
        normalised=normalised,
        shots=shots.examples,
        files=read.files,
        dropped=(*read.aside, *rejected),
        notes=(*read.notes, *_notes(read, items, rejected, shots, normalised, where)),
    )


def _where(section: DataTask, recipe: Recipe) -> Where:
    """Return what says where a setting of the task was written."""
    number = next((number for number, one in enumerate(recipe.evaluate.tasks) if one is section), None)
    return lambda key: recipe.where("evaluate.tasks" if number is None else f"evaluate.tasks.{number}.{key}")


def _normalised(section: DataTask, where: Where) -> bool | None:
    if section.choices is None:
        return None
    if section.scorer == "auto":
        return not same_for_all(section.choices, where=where("choices"))
    return section.scorer == "likelihood_norm"


# ------------------------------------------------------------------------------------------------------------ asking


def _shots(read: TaskRows, section: DataTask, where: Where) -> Shots:
    if section.shots and not len(read.pool) and section.examples is None:
        raise FinetuneError(
            f"{section.shots} examples are asked for, and there are no rows to draw them from",
            where=where("shots"),
            fix="name a file of them: `examples: FILE`; the items themselves are never shown",
        )
    return Shots(read.pool, section.shots, section.seed, where=where("shots"))


def _raw_items(
    examples: Sequence[Example], section: DataTask, tokenizer: PreTrainedTokenizerBase, longest: int, where: Where
) -> list[TestItem]:
    """Encode raw texts, long ones in pieces as in training."""
    pieces = task_section(section, section.test).model_copy(update={"max_length": longest})
    room = Encoding(pieces, tokenizer, None, where("test"))
    return list(held_out(room.stream(examples, whole=True), None))


def _require(section: DataTask, items: Sequence[TestItem], rejected: Sequence[Rejected], where: Where) -> None:
    """Refuse a task with bad items where the recipe says so, and one with none that can be asked."""
    if rejected and (section.on_bad_row == "error" or not items):
        fix = "mend them, or set on_bad_row: drop to leave them out" if items else "mend them: no other items are left"
        raise FinetuneError.of(bad_row_problems(rejected, fix=fix))
    if not items:
        fix = "name a file or a split with rows"
        raise FinetuneError(f"the task {task_name(section)!r} has no items", where=where("test"), fix=fix)


def _notes(
    read: TaskRows,
    items: Sequence[TestItem],
    rejected: Sequence[Rejected],
    shots: Shots,
    normalised: bool | None,
    where: Where,
) -> list[Problem]:
    """Say what a person ought to know of the items beside what their files are."""
    reasons = Counter(bad.reason for bad in (*read.aside, *rejected))
    told = [
        Problem(where("on_bad_row"), f"{count:,} rows left out: {why}", "", "note") for why, count in reasons.items()
    ]
    seen = set(map(question_key, read.pool)) if shots.count else set()
    shared = sum(question_key(item.example) in seen for item in items)
    if shared:
        what = f"{shared:,} of {len(items):,} items ask what a row of the examples asks too"
        fix = (
            f"{shots.replaced:,} of them were drawn, and another row stands before that item" if shots.replaced else ""
        )
        told.append(Problem(where("examples"), what, fix, "warning"))
    begun = sum(_one_begins_another(item.example.metadata[CHOICES]) for item in items) if normalised is False else 0
    if begun:
        what = f"in {begun:,} of {len(items):,} items a choice begins another one, which can never be likelier"
        told.append(Problem(where("choices"), what, "set scorer: likelihood_norm", "warning"))
    return told


def _one_begins_another(choices: Sequence[str]) -> bool:
    return any(one != other and other.startswith(one) for one in choices for other in choices)


def _reference(example: Example) -> str:
    return example.reference
