"""Which formats the columns of a corpus fit, and why the others do not: `fit_formats(survey_columns(rows), ...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.data.rows import Row

ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "template": ((), ("label", "id")),
    "messages": (("messages",), ("system", "id")),
    "sharegpt": (("conversations",), ("system", "id")),
    "alpaca": (("instruction", "output"), ("input", "system", "id")),
    "prompt_completion": (("prompt", "completion"), ("system", "id")),
    "classification": (("text", "label"), ("id",)),
    "text": (("text",), ("id",)),
}
"""Format -> roles it must have, roles it may have; in the order in which `auto` prefers them."""

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("input", "output"),
    ("query", "response"),
    ("query", "answer"),
    ("instruction", "response"),
    ("instruction", "completion"),
    ("source", "target"),
    ("user", "assistant"),
)
_CLASSIFIED_TEXTS = (
    *("text", "sentence", "utterance", "ticket", "body", "message", "review", "comment", "query", "tweet"),
    *("description", "content", "document", "post", "email", "headline", "title", "clause", "statement"),
)
_LABELS = ("label_text", "label", "category", "intent", "class", "queue", "sentiment")
_WEAK_LABELS = ("labels", "topic", "tag", "type", "target", "department", "answer")
_RAW_TEXTS = ("text", "content", "document")
_SHORT = 100


@dataclass(slots=True)
class Column:
    """What the sampled rows hold under one name."""

    name: str
    filled: int = 0
    texts: int = 0
    characters: int = 0
    longest: int = 0
    values: set[str] = field(default_factory=set)
    shapes: Counter[str] = field(default_factory=Counter)

    def see(self, value: Any) -> None:
        if value is None:
            return
        self.filled += 1
        if isinstance(value, list):
            self.shapes[_shape(value)] += 1
        elif isinstance(value, (str, int, float)):
            text = str(value)
            self.texts += isinstance(value, str)
            self.characters += len(text)
            self.longest = max(self.longest, len(text))
            self.values.add(text if len(text) <= _SHORT else text[:_SHORT])

    @property
    def turns(self) -> str:
        """The format whose turns nearly all values are, or an empty text."""
        shape, count = self.shapes.most_common(1)[0] if self.shapes else ("", 0)
        return shape if count * 2 > self.filled else ""

    @property
    def mean_length(self) -> float:
        return self.characters / self.filled if self.filled else 0.0


Survey = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Fit:
    """A format that fits: role -> column, and why."""

    columns: dict[str, str]
    why: str


def survey_columns(rows: Sequence[Row]) -> dict[str, Column]:
    """Sum up what the rows hold under each name, in order of first appearance."""
    survey: dict[str, Column] = {}
    for row in rows:
        for name, value in row.fields.items():
            if name not in survey:
                survey[name] = Column(name)
            survey[name].see(value)
    return survey


def _shape(value: list[Any]) -> str:
    if not value or not all(isinstance(turn, dict) for turn in value):
        return ""
    if all("role" in turn for turn in value):
        return "messages"
    return "sharegpt" if all("from" in turn for turn in value) else ""


def fit_formats(survey: Survey, given: Mapping[str, str], wanted: str) -> dict[str, Fit | str]:
    """Try every format in order of preference; a text in place of a Fit says why it does not fit.

    Args:
        survey: the columns.
        given: role -> column as the recipe says; it wins over names and contents.
        wanted: a format's name, or `auto`.
    """
    outcomes: dict[str, Fit | str] = {}
    for name, (required, optional) in ROLES.items():
        if name == "template" and wanted != "template":
            continue
        strange = [role for role in given if role not in required + optional]
        if wanted not in ("auto", name):
            outcomes[name] = "another format is given"
        elif strange:
            outcomes[name] = f"it has no role {strange[0]!r}"
        else:
            outcomes[name] = _FITTERS[name](survey, given, wanted == name)
    return outcomes


def listed(names: Iterable[str]) -> str:
    """Name at most 30 columns for a message."""
    names = list(names)
    rest = f" and {len(names) - 30} more" if len(names) > 30 else ""
    return ", ".join(map(repr, names[:30])) + rest


def _named(survey: Survey, names: Iterable[str]) -> list[str]:
    """Return the columns that bear one of the usual names, in the order of these names."""
    by_folded: dict[str, str] = {}
    for column in survey:
        by_folded.setdefault(column.strip().lower().replace("-", "_").replace(" ", "_"), column)
    return [by_folded[name] for name in names if name in by_folded]


def _fit_template(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    return Fit(dict(given), "prompt and answer are written by the recipe's template")


def _fit_turns(kind: Literal["messages", "sharegpt"]) -> Callable[[Survey, Mapping[str, str], bool], Fit | str]:
    role = ROLES[kind][0][0]
    keys = "role and content" if kind == "messages" else "from and value"

    def fit(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
        halves = _named(survey, ("prompt", "completion"))
        found = [name for name, column in survey.items() if column.turns == kind and name not in halves]
        found = [given[role]] if role in given else found
        if role in given and not asked and survey[given[role]].turns != kind:
            return f"column {given[role]!r} does not hold turns with {keys}"
        if not found:
            return f"no column holds turns with {keys}"
        if len(found) > 1:
            found = [name for name in found if name == role] or found
        if len(found) > 1:
            return f"several columns hold turns: {listed(found)}"
        return Fit(_system(survey) | dict(given) | {role: found[0]}, f"column {found[0]!r} holds turns with {keys}")

    return fit


def _fit_alpaca(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    columns = {role: name for role in ("instruction", "input", "output", "system") for name in _named(survey, [role])}
    columns |= given
    missing = [role for role in ("instruction", "output") if role not in columns]
    if missing:
        return f"no column {missing[0]!r}"
    return Fit(columns, _columns_words(columns[role] for role in ("instruction", "input", "output") if role in columns))


def _fit_pair(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    prompts = [given["prompt"]] if "prompt" in given else []
    completions = [given["completion"]] if "completion" in given else []
    pairs = {
        (prompt, completion)
        for first, second in _PAIRS
        for prompt in prompts or _named(survey, [first])
        for completion in completions or _named(survey, [second])
        if prompt != completion
    }
    if not pairs:
        return "no columns that are usually named so"
    if len(pairs) > 1:
        return "several pairs: " + "; ".join(f"{first!r} and {second!r}" for first, second in sorted(pairs))
    prompt, completion = pairs.pop()
    marks = _named(survey, ("label",))
    if not asked and marks and survey[marks[0]].values == {"True", "False"}:
        return f"column {marks[0]!r} marks good and bad answers; write the format to learn all of them"
    columns = _system(survey) | dict(given) | {"prompt": prompt, "completion": completion}
    return Fit(columns, _columns_words([prompt, completion]))


def _fit_classification(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    texts = [given["text"]] if "text" in given else _named(survey, _CLASSIFIED_TEXTS)
    taken = given.get("label")
    texts = [name for name in texts if name != taken]
    labels = [taken] if taken else _named(survey, _LABELS) or _named(survey, _WEAK_LABELS)
    labels = [name for name in labels if name not in texts]
    if not texts or not labels:
        return f"no column that is usually named as a {'text' if not texts else 'label'}"
    text = texts[0] if len(texts) == 1 or texts[0].lower() == "text" else None
    label = labels[0] if len(labels) == 1 or labels[0].lower() in ("label_text", "label") else None
    if text is None or label is None:
        return f"several columns may be the {'text' if text is None else 'label'}: {listed(labels if text else texts)}"
    column = survey[label]
    distinct = len(column.values)
    if not asked:
        repeated = distinct * 2 <= column.filled if column.filled >= 20 else distinct < column.filled
        if column.longest > _SHORT:
            return f"values of {label!r} are too long for labels (up to {column.longest:,} characters)"
        if distinct < 2 or not repeated:
            return f"values of {label!r} do not repeat as labels do ({distinct:,} distinct in {column.filled:,} rows)"
    columns = dict(given) | {"text": text, "label": label}
    return Fit(columns, f"{_columns_words([text, label])}; {distinct:,} distinct short values in {label!r}")


def _fit_text(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    found = [given["text"]] if "text" in given else _named(survey, _RAW_TEXTS)
    if not found:
        return "no column that is usually named so"
    if not asked and "text" not in given:
        answers = _named(survey, [*_LABELS, *(second for _, second in _PAIRS)])
        long = [name for name, column in survey.items() if column.texts and column.mean_length > _SHORT]
        others = [name for name in dict.fromkeys([*answers, *long, *found]) if name != found[0]]
        if others:
            return f"beside {found[0]!r}, column {others[0]!r} may be what is to be learned"
    return Fit(dict(given) | {"text": found[0]}, f"column {found[0]!r} holds raw text")


def _system(survey: Survey) -> dict[str, str]:
    names = _named(survey, ("system", "system_prompt"))
    return {"system": names[0]} if names else {}


def _columns_words(names: Iterable[str]) -> str:
    *first, last = map(repr, names)
    return f"columns {', '.join(first)} and {last}"


_FITTERS: dict[str, Callable[[Survey, Mapping[str, str], bool], Fit | str]] = {
    "template": _fit_template,
    "messages": _fit_turns("messages"),
    "sharegpt": _fit_turns("sharegpt"),
    "alpaca": _fit_alpaca,
    "prompt_completion": _fit_pair,
    "classification": _fit_classification,
    "text": _fit_text,
}
