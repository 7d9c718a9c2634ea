"""Rows made into examples as their format says: `to_examples(source.rows, recognition, recipe.data)`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.conversations import RowRefused, as_text, conversation, is_turns, shortened, turns_of
from finetune.data.recognise import Recognition, missing_column, nearest_name
from finetune.data.row_templates import TemplateFailed, compile_templates
from finetune.data.rows import Example, Message, Rejected, Row
from finetune.errors import FinetuneError
from finetune.recipe.schema import DataSection

_LISTED_LABELS = 100
_LISTED_CHARACTERS = 1000
_METADATA_COLUMNS = 20
_METADATA_CHARACTERS = 200
_ID_COLUMNS = ("id", "uid", "_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What a row says, without its identity."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    label: str | None = None


_Convert = Callable[[Mapping[str, Any]], _Content]


def to_examples(
    rows: Sequence[Row],
    recognition: Recognition,
    section: DataSection,
    *,
    labels: Sequence[str] | None = None,
    where: str = "data",
) -> tuple[list[Example], list[Rejected]]:
    """Make an example of every row that can be one. Texts are kept to the byte.

    Args:
        rows: rows as read, of one corpus: ids are made unique among them.
        recognition: how the training rows read.
        section: the recipe's `data`.
        labels: for rows of a further file, the classes of the training rows; another class is rejected. None takes
            the classes of `rows` themselves.
        where: the recipe's position, put before problems.

    Returns:
        examples in the order of the rows, and the rows that cannot be used with the reason.

    Raises:
        FinetuneError: a column that plays a role is missing from all rows.
    """
    present = {name for row in rows for name in row.fields}
    absent = [
        missing_column(column, present, what=f"role {role!r}", where=where)
        for role, column in recognition.columns.items()
        if column not in present and role not in ("system", "input")
    ]
    if rows and absent:
        raise FinetuneError.of(absent)
    convert = _converter(rows, recognition, section, labels, where)
    group_by = section.split.group_by if section.split.group_by in present else None
    used = {*recognition.columns.values()} | {column for column in (group_by,) if column}
    examples: list[Example] = []
    rejected: list[Rejected] = []
    for row, identity in zip(rows, _identities(rows, recognition.columns.get("id")), strict=True):
        try:
            content = convert(row.fields)
            if isinstance(identity, RowRefused):
                raise identity
            group = as_text(row.fields.get(group_by), f"column {group_by!r}", empty="no group") if group_by else None
        except (RowRefused, TemplateFailed) as refusal:
            rejected.append(Rejected(row.origin, refusal.reason, refusal.detail, getattr(refusal, "fix", "")))
            continue
        examples.append(
            Example(
                id=identity,
                origin=row.origin,
                messages=content.messages,
                text=content.text,
                label=content.label,
                group=group,
                metadata=_metadata(row.fields, used | set(recognition.templated)),
            )
        )
    return examples, rejected


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
    common = set(rows[0].fields).intersection(*(row.fields for row in rows))
    return [name for usual in _ID_COLUMNS for name in rows[0].fields if name.lower() == usual and name in common]


def _given_ids(rows: Sequence[Row], column: str) -> list[str | RowRefused]:
    first: dict[str, Row] = {}
    identities: list[str | RowRefused] = []
    for row in rows:
        try:
            identity = as_text(row.fields.get(column), f"column {column!r}", empty="no id")
        except RowRefused as refusal:
            identities.append(refusal)
            continue
        earlier = first.setdefault(identity, row)
        detail = f"{identity!r} is the id of {earlier.origin} too"
        identities.append(identity if earlier is row else RowRefused("duplicate id", detail))
    return identities


def _stem(file: str) -> str:
    path = Path(file)
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


# ------------------------------------------------------------------------------------------------------- formats


def _converter(
    rows: Sequence[Row], recognition: Recognition, section: DataSection, labels: Sequence[str] | None, where: str
) -> _Convert:
    columns = recognition.columns
    if recognition.format in ("messages", "sharegpt"):
        return _turns_converter(columns, section, "messages" if recognition.format == "messages" else "conversations")
    if recognition.format == "alpaca":
        return _alpaca_converter(columns, section)
    if recognition.format == "prompt_completion":
        return _pair_converter(columns, section)
    if recognition.format == "text":
        return lambda fields: _Content(text=_text(fields, columns["text"], empty="empty text"))
    if recognition.format == "classification":
        return _classification_converter(rows, columns, section, labels)
    return _template_converter(columns, section, where)


def _get(fields: Mapping[str, Any], column: str) -> Any:
    if column not in fields:
        raise RowRefused("column missing", f"there is no column {column!r}")
    return fields[column]


def _text(fields: Mapping[str, Any], column: str, *, empty: str) -> str:
    return as_text(_get(fields, column), f"column {column!r}", empty=empty)


def _own_system(fields: Mapping[str, Any], columns: Mapping[str, str]) -> str | None:
    """The row's system column, where it holds anything."""
    value = fields.get(columns["system"]) if "system" in columns else None
    if value is None or value == "":
        return None
    return as_text(value, f"column {columns['system']!r}", empty="empty prompt")


def _turns_converter(columns: Mapping[str, str], section: DataSection, role: str) -> _Convert:
    def convert(fields: Mapping[str, Any]) -> _Content:
        if fields.get("tools") and "tools" not in columns.values():
            detail = f"column 'tools' holds {shortened(fields['tools'])}"
            raise RowRefused("unsupported part of a turn", detail, "write the tools into the system turn")
        turns = turns_of(_get(fields, columns[role]), f"column {columns[role]!r}")
        system = _own_system(fields, columns)
        return _Content(messages=conversation(turns, section.system if system is None else system))

    return convert


def _alpaca_converter(columns: Mapping[str, str], section: DataSection) -> _Convert:
    def convert(fields: Mapping[str, Any]) -> _Content:
        prompt = _text(fields, columns["instruction"], empty="empty prompt")
        added = fields.get(columns["input"]) if "input" in columns else None
        if added is not None and added != "":
            prompt += "\n\n" + as_text(added, f"column {columns['input']!r}", empty="empty prompt")
        answer = _answer(fields, columns["output"])
        return _exchange(prompt, answer, _own_system(fields, columns), section)

    return convert


def _pair_converter(columns: Mapping[str, str], section: DataSection) -> _Convert:
    def convert(fields: Mapping[str, Any]) -> _Content:
        system = _own_system(fields, columns)
        given = _get(fields, columns["prompt"])
        if not is_turns(given):
            prompt = as_text(given, f"column {columns['prompt']!r}", empty="empty prompt")
            return _exchange(prompt, _answer(fields, columns["completion"]), system, section)
        context = turns_of(given, f"column {columns['prompt']!r}")
        turns = [Message(turn.role, turn.content, learn=False) for turn in context]
        if is_turns(_get(fields, columns["completion"])):
            turns += turns_of(fields[columns["completion"]], f"column {columns['completion']!r}")
        else:
            turns.append(Message("assistant", _answer(fields, columns["completion"])))
        return _Content(messages=conversation(turns, section.system if system is None else system))

    return convert


def _answer(fields: Mapping[str, Any], column: str) -> str:
    """The answer as text: an object or list becomes compact JSON, a list of one assistant turn its content."""
    value = _get(fields, column)
    if is_turns(value):
        turns = turns_of(value, f"column {column!r}")
        if len(turns) > 1 or turns[0].role != "assistant":
            raise RowRefused("roles do not alternate", f"column {column!r} holds more than one assistant turn")
        return turns[0].content
    if isinstance(value, (dict, list)):
        if not value:
            raise RowRefused("empty answer", f"column {column!r} is {value!r}")
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return as_text(value, f"column {column!r}", empty="empty answer")


def _exchange(prompt: str, answer: str, system: str | None, section: DataSection, label: str | None = None) -> _Content:
    turns = [Message("user", prompt), Message("assistant", answer)]
    return _Content(messages=conversation(turns, section.system if system is None else system), label=label)


def _classification_converter(
    rows: Sequence[Row], columns: Mapping[str, str], section: DataSection, labels: Sequence[str] | None
) -> _Convert:
    known = tuple(labels) if labels is not None else _labels_in(rows, columns["label"])
    instruction = section.instruction if section.instruction is not None else default_instruction(known)
    before = f"{instruction}\n\n" + ("" if section.instruction is not None else "Text: ")

    def convert(fields: Mapping[str, Any]) -> _Content:
        text = _text(fields, columns["text"], empty="empty prompt")
        label = _text(fields, columns["label"], empty="empty answer")
        if label not in known_set:
            near = nearest_name(label, known)
            detail = f"column {columns['label']!r} is {shortened(label)}"
            raise RowRefused("label not in training data", detail, f"did you mean {near!r}?" if near else "")
        return _exchange(before + text, label, None, section, label)

    known_set = frozenset(known)
    return convert


def _labels_in(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    found = set()
    for row in rows:
        try:
            found.add(_text(row.fields, column, empty="empty answer"))
        except RowRefused:
            continue  # the row itself is rejected when it is converted
    return tuple(sorted(found))


def default_instruction(labels: Sequence[str]) -> str:
    """Ask for the class of a text; name the classes where they are at most 100 and 1,000 characters together."""
    separator = "; " if any("," in label for label in labels) else ", "
    listed = separator.join(labels)
    if len(labels) > _LISTED_LABELS or len(listed) > _LISTED_CHARACTERS:
        return "Which class does the text belong to? Answer with the class only."
    return f"Which of these classes does the text belong to?\nClasses: {listed}\nAnswer with the class only."


def _template_converter(columns: Mapping[str, str], section: DataSection, where: str) -> _Convert:
    if section.template is None:
        raise FinetuneError("format 'template' needs a template", where=where, fix="add `template:` under data")
    templates = compile_templates(section.template, where=where)

    def convert(fields: Mapping[str, Any]) -> _Content:
        prompt, completion = templates.render(fields)
        prompt = as_text(prompt, "the rendered prompt", empty="empty prompt")
        completion = as_text(completion, "the rendered completion", empty="empty answer")
        label = _text(fields, columns["label"], empty="empty answer") if "label" in columns else None
        return _exchange(prompt, completion, None, section, label)

    return convert
