"""Find out from its columns how a corpus reads, and say why: `recognise(source.rows, recipe.data)`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune.data.fitting import ROLES, Column, Fit, Survey, fit_formats, listed, survey_columns
from finetune.data.row_templates import compile_templates
from finetune.data.rows import Row
from finetune.errors import FinetuneError, Problem, nearest
from finetune.recipe.schema import DataSection

_NEEDS = {
    "messages": "a column of turns with 'role' and 'content'",
    "sharegpt": "a column of turns with 'from' and 'value'",
    "alpaca": "columns 'instruction' and 'output'",
    "prompt_completion": "a pair such as 'prompt' and 'completion' or 'question' and 'answer'",
    "classification": "a text column and a label column whose short values repeat",
    "text": "a column 'text', 'content' or 'document' and no other column of texts",
}
_SAMPLE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """How the rows read. `columns` maps role to column; `passed_over` says of each other format why it does not fit."""

    format: str
    columns: dict[str, str]
    why: str
    passed_over: dict[str, str] = field(default_factory=dict)
    templated: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[Problem, ...] = ()


def recognise(rows: Sequence[Row], section: DataSection, *, where: str = "data") -> Recognition:
    """Say which format the rows are in and which column plays which role.

    What the recipe says wins: `format`, `columns`, `template`. The rest is found from the names and contents of the
    columns; of more than 20,000 rows the first 1,000 and a fixed random draw are looked at.

    Args:
        rows: training rows as read.
        section: the recipe's `data`.
        where: the recipe's position, put before problems.

    Raises:
        FinetuneError: the recipe names roles or columns that do not exist, several formats fit, or none does.
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
    templated = _template_columns(section)
    used = set(fit.columns.values()) | templated
    return Recognition(
        format=name,
        columns=fit.columns,
        why=("format given in the recipe; " if section.format != "auto" else "") + fit.why + f" {over}",
        passed_over=reasons | {other: f"'{name}' fits better" for other in fits if other != name},
        templated=tuple(sorted(templated)),
        unused=tuple(column for column in survey if column not in used),
        notes=_look_alikes(survey[fit.columns["label"]], where) if "label" in fit.columns else (),
    )


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the name most like `name`, whatever its case, or None."""
    by_folded = {known.lower(): known for known in names}
    found = nearest(name, by_folded)
    return by_folded[found] if found else None


def missing_column(name: str, columns: Iterable[str], *, what: str, where: str) -> Problem:
    """Report that `what` names a column that no row has, with the nearest one."""
    columns = list(columns)
    near = nearest_name(name, columns)
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
    for other in fits:
        apart = not set(fits[chosen].columns.values()) & set(fits[other].columns.values())
        if other != chosen and other != "text" and (apart or other == "classification"):
            raise FinetuneError(
                f"the columns read as {chosen!r} ({fits[chosen].why}) and as {other!r} ({fits[other].why})",
                where=where,
                fix=f"write `format: {chosen}` or `format: {other}` under data",
            )
    return chosen


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
    if section.system is not None and name == "text":
        problems.append(Problem(where, "`system` does nothing in format 'text'", "remove it"))
    if section.instruction is not None and name != "classification":
        problems.append(Problem(where, f"`instruction` does nothing in format {name!r}", "remove it"))
    if section.template is not None and name != "template":
        problems.append(Problem(where, f"`template` does nothing in format {name!r}", "write `format: template`"))
    return problems


def _look_alikes(column: Column, where: str) -> tuple[Problem, ...]:
    by_folded: dict[str, list[str]] = {}
    for value in sorted(column.values):
        by_folded.setdefault(" ".join(value.casefold().split()), []).append(value)
    return tuple(
        Problem(
            where,
            f"labels {' and '.join(map(repr, values))} differ only in case or white space",
            "they count as different classes; write them alike if they are one",
            "warning",
        )
        for values in by_folded.values()
        if len(values) > 1
    )
