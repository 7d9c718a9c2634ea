"""Templates of a task of lm-eval, rendered by us in a sandbox: `compile_template(text, columns)` for one row at a time.

lm-eval renders them as trusted code. Here they may name columns and reshape what stands in them, and nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Set
from functools import cache
from typing import TYPE_CHECKING, Any

from finetune.errors import nearest, some

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# fmt: off
_NODES = (
    "Template", "Output", "TemplateData", "Name", "Const", "Getattr", "Getitem", "Slice", "Filter", "Call", "List",
    "Tuple", "Concat", "Add", "Sub", "CondExpr", "Compare", "Operand", "And", "Or", "Not", "If", "Test", "Neg",
)
_METHODS = (
    "index", "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "replace", "split", "startswith",
    "endswith",
)
_FILTERS = ("lower", "upper", "trim", "title", "capitalize", "replace", "join", "first", "last", "length", "default")
# fmt: on

Fields = Mapping[str, Any]


class Unrenderable(Exception):
    """A row that a template does not fit; the text says why."""


class Refused(Exception):
    """A template that is none, or does more than templates may; the text says what."""


def compile_template(text: str, columns: Set[str]) -> Callable[[Fields], Any]:
    """Return what makes a row's text out of its columns.

    A template that is the name of a column gives what stands there, as it does in lm-eval. One that is a single
    `{{ expression }}` gives the text of it when called, and the value itself by `value_of`.

    Args:
        text: the template.
        columns: of the rows.

    Raises:
        Refused: it names other columns, is no Jinja, or holds statements or calls that are not allowed.
    """
    if text in columns:
        return lambda fields: _column(fields, text)
    from jinja2 import TemplateError

    template = _environment().from_string(_checked(text, columns))

    def rendered(fields: Fields) -> str:
        try:
            return str(template.render(**fields))
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise Unrenderable(str(error)) from None

    return rendered


def compile_list(text: str, columns: Set[str]) -> Callable[[Fields], Any]:
    """Return what makes a row's list, from a column, a single expression, or text that reads as a list.

    Raises:
        Refused: as `compile_template`.
    """
    whole = text.strip()
    if text not in columns and whole.startswith("{{") and whole.endswith("}}") and whole.count("{{") == 1:
        from jinja2 import TemplateError

        _checked(text, columns)
        expression = _environment().compile_expression(whole[2:-2], undefined_to_none=False)

        def value(fields: Fields) -> Any:
            try:
                return expression(**fields)
            except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
                raise Unrenderable(str(error)) from None

        return value
    rendered = compile_template(text, columns)
    return lambda fields: literal(rendered(fields))


def literal(value: Any) -> Any:
    """Read text that is written as a list; anything else stays what it is."""
    if not (isinstance(value, str) and value.startswith("[") and value.endswith("]")):
        return value
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value


def _column(fields: Fields, name: str) -> Any:
    if fields.get(name) is None:
        raise Unrenderable(f"there is no {name!r}")
    return fields[name]


def _checked(text: str, columns: Set[str]) -> str:
    """Return the template if it does nothing but name columns and reshape them."""
    from jinja2 import TemplateSyntaxError, meta, nodes

    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError as error:
        raise Refused(f"not a Jinja template: {error.message}") from None
    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if isinstance(node, nodes.Call):
            called = node.node.attr if isinstance(node.node, nodes.Getattr) else "something else"
            if called not in _METHODS:
                raise Refused(f"calls {called!r}; templates may call {some(_METHODS, 20)}")
        elif isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise Refused(f"uses the filter {node.name!r}; templates may use {some(_FILTERS, 20)}")
        elif isinstance(node, (nodes.Expr, nodes.Stmt)) and kind not in _NODES:
            raise Refused(f"does more than write columns ({kind})")
    unknown = sorted(meta.find_undeclared_variables(tree) - columns)
    if unknown:
        near = nearest(unknown[0], columns)
        told = f"did you mean {near!r}?" if near else f"the columns are {some(sorted(columns), 12)}"
        raise Refused(f"names the column {unknown[0]!r}, which no row has; {told}")
    return text


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # As lm-eval has it, so that prompts are the same; a null would be written as the word None
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_printable
    )
    environment.globals = {}
    return environment


def _printable(value: Any) -> Any:
    if value is None:
        raise ValueError("a null would be printed")
    return value
