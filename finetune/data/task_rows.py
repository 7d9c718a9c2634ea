"""The rows of a task, understood as its recipe section says, before any tokenizer has seen them: `read_task_rows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.data.formats.examples import Change
from finetune.data.formats.recognise import RAW_FORMATS
from finetune.data.item_choices import decide, offering, same_for_all, settle
from finetune.data.mixtures import Part, read_source
from finetune.data.rows import Content, Example, Message, Rejected
from finetune.data.store import Store
from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import DataSection, Recipe, SplitSection
from finetune.recipe.tasks import DataTask, task_name

Where = Callable[[str], str]
"""Says where a setting of the task was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRows:
    """What the files of a task hold: its items, and the pool that examples are drawn from.

    `rejected` are rows that cannot be used, `aside` those that were marked as bad answers.
    """

    items: Sequence[Example]
    pool: Sequence[Example]
    format: str
    labels: tuple[str, ...] | None
    files: Mapping[str, str]
    rejected: list[Rejected]
    aside: list[Rejected]
    notes: list[Problem]

    @property
    def raw(self) -> bool:
        return self.format in RAW_FORMATS


def read_task_rows(section: DataTask, recipe: Recipe, where: Where) -> TaskRows:
    """Read the items of a task and the pool of its examples; needs no model.

    Args:
        section: the task; its paths are absolute.
        recipe: the recipe, for its system prompt.
        where: says where a setting of the task was written.

    Raises:
        FinetuneError: files that cannot be read or recognised, settings that do nothing, answers of choices that can be
            read in several ways. Single rows that are bad are in the result.
    """
    test, further = _parts(section, where, _change(section, recipe, where))
    parts = [test, *further]
    _check_reading(section, parts, where)
    split, rows = _official(test)
    items, aside = _good(rows)
    learned = _trainable(further[0]) if further else test.examples.get("train", ()) if split != "train" else ()
    notes = [note for part in parts for note in part.recognition.notes]
    if split and split != "test":
        what = f"the items are the {len(rows):,} rows of the official {split} split: there is no test split"
        notes.append(Problem(where("test"), what, severity="note"))
    read = TaskRows(
        items=items,
        pool=_good(learned)[0],
        format=test.recognition.format,
        labels=test.labels,
        files={path: digest for part in parts for path, digest in part.files.items()},
        rejected=[bad for part in parts for bad in part.dropped],
        aside=aside,
        notes=notes,
    )
    return read if section.choices is None else _settled(read, section, section.choices, where)


def _parts(section: DataTask, where: Where, change: Change) -> tuple[Part, list[Part]]:
    """Read the items' files and, where the recipe names them, those of the examples, which read as the items do."""
    asked = task_section(section, section.test)
    test = read_source(asked, where=where("test"), change=change)
    if section.examples is None:
        return test, []
    shown = task_section(section, section.examples)
    pool = read_source(shown, where=where("examples"), like=replace(test, labels=None), change=change)
    if test.benchmark or not test.labels or not pool.labels or set(test.labels) == set(pool.labels):
        return test, [pool]
    # The question may name the classes, and has to name the same ones in items and examples
    both = replace(test, labels=tuple(sorted({*test.labels, *pool.labels})))
    again = read_source(asked, where=where("test"), like=both, change=change)
    pool = read_source(shown, where=where("examples"), like=both, change=change)
    return replace(again, recognition=test.recognition), [pool]


def task_section(section: DataTask, path: str | tuple[str, ...]) -> DataSection:
    """Return what the task says of its rows as a recipe says it of a corpus."""
    letters = section.choices is None or section.format == "multiple_choice"
    return DataSection(
        train=path,
        format=section.format,
        columns=section.columns,
        template=section.template,
        instruction=section.instruction,
        answer_is=section.answer_is if letters else "auto",
        header=section.header,
        split=SplitSection(group_by=section.group_by),
    )


def _change(section: DataTask, recipe: Recipe, where: Where) -> Change:
    """Return what is made of a row beside what its format makes: its choices, and the system prompt."""
    system = recipe.data.system if section.system is None else section.system
    offer = offering(section.choices, where=where("choices")) if section.choices is not None else None

    def change(fields: Mapping[str, Any], content: Content) -> Content:
        if system and content.messages and content.messages[0].role != "system":
            content = replace(content, messages=(Message("system", system), *content.messages))
        return content if offer is None else offer(fields, content)

    return change


def _check_reading(section: DataTask, parts: Sequence[Part], where: Where) -> None:
    """Refuse settings that do nothing in the format that was found."""
    name = parts[0].recognition.format
    problems = []
    if name in RAW_FORMATS:
        problems = [
            Problem(where(key), f"`{key}` does nothing in format {name!r}: raw text asks no question", "remove it")
            for key, said in (
                ("shots", section.shots),
                ("examples", section.examples),
                ("choices", section.choices),
                ("system", section.system),
                ("max_new_tokens", section.max_new_tokens),
            )
            if said
        ]
    elif name == "multiple_choice" != section.format and section.choices is not None and section.answer_is != "auto":
        what = f"the rows read as multiple_choice, where `answer_is: {section.answer_is}` has to be said of the column"
        problems = [Problem(where("answer_is"), what, "write `format: multiple_choice`")]
    if section.header != "auto" and not any(part.tables for part in parts):
        what = "header has no effect: there is no CSV or TSV whose reading it would change"
        problems.append(Problem(where("header"), what, "remove it"))
    if problems:
        raise FinetuneError.of(problems)


def _official(part: Part) -> tuple[str, Sequence[Example]]:
    """Return the rows that are asked, and the official split that they are: the test, else what there is."""
    split = next((split for split in ("test", "validation", "", "train") if split in part.examples), "")
    return split, next(rows for name, rows in part.examples.items() if name == split)


def _trainable(part: Part) -> Sequence[Example]:
    """Return the rows that may be shown: all that no official split holds back."""
    return next((rows for split, rows in part.examples.items() if split in ("", "train")), _official(part)[1])


def _good(examples: Sequence[Example]) -> tuple[Sequence[Example], list[Rejected]]:
    """Set answers aside that were judged bad: no one ought to answer so."""
    bad = [example.origin for example in examples if example.desirable is False]
    if not bad:
        return examples, []
    kept = Store(example for example in examples if example.desirable is not False)
    return kept, [Rejected(origin, "marked as a bad answer", "it is no answer to be given") for origin in bad]


def _settled(read: TaskRows, section: DataTask, choices: str | tuple[str, ...], where: Where) -> TaskRows:
    """Let every answer be the text of the choice that it names."""
    wanted, notes = section.answer_is, read.notes
    if read.format == "multiple_choice":
        # Its answers were made letters, whatever the column holds
        wanted = "letter"
    elif wanted == "auto" and same_for_all(choices, where=where("choices")):
        wanted = "text"
    under = f"the task {task_name(section)!r}"
    kind, said = decide(read.items, wanted, where=where("answer_is"), under=under)
    if wanted == "auto":
        notes = [*notes, Problem(where("choices"), said, severity="note")]
    items, lost = settle(read.items, kind)
    pool, lost_too = settle(read.pool, kind)
    return replace(read, items=items, pool=pool, rejected=[*read.rejected, *lost, *lost_too], notes=notes)
