"""Pages from templates: values are escaped, and what a template asks for has to be given."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from finetune.evaluation.reporting.pages import picture, render
from finetune.evaluation.reporting.panels import Panel


def test_values_are_escaped() -> None:
    table = Panel(title="<t>", head=("<h>",), rows=(("<script>x</script>",),))
    page = render("fragment.html.jinja", sentences=["a < b"], tables=[table])
    assert "<script" not in page
    assert "a &lt; b" in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<p>&lt;t&gt;</p>" in page


def test_what_is_missing_is_a_bug() -> None:
    with pytest.raises(UndefinedError, match="'tables' is undefined"):
        render("fragment.html.jinja", sentences=[])


def test_pictures_are_inside_the_page() -> None:
    assert picture("<svg/>", "<svg></svg>") == {
        "light": "data:image/svg+xml;base64,PHN2Zy8+",
        "dark": "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
    }
