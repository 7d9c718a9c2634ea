"""Find out from its columns how a corpus reads, and say why: `recognise(source.rows, recipe.data)`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune.data.benchmarks import Benchmark
from finetune.data.formats.choices import decide_answers
from finetune.data.formats.fitting import ROLES, fit_formats
from finetune.data.formats.labelled import delimiter_in, several_labels_in
from finetune.data.formats.row_templates import compile_templates
from finetune.data.formats.survey import Fit, Survey, listed, survey_columns
from finetune.data.rows import Row
from finetune.errors import FinetuneError, Problem, nearest
from finetune.recipe.schema import DataSection

_NEEDS = {
    "messages": "a column of turns with 'role' and 'content'",
    "sharegpt": "a column of turns with 'from' and 'value'",
    "preference": "a pair such as 'chosen' and 'rejected', with 'prompt' or as whole conversations",
    "kto": "'prompt', 'completion' and a 'label' of true and false",
    "alpaca": "columns 'instruction' and 'output'",
    "multiple_choice": "a question, choices as a list 'choices' or as columns such as A to D, and an answer",
    "qa": "'question', 'context' and 'answer'",
    "prompt_completion": "a pair such as 'prompt' and 'completion' or 'question' and 'answer'",
    "tags": "lists 'tokens' and 'tags' of equal length, tagged O, B-NAME and I-NAME",
    "multi_label": "a text column and a column of lists of labels, or of labels divided by '|', ';' or ','",
    "classification": "a text column and a label column whose short values repeat",
    "text": "a column 'text', 'content' or 'document' and no other column of texts",
    "completion": "a column 'completion', 'response' or 'output' and no prompt",
}
RAW_FORMATS = ("text", "completion")
"""Formats of texts without a question, which are learned whole."""

_INSTRUCTED = ("classification", "multi_label", "multiple_choice", "tags")
_SAMPLE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """How the rows read. `columns` maps role to column; `passed_over` says of each other format why it does not fit.

    `decided` holds what was decided over all rows: `answer_is` of multiple choice, `delimiter` of several labels.
    `benchmark` is set where the rows are those of one; `format` is then its name.
    """

    format: str
    columns: dict[str, str]
    why: str
    passed_over: dict[str, str] = field(default_factory=dict)
    templated: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[Problem, ...] = ()
    decided: dict[str, str] = field(default_factory=dict)
    benchmark: Benchmark | None = None


def recognise_benchmark(
    benchmark: Benchmark, why: str, notes: Sequence[Problem], section: DataSection, where: str
) -> Recognition:
    """Say that rows are those of a benchmark, and which of their fields are kept from the model.

    Args:
        benchmark: the benchmark that was found.
        why: by what it was found.
        notes: what was found out about its files.
        section: the recipe's `data`.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: the recipe says how the rows read, which the benchmark does itself.
    """
    inert = [
        Problem(where, f"`{name}` does nothing in format {benchmark.name!r}: the benchmark has its own", "remove it")
        for name, said in (
            ("columns", section.columns),
            ("template", section.template),
            ("instruction", section.instruction),
            ("answer_is", section.answer_is != "auto"),
        )
        if said
    ]
    if inert:
        raise FinetuneError.of(inert)
    told = []
    if benchmark.leak_fields:
        fields = ", ".join(map(repr, benchmark.leak_fields))
        what = f"fields of {benchmark.name} that tell the answer are left out: {fields}"
        told.append(Problem(where, what, severity="note"))
    given = "format given in the recipe; " if section.format != "auto" else ""
    return Recognition(format=benchmark.name, columns={}, why=given + why, notes=(*notes, *told), benchmark=benchmark)


def recognise(rows: Sequence[Row], section: DataSection, *, where: str = "data") -> Recognition:
    """Say which format the rows are in and which column plays which role.

    What the recipe says wins: `format`, `columns`, `template`. The rest is found from the names and contents of the
    columns; of more than 20,000 rows the first 1,000 and a fixed random draw are looked at.

    Args:
        rows: training rows as read.
        section: the recipe's `data`.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: the recipe names roles or columns that do not exist, several formats fit, or none does; the
            answers of multiple choice can be read in several ways.
    """
    if not rows:
        raise FinetuneError("no row could be read", where=where)
    looked_at = _sample(rows)
    survey = survey_columns(looked_at)
    wanted = "template" if section.template is not None and section.format == "auto" else section.format
    problems = _wrong_names(section, wanted, survey, where)
    if wanted == "template":
        problems += _template_problems(section, survey, where)
    if problems:
        raise FinetuneError.of(problems)
    outcomes = fit_formats(survey, section.columns, wanted)
    fits = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Fit)}
    reasons = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)}
    name = _choose(fits, reasons, survey, wanted, where)
    fit = fits[name]
    inert = _inert(section, name, where)
    if inert:
        raise FinetuneError.of(inert)
    over = f"over {len(looked_at):,} rows" if len(looked_at) == len(rows) else f"over a draw of {len(looked_at):,} rows"
    decided, notes = _decide(rows, name, fit, section, survey, where)
    templated = _template_columns(section)
    used = set(fit.columns.values()) | templated
    return Recognition(
        format=name,
        columns=fit.columns,
        why=("format given in the recipe; " if section.format != "auto" else "") + fit.why + f" {over}",
        passed_over=reasons | {other: f"'{name}' fits better" for other in fits if other != name},
        templated=tuple(sorted(templated)),
        unused=tuple(column for column in survey if column not in used),
        notes=tuple(notes),
        decided=decided,
    )


def _decide(
    rows: Sequence[Row], name: str, fit: Fit, section: DataSection, survey: Survey, where: str
) -> tuple[dict[str, str], list[Problem]]:
    """Decide over all rows what a format leaves open, and say it."""
    if name == "multiple_choice":
        kind, said = decide_answers(rows, fit.columns, section.answer_is, where)
        return {"answer_is": kind}, [Problem(where, said, severity="note")]
    if name == "multi_label":
        column = survey[fit.columns["labels"]]
        delimiter = "" if column.lists else delimiter_in(column)
        return {"delimiter": delimiter}, _look_alikes(several_labels_in(rows, column.name, delimiter), where)
    if "label" in fit.columns and name != "kto":
        return {}, _look_alikes(survey[fit.columns["label"]].values, where)
    return {}, []


def missing_column(name: str, columns: Iterable[str], *, what: str, where: str) -> Problem:
    """Report that `what` names a column that no row has, with the nearest one."""
    columns = list(columns)
    near = nearest(name, columns)
    fix = (f"did you mean {near!r}? " if near else "") + f"the columns are {listed(columns)}"
    return Problem(where, f"{what} names column {name!r}, which no row has", fix)


def _sample(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= _SAMPLE:
        return rows
    draw = random.Random(0)  # noqa: S311  (a fixed draw, nothing secret)
    later = sorted(draw.sample(range(1000, len(rows)), _SAMPLE - 1000))
    return [*rows[:1000], *(rows[index] for index in later)]


def _wrong_names(section: DataSection, wanted: str, survey: Survey, where: str) -> list[Problem]:
    of = ROLES if wanted == "auto" else {wanted: ROLES[wanted]}
    roles = list(dict.fromkeys(role for required, optional in of.values() for role in required + optional))
    problems = []
    for role, column in section.columns.items():
        if role not in roles:
            near = nearest(role, roles)
            owner = "the formats" if wanted == "auto" else f"format {wanted!r}"
            fix = (f"did you mean {near!r}? " if near else "") + f"roles of {owner}: {', '.join(roles)}"
            problems.append(Problem(where, f"unknown role {role!r} in columns", fix))
        if column not in survey:
            problems.append(missing_column(column, survey, what=f"columns: {role}", where=where))
    group = section.split.group_by
    if group is not None and group not in survey:
        problems.append(missing_column(group, survey, what="split: group_by", where=where))
    return problems


def _template_problems(section: DataSection, survey: Survey, where: str) -> list[Problem]:
    if section.template is None:
        fix = "add  template: {prompt: '...', completion: '...'}  under data"
        return [Problem(where, "format 'template' needs a template", fix)]
    templates = compile_templates(section.template, where=where)
    return [
        missing_column(name, survey, what=f"template: {part}", where=where)
        for part, names in templates.columns.items()
        for name in sorted(names)
        if name not in survey
    ]


def _template_columns(section: DataSection) -> set[str]:
    if section.template is None:
        return set()
    return set().union(*compile_templates(section.template).columns.values())


def _choose(fits: Mapping[str, Fit], reasons: Mapping[str, str], survey: Survey, wanted: str, where: str) -> str:
    if not fits:
        needs = "\n".join(
            f"      {name}: {reason} (needs {_NEEDS[name]})"
            for name, reason in reasons.items()
            if wanted in ("auto", name)
        )
        title = "no format fits" if wanted == "auto" else f"format {wanted!r} does not fit"
        raise FinetuneError(
            f"{title} the columns {listed(survey)}\n{needs}", where=where, fix=_example_mapping(survey, wanted)
        )
    chosen = next(iter(fits))
    explained = _told(fits[chosen])
    for other in fits:
        if other not in (chosen, *RAW_FORMATS) and not _told(fits[other]) <= explained:
            raise FinetuneError(
                f"the columns read as {chosen!r} ({fits[chosen].why}) and as {other!r} ({fits[other].why})",
                where=where,
                fix=f"write `format: {chosen}` or `format: {other}` under data",
            )
    return chosen


def _told(fit: Fit) -> set[str]:
    """Return the columns that a format reads content from."""
    return {column for role, column in fit.columns.items() if role not in ("id", "system", "tools")}


def _example_mapping(survey: Survey, wanted: str) -> str:
    long = sorted((column for column in survey.values() if column.texts), key=lambda column: -column.mean_length)[:2]
    names = [*(name for name, column in survey.items() if column in long), "...", "..."]
    name = "prompt_completion" if wanted in ("auto", "template") else wanted
    roles = zip(ROLES[name][0], names, strict=False)
    mapping = ", ".join(f"{role}: {column}" for role, column in roles)
    others = "" if wanted != "auto" else "; or write the prompt and the answer yourself with `template:`"
    return f"say which column is what, e.g. `format: {name}` and `columns: {{{mapping}}}` under data{others}"


def _inert(section: DataSection, name: str, where: str) -> list[Problem]:
    """Settings of the recipe that would do nothing in this format."""
    problems = []
    if section.system is not None and name in RAW_FORMATS:
        problems.append(Problem(where, f"`system` does nothing in format {name!r}", "remove it"))
    if section.instruction is not None and name not in _INSTRUCTED:
        problems.append(Problem(where, f"`instruction` does nothing in format {name!r}", "remove it"))
    if section.answer_is != "auto" and name != "multiple_choice":
        problems.append(Problem(where, f"`answer_is` does nothing in format {name!r}", "remove it"))
    if section.template is not None and name != "template":
        problems.append(Problem(where, f"`template` does nothing in format {name!r}", "write `format: template`"))
    return problems


def _look_alikes(values: Iterable[str], where: str) -> list[Problem]:
    by_folded: dict[str, list[str]] = {}
    for value in sorted(values):
        by_folded.setdefault(" ".join(value.casefold().split()), []).append(value)
    return [
        Problem(
            where,
            f"labels {' and '.join(map(repr, values))} differ only in case or white space",
            "they count as different classes; write them alike if they are one",
            "warning",
        )
        for values in by_folded.values()
        if len(values) > 1
    ]
