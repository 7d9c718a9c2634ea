"""Rows made into examples as their format says: `to_examples(source.rows, recognition, recipe.data)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data.formats.choices import CHOICE_ROLES, choices_converter
from finetune.data.formats.contents import Convert
from finetune.data.formats.conversations import RowRefused, as_text
from finetune.data.formats.converters import (
    alpaca_converter,
    benchmark_converter,
    pair_converter,
    qa_converter,
    raw_converter,
    template_converter,
    turns_converter,
)
from finetune.data.formats.labelled import classification_converter, multi_label_converter, several_labels_in
from finetune.data.formats.preferences import kto_converter, preference_converter
from finetune.data.formats.recognise import RAW_FORMATS, Recognition, missing_column
from finetune.data.formats.row_templates import TemplateFailed
from finetune.data.formats.tags import entity_types, tags_converter
from finetune.data.rows import Content, Example, Origin, Rejected, Row
from finetune.data.store import Store
from finetune.errors import FinetuneError
from finetune.recipe.schema import DataSection

_METADATA_COLUMNS = 20
_METADATA_CHARACTERS = 200
_ID_COLUMNS = ("id", "uid", "_id")
_OPTIONAL = ("system", "input", "tools", *CHOICE_ROLES[2:])

Change = Callable[[Mapping[str, Any], Content], Content]
"""Makes another content of a row's fields and the one that its format makes, or raises `RowRefused`."""


def to_examples(
    rows: Sequence[Row],
    recognition: Recognition,
    section: DataSection,
    *,
    labels: Sequence[str] | None = None,
    where: str = "data",
    source: str = "",
    change: Change | None = None,
) -> tuple[Sequence[Example], list[Rejected]]:
    """Make an example of every row that can be one. Texts are kept to the byte.

    Args:
        rows: rows as read, of one corpus: ids are made unique among them.
        recognition: how the training rows read.
        section: the recipe's `data`.
        labels: for rows of a further file, the classes of the training rows; another class is rejected. None takes
            the classes of `rows` themselves.
        where: the recipe's position, put before problems.
        source: the name of the source that the examples bear.
        change: makes another content of a row's fields and the one that its format makes.

    Returns:
        examples in the order of the rows, and the rows that cannot be used with the reason.

    Raises:
        FinetuneError: a column that plays a role is missing from all rows.
    """
    present = {name for row in rows for name in row.fields}
    absent = [
        missing_column(column, present, what=f"role {role!r}", where=where)
        for role, column in recognition.columns.items()
        if column not in present and role not in _OPTIONAL
    ]
    if rows and absent:
        raise FinetuneError.of(absent)
    convert = _converter(rows, recognition, section, labels, where)
    group_by = _group_column(recognition, section, present)
    used = {*recognition.columns.values()} | {column for column in (group_by,) if column}
    examples: Store[Example] = Store()
    rejected: list[Rejected] = []
    for row, identity in zip(rows, _identities(rows, recognition.columns.get("id")), strict=True):
        try:
            content = convert(row.fields)
            content = content if change is None else change(row.fields, content)
            if isinstance(identity, RowRefused):
                raise identity
            group = as_text(row.fields.get(group_by), f"column {group_by!r}", empty="no group") if group_by else None
        except (RowRefused, TemplateFailed) as refusal:
            rejected.append(Rejected(row.origin, refusal.reason, refusal.detail, getattr(refusal, "fix", "")))
            continue
        metadata = _metadata(row.fields, used | set(recognition.templated)) | content.metadata
        examples.append(_example(identity, row, content, group, metadata, source))
    return examples, rejected


def _group_column(recognition: Recognition, section: DataSection, present: set[str]) -> str | None:
    """Return the column whose equal values stay on one side: the recipe's, a benchmark's own, or the document."""
    own = recognition.benchmark.group if recognition.benchmark is not None else ""
    if not own and recognition.format in RAW_FORMATS:
        own = "document"
    return next((name for name in (section.split.group_by, own) if name in present), None)


def _example(
    identity: str, row: Row, content: Content, group: str | None, metadata: dict[str, Any], source: str
) -> Example:
    return Example(
        id=identity,
        origin=row.origin,
        messages=content.messages,
        text=content.text,
        label=content.label,
        group=group,
        metadata=metadata,
        alternatives=content.alternatives,
        rejected=content.rejected,
        desirable=content.desirable,
        source=source,
        benchmark=content.benchmark,
    )


def known_labels(rows: Sequence[Row], recognition: Recognition) -> tuple[str, ...] | None:
    """Return the labels of several-label rows or the types of tagged ones, which further rows are read with.

    None in formats whose labels are those of the examples.
    """
    if recognition.format == "multi_label":
        return several_labels_in(rows, recognition.columns["labels"], recognition.decided["delimiter"])
    return entity_types(rows, recognition.columns) if recognition.format == "tags" else None


def labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """Return the classes that occur, sorted."""
    return tuple(sorted({example.label for example in examples if example.label is not None}))


def _metadata(fields: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in fields.items()
        if name not in used and isinstance(value, (str, int, float)) and len(str(value)) <= _METADATA_CHARACTERS
    }
    return dict(list(kept.items())[:_METADATA_COLUMNS])


# ------------------------------------------------------------------------------------------------------ identity


def _identities(rows: Sequence[Row], column: str | None) -> list[str | RowRefused]:
    """Name every row: by the id column, by its key in a keyed file, or else by file and line."""
    if column is not None:
        return _given_ids(rows, column)
    for found in _usual_id_columns(rows):
        ids = [row.fields[found] for row in rows]
        if all(isinstance(value, (str, int)) and str(value).strip() for value in ids):
            texts = [str(value) for value in ids]
            if len(set(texts)) == len(texts):
                return list(texts)
    keys = [row.key for row in rows if row.key is not None]
    if len(keys) == len(rows) == len(set(keys)):
        return list(keys)
    files = list(dict.fromkeys(row.origin.file for row in rows))
    short = {file: file if file.startswith("hub:") else _stem(file) for file in files}
    shared = Counter(short.values())
    names = {file: stem if shared[stem] == 1 else file for file, stem in short.items()}
    return [f"{names[row.origin.file]}:{row.origin.line}" for row in rows]


def _usual_id_columns(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    common = set(rows[0].fields)
    for row in rows:  # one by one: rows may lie on disk, and be more than memory holds
        common &= row.fields.keys()
    return [name for usual in _ID_COLUMNS for name in rows[0].fields if name.lower() == usual and name in common]


def _given_ids(rows: Sequence[Row], column: str) -> list[str | RowRefused]:
    first: dict[str, Origin] = {}
    identities: list[str | RowRefused] = []
    for row in rows:
        try:
            identity = as_text(row.fields.get(column), f"column {column!r}", empty="no id")
        except RowRefused as refusal:
            identities.append(refusal)
            continue
        if identity in first:
            identities.append(RowRefused("duplicate id", f"{identity!r} is the id of {first[identity]} too"))
            continue
        first[identity] = row.origin
        identities.append(identity)
    return identities


def _stem(file: str) -> str:
    path = Path(file)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


# ------------------------------------------------------------------------------------------------------- formats


def _converter(
    rows: Sequence[Row], recognition: Recognition, section: DataSection, labels: Sequence[str] | None, where: str
) -> Convert:
    columns, name = recognition.columns, recognition.format
    if recognition.benchmark is not None:
        return benchmark_converter(recognition.benchmark, section)
    makers: dict[str, Callable[[], Convert]] = {
        "messages": lambda: turns_converter(columns, section, "messages"),
        "sharegpt": lambda: turns_converter(columns, section, "conversations"),
        "preference": lambda: preference_converter(columns, section),
        "kto": lambda: kto_converter(columns, section),
        "alpaca": lambda: alpaca_converter(columns, section),
        "multiple_choice": lambda: choices_converter(columns, section, recognition.decided["answer_is"]),
        "qa": lambda: qa_converter(columns, section),
        "prompt_completion": lambda: pair_converter(columns, section),
        "tags": lambda: tags_converter(rows, columns, section, labels),
        "multi_label": lambda: multi_label_converter(rows, columns, section, labels, recognition.decided["delimiter"]),
        "classification": lambda: classification_converter(rows, columns, section, labels),
        "text": lambda: raw_converter(columns, "text"),
        "completion": lambda: raw_converter(columns, "completion"),
        "template": lambda: template_converter(columns, section, where),
    }
    return makers[name]()
