"""Texts with one label, or with several: which columns they are, and the question that is asked about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.data.formats.contents import Convert, exchange, text_of, value_of
from finetune.data.formats.conversations import RowRefused, as_text, shortened
from finetune.data.formats.survey import SHORT, Column, Fit, Survey, as_list, columns_words, listed, named
from finetune.data.rows import Content, Row
from finetune.errors import nearest
from finetune.recipe.schema import DataSection

NO_LABEL = "none"
"""The answer where a row of several possible labels has none."""

_TEXTS = (
    *("text", "sentence", "utterance", "ticket", "body", "message", "review", "comment", "query", "tweet"),
    *("description", "content", "document", "post", "email", "headline", "title", "clause", "statement"),
)
_LABELS = ("label_text", "label", "category", "intent", "class", "queue", "sentiment")
_WEAK_LABELS = ("labels", "topic", "tag", "type", "target", "department", "answer")
_SEVERAL = ("labels", "tags", "categories", "topics", "classes", "intents", "emotions", "label", "codes", "keywords")
_DELIMITERS = ("|", ";", ",")
_LISTED_LABELS = 100
_LISTED_CHARACTERS = 1000
JUDGEMENT_COLUMNS = (*_LABELS, "labels", "intents", "emotions")
"""Usual names of a column that may be what is to be learned beside a text."""


# ------------------------------------------------------------------------------------------------------------- fit


def fit_classification(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find a text and its label; see `fitting`."""
    found = _text_and_label(survey, given, "label", named(survey, _LABELS) or named(survey, _WEAK_LABELS))
    if isinstance(found, str):
        return found
    text, label = found
    column = survey[label]
    distinct = len(column.values)
    if not asked:
        if column.mostly(column.lists):
            return f"column {label!r} holds lists"
        if delimiter := delimiter_in(column):
            return f"values of {label!r} are several labels, divided by {delimiter!r}"
        if column.longest > SHORT:
            return f"values of {label!r} are too long for labels (up to {column.longest:,} characters)"
        if distinct < 2 or not _repeat(distinct, column.filled):
            return f"values of {label!r} do not repeat as labels do ({distinct:,} distinct in {column.filled:,} rows)"
    columns = dict(given) | {"text": text, "label": label}
    return Fit(columns, f"{columns_words([text, label])}; {distinct:,} distinct short values in {label!r}")


def fit_multi_label(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find a text and its labels; see `fitting`."""
    several = [name for name in named(survey, _SEVERAL) if asked or _reads_as_labels(survey[name])]
    if not several and "labels" not in given:
        return "no column holds lists of labels, or labels divided by '|', ';' or ','"
    found = _text_and_label(survey, given, "labels", several)
    if isinstance(found, str):
        return found
    text, labels = found
    column = survey[labels]
    if not asked and not _reads_as_labels(column):
        return f"column {labels!r} holds neither lists of labels nor labels divided by '|', ';' or ','"
    known = column.items if column.lists else _parts(column, delimiter_in(column))
    columns = dict(given) | {"text": text, "labels": labels}
    how = "in lists" if column.lists else f"divided by {delimiter_in(column)!r}"
    return Fit(columns, f"{columns_words([text, labels])}; {len(known):,} distinct labels {how} in {labels!r}")


def _text_and_label(survey: Survey, given: Mapping[str, str], role: str, usual: Sequence[str]) -> tuple[str, str] | str:
    """Return the columns of text and label, or why they cannot be told."""
    taken = given.get(role)
    texts = [given["text"]] if "text" in given else named(survey, _TEXTS)
    texts = [name for name in texts if name != taken]
    labels = [taken] if taken else list(usual)
    labels = [name for name in labels if name not in texts]
    if not texts or not labels:
        return f"no column that is usually named as a {'text' if not texts else 'label'}"
    text = texts[0] if len(texts) == 1 or texts[0].lower() == "text" else None
    first = labels[0].lower() in ("label_text", "label", "labels")
    label = labels[0] if len(labels) == 1 or first else None
    if text is None or label is None:
        return f"several columns may be the {'text' if text is None else 'label'}: {listed(labels if text else texts)}"
    return text, label


def _repeat(distinct: int, count: int) -> bool:
    """Tell whether so many different values among so many come again as labels do."""
    return distinct * 2 <= count if count >= 20 else 0 < distinct < count


def _reads_as_labels(column: Column) -> bool:
    if column.mostly(column.lists):
        longest = max(map(len, column.items), default=0)
        return longest <= SHORT and _repeat(len(column.items), column.held)
    return bool(delimiter_in(column))


def delimiter_in(column: Column) -> str:
    """Return the sign that divides several labels in one text, or an empty text.

    It is one that stands in the values, and whose parts are fewer than the values they make up and occur alone too: so
    `Refund, not received` beside `Lost card, or stolen` stays one label.
    """
    if not column.texts or column.longest > SHORT:
        return ""
    for sign in _DELIMITERS:
        joined = [value for value in column.values if sign in value]
        parts = _parts(column, sign)
        alone = {value.strip() for value in column.values} & parts
        if joined and len(parts) < len(column.values) and len(alone) * 2 >= len(parts):
            return sign
    return ""


def _parts(column: Column, sign: str) -> set[str]:
    found = {part.strip() for value in column.values for part in (value.split(sign) if sign else [value])}
    return found - {""}


# ------------------------------------------------------------------------------------------------------- one label


def classification_converter(
    rows: Sequence[Row], columns: Mapping[str, str], section: DataSection, labels: Sequence[str] | None
) -> Convert:
    """Ask for the class of a text.

    Args:
        rows: the rows, for the classes that occur.
        columns: role -> column.
        section: the recipe's `data`; its `instruction` replaces the question.
        labels: the classes of the training rows, for rows of a further file.
    """
    known = tuple(labels) if labels is not None else _labels_in(rows, columns["label"])
    known_set = frozenset(known)
    instruction = section.instruction if section.instruction is not None else default_instruction(known)
    before = f"{instruction}\n\n" + ("" if section.instruction is not None else "Text: ")

    def convert(fields: Mapping[str, Any]) -> Content:
        text = text_of(fields, columns["text"], empty="empty prompt")
        label = text_of(fields, columns["label"], empty="empty answer")
        if label not in known_set:
            raise _unknown(label, known, columns["label"])
        return Content(messages=exchange(before + text, label, None, section), label=label)

    return convert


def _unknown(label: str, known: Sequence[str], column: str) -> RowRefused:
    near = nearest(label, known)
    fix = f"did you mean {near!r}?" if near else ""
    return RowRefused("label not in training data", f"column {column!r} is {shortened(label)}", fix)


def _labels_in(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    found: set[str] = set()
    for row in rows:
        try:
            found.add(text_of(row.fields, column, empty="empty answer"))
        except RowRefused:
            continue  # the row itself is rejected when it is converted
    return tuple(sorted(found))


def default_instruction(labels: Sequence[str]) -> str:
    """Ask for the class of a text; name the classes where they are at most 100 and 1,000 characters together."""
    listed_labels = _joined(labels)
    if len(labels) > _LISTED_LABELS or len(listed_labels) > _LISTED_CHARACTERS:
        return "Which class does the text belong to? Answer with the class only."
    return f"Which of these classes does the text belong to?\nClasses: {listed_labels}\nAnswer with the class only."


def _joined(labels: Sequence[str]) -> str:
    return (_separator(labels)).join(labels)


def _separator(labels: Sequence[str]) -> str:
    return "; " if any("," in label for label in labels) else ", "


# -------------------------------------------------------------------------------------------------- several labels


def labels_of(fields: Mapping[str, Any], column: str, delimiter: str) -> list[str]:
    """Return the labels of one row, without repetitions, in its order.

    Raises:
        RowRefused: the column is missing, null, or holds something else than texts and numbers.
    """
    value = value_of(fields, column)
    items = as_list(value)
    what = f"column {column!r}"
    if items is None:
        text = as_text(value, what, empty="empty answer")
        items = [part.strip() for part in text.split(delimiter)] if delimiter else [text]
        items = [part for part in items if part]
    return list(dict.fromkeys(as_text(item, f"a label of {what}", empty="empty answer") for item in items))


def multi_label_converter(
    rows: Sequence[Row], columns: Mapping[str, str], section: DataSection, labels: Sequence[str] | None, delimiter: str
) -> Convert:
    """Ask for all labels of a text; `none` is the answer where it has none.

    Args:
        rows: the rows, for the labels that occur.
        columns: role -> column.
        section: the recipe's `data`; its `instruction` replaces the question.
        labels: the labels of the training rows, for rows of a further file.
        delimiter: what divides labels in one text; empty where they stand in lists.
    """
    known = tuple(labels) if labels is not None else several_labels_in(rows, columns["labels"], delimiter)
    known_set = frozenset(known)
    separator = _separator(known)
    before = _question(known, separator) + "\n\nText: " if section.instruction is None else f"{section.instruction}\n\n"

    def convert(fields: Mapping[str, Any]) -> Content:
        text = text_of(fields, columns["text"], empty="empty prompt")
        found = labels_of(fields, columns["labels"], delimiter)
        for label in found:
            if label not in known_set:
                raise _unknown(label, known, columns["labels"])
        if not found and NO_LABEL in known_set:
            raise RowRefused("empty answer", f"column {columns['labels']!r} is [], and {NO_LABEL!r} is a label")
        return Content(messages=exchange(before + text, separator.join(found) or NO_LABEL, None, section))

    return convert


def several_labels_in(rows: Sequence[Row], column: str, delimiter: str) -> tuple[str, ...]:
    """Return the labels that occur in the rows, sorted."""
    found: set[str] = set()
    for row in rows:
        try:
            found.update(labels_of(row.fields, column, delimiter))
        except RowRefused:
            continue  # the row itself is rejected when it is converted
    return tuple(sorted(found))


def _question(labels: Sequence[str], separator: str) -> str:
    names = separator.join(labels)
    how = f"Answer with the labels only, divided by '{separator.strip()}', or with '{NO_LABEL}'."
    if len(labels) > _LISTED_LABELS or len(names) > _LISTED_CHARACTERS:
        return f"Which labels does the text have? {how}"
    return f"Which of these labels does the text have?\nLabels: {names}\n{how}"
