"""Prompts and answers written as Jinja over a row's columns: `compile_templates(section.template).render(fields)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import TemplateSection

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_TEXT = 1_000_000
_GLOBALS = ("range", "dict", "namespace")


class TemplateFailed(Exception):
    """A template cannot be filled from this row: few kinds of `reason`, and the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Templates:
    """Compiled texts by name, the prompt and the completion or others; `columns` names what each reads of a row."""

    parts: dict[str, Template]
    columns: dict[str, frozenset[str]]

    def render(self, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Return prompt and completion of a row. Columns whose names are no Jinja names are under `row["..."]`.

        Raises:
            TemplateFailed: a column is missing or null where it is printed, the expression fails, or the text grows
                beyond one million characters.
        """
        return self.fill("prompt", fields), self.fill("completion", fields)

    def fill(self, part: str, fields: Mapping[str, Any]) -> str:
        """Return one text of a row; see `render`."""
        from jinja2 import TemplateError, UndefinedError

        pieces: list[str] = []
        length = 0
        try:
            for piece in self.parts[part].generate({"row": fields, **fields}):
                length += len(piece)
                if length > LONGEST_TEXT:
                    raise TemplateFailed("template failed", f"more than {LONGEST_TEXT:,} characters")
                pieces.append(piece)
        except TemplateFailed as failed:
            raise TemplateFailed(failed.reason, f"{part}: {failed.detail}") from None
        except UndefinedError as error:
            raise TemplateFailed("column missing", f"{part}: {error.message}") from None
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise TemplateFailed("template failed", f"{part}: {error}") from None
        return "".join(pieces)


def compile_templates(section: TemplateSection, *, where: str = "data") -> Templates:
    """Compile both templates; see `compile_texts`."""
    return compile_texts({"prompt": section.prompt, "completion": section.completion}, where=where)


def compile_texts(sources: Mapping[str, str], *, where: str) -> Templates:
    """Compile Jinja texts in a sandbox that can neither change values nor reach Python's internals.

    Raises:
        FinetuneError: with the syntax errors of all.
    """
    from jinja2 import TemplateSyntaxError, meta

    environment = _environment()
    parts: dict[str, Template] = {}
    columns: dict[str, frozenset[str]] = {}
    problems = []
    for part, source in sources.items():
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            parts[part] = environment.from_string(source)
        except TemplateSyntaxError as error:
            line = source.splitlines()[error.lineno - 1] if source else ""
            what = f"template: {part}, line {error.lineno}: {error.message}: {line.strip()!r}"
            problems.append(Problem(where, what, "write columns as {{ column }}"))
        else:
            columns[part] = frozenset(used - {"row", *_GLOBALS})
    if problems:
        raise FinetuneError.of(problems)
    return Templates(parts, columns)


def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The text goes to a model, not into HTML: escaping would alter it.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_printable)
    environment.filters["tojson"] = _to_json
    environment.globals = {name: environment.globals[name] for name in _GLOBALS}
    return environment


def _printable(value: Any) -> Any:
    """Refuse to print a null, which Jinja would write as the word None."""
    if value is None:
        raise TemplateFailed("column missing", "a null would be printed; write {{ column or '' }} where that is meant")
    return value


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
