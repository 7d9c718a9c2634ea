"""HTML pages from the templates beside this module: `render("report.html.jinja", ...)`; every value is escaped."""

from __future__ import annotations

import base64
from importlib import resources
from typing import Any

from finetune.evaluation.wording import percent


def render(template: str, **values: Any) -> str:
    """Fill a template.

    Args:
        template: file name beside this module; the templates it extends and imports are there too.
        values: what the template shows; a name it asks for and does not get is an error.

    Returns:
        HTML; everything in `values` is escaped, and nothing is loaded from outside.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source)
    )
    environment.filters["percent"] = percent
    return environment.get_template(template).render(**values)


def picture(light: str, dark: str) -> dict[str, str]:
    """Return a plot for a light and for a dark page, as addresses that hold the SVG itself."""
    return {name: _data_uri(svg) for name, svg in (("light", light), ("dark", dark))}


def _source(name: str) -> str:
    return resources.files("finetune.evaluation.reporting").joinpath(name).read_text(encoding="utf-8")


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"
