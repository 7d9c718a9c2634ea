"""Take the number or the JSON value out of an answer, for the scorers that compare those."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_CURRENCY = "$\u20ac\u00a3\u00a5\u20b9"
_SEPARATORS = ", '_\u2019\u00a0\u202f\u2009"
_NUMBER = re.compile(
    # Not inside a word (H2O) or a version (1.2.3), but straight after a currency code (USD500).
    r"(?:(?<!\w)(?<!\d\.)|(?<=\b[A-Z]{3}))"
    rf"(?:(?:\d{{1,3}}(?P<by>[{_SEPARATORS}])\d{{3}}(?:(?P=by)\d{{3}})*(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)"
    r"(?:[eE][+-]?\d+)?"
)
# A hyphen after a word or number is a range or a subtraction.
_MINUS = re.compile(rf"(?:(?<![\w)\]])[-\u2212](?:[{_CURRENCY}]\s?)?|[{_CURRENCY}][-\u2212])$")
_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL | re.IGNORECASE)


def last_number(text: str) -> float | None:
    """The number an answer ends on, or the first one after the last `####`; None without a finite one.

    Thousands may be set apart by commas, apostrophes, underscores or spaces, always in threes. Currency and percent
    signs are units and not looked at. A decimal comma is not known: 3,5 is read as 3 and 5.
    """
    _, marker, tail = text.rpartition("####")
    found = list(_NUMBER.finditer(tail))
    if not found:
        return None
    match = found[0 if marker else -1]
    value = float(re.sub(f"[{_SEPARATORS}]", "", match.group()))
    negative = _MINUS.search(tail[max(0, match.start() - 4) : match.start()])
    return (-value if negative else value) if math.isfinite(value) else None


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole text is, or None. NaN and Infinity are not JSON."""
    try:
        value = parse_value(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def parse_value(text: str) -> Any:
    """The JSON value that the whole text is. NaN and Infinity are not JSON.

    Raises:
        ValueError: It is no JSON, or nested too deep to be read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def without_fence(answer: str) -> tuple[str, bool]:
    """The text inside a code fence that surrounds the whole answer, and whether there was one."""
    match = _FENCE.fullmatch(answer)
    return (match.group(1), True) if match else (answer, False)
