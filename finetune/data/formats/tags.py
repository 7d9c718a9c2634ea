"""Token labels (BIO and its kin) as a question for the entities of a text: `tags_converter(rows, columns, ...)`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.data.formats.contents import Convert, exchange, texts_of, value_of
from finetune.data.formats.conversations import RowRefused, as_text, shortened
from finetune.data.formats.survey import Fit, Survey, as_list, columns_words, named
from finetune.data.rows import Content, Row
from finetune.recipe.schema import DataSection

_TOKENS = ("tokens", "words", "token", "text_tokens")
_TAGS = ("tags", "ner_tags", "bio_tags", "labels", "ner", "token_labels", "pos_tags", "tag", "iob_tags")
_OPENS = {"B", "S", "U"}
_GOES_ON = {"I", "E", "L"}
_CLOSES = {"S", "U", "E", "L"}


def fit_tags(survey: Survey, given: Mapping[str, str], asked: bool) -> Fit | str:
    """Find a column of tokens and one of their tags; see `fitting`."""
    tokens = [given["tokens"]] if "tokens" in given else named(survey, _TOKENS)
    tags = [given["tags"]] if "tags" in given else [name for name in named(survey, _TAGS) if name not in tokens]
    if not tokens or not tags:
        return f"no column that is usually named as {'tokens' if not tokens else 'their tags'}"
    if len(tags) > 1:
        tags = [name for name in tags if _in_bio(survey[name].items)] or tags
    column = survey[tags[0]]
    if not asked:
        if not survey[tokens[0]].mostly(survey[tokens[0]].lists):
            return f"column {tokens[0]!r} does not hold lists of words"
        if column.lists and not column.text_items:
            return f"column {tags[0]!r} holds numbers, and which tag each of them means is not said"
        if not _in_bio(column.items):
            return f"values of {tags[0]!r} are no tags such as O, B-NAME and I-NAME"
    return Fit(dict(given) | {"tokens": tokens[0], "tags": tags[0]}, columns_words([tokens[0], tags[0]]))


def _in_bio(items: set[str]) -> bool:
    return "O" in items and all(item == "O" or _split(item) is not None for item in items)


def _split(tag: str) -> tuple[str, str] | None:
    """Return prefix and type of `B-NAME`; None where it is no such thing."""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and kind and prefix in _OPENS | _GOES_ON else None


def entities(tokens: Sequence[str], tags: Sequence[str]) -> list[dict[str, str]]:
    """Join tagged tokens to entities, each with its `type` and its `text`, in the order of the text.

    Tags are O, B-TYPE and I-TYPE (Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040), or with E and S, or L and U, for the
    last token and for a single one.

    Raises:
        RowRefused: another number of tags than tokens, a tag of another form, or one that goes on with an entity that
            has not begun.
    """
    if len(tokens) != len(tags):
        raise RowRefused("tags do not fit the tokens", f"{len(tokens)} tokens and {len(tags)} tags")
    found: list[tuple[str, list[str]]] = []
    open_type = ""
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
        if tag == "O":
            open_type = ""
            continue
        parts = _split(tag)
        if parts is None:
            raise RowRefused("tags do not fit the tokens", f"tag {number} is {shortened(tag)}", "use O, B-TYPE, I-TYPE")
        prefix, kind = parts
        if prefix in _OPENS:
            found.append((kind, [token]))
        elif kind == open_type:
            found[-1][1].append(token)
        else:
            detail = f"tag {number} is {tag!r}, but no entity {kind!r} has begun"
            raise RowRefused("tags do not fit the tokens", detail, f"write 'B-{kind}' where an entity begins")
        open_type = "" if prefix in _CLOSES else kind
    return [{"type": kind, "text": " ".join(words)} for kind, words in found]


def tags_converter(
    rows: Sequence[Row], columns: Mapping[str, str], section: DataSection, labels: Sequence[str] | None
) -> Convert:
    """Ask for the entities of a text; the answer is a JSON list of objects with `type` and `text`.

    Args:
        rows: the rows, for the types that occur.
        columns: role -> column.
        section: the recipe's part; its `instruction` replaces the question.
        labels: the types of the training rows, for rows of a further file.
    """
    kinds = tuple(labels) if labels is not None else entity_types(rows, columns)
    before = section.instruction if section.instruction is not None else _question(kinds)

    def convert(fields: Mapping[str, Any]) -> Content:
        tokens = _words(fields, columns["tokens"], empty="empty prompt")
        tags = _words(fields, columns["tags"], empty="empty tag")
        answer = json.dumps(entities(tokens, tags), ensure_ascii=False)
        return Content(messages=exchange(f"{before}\n\nText: {' '.join(tokens)}", answer, None, section))

    return convert


def _question(kinds: Sequence[str]) -> str:
    return (
        'List the entities of the text as a JSON list of objects with "type" and "text", in their order; [] where '
        f"there are none.\nTypes: {', '.join(kinds)}"
    )


def entity_types(rows: Sequence[Row], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the types that the tags of the rows name, sorted."""
    found: set[str] = set()
    for row in rows:
        value = row.fields.get(columns["tags"])
        for tag in as_list(value) or (value.split() if isinstance(value, str) else []):
            parts = _split(tag) if isinstance(tag, str) else None
            found.update(parts[1:] if parts else ())
    return tuple(sorted(found))


def _words(fields: Mapping[str, Any], column: str, *, empty: str) -> list[str]:
    """Return the items of a list, or the words of a text between white space."""
    value = value_of(fields, column)
    if isinstance(value, str) and as_list(value) is None:
        return as_text(value, f"column {column!r}", empty=empty).split()
    found = texts_of(fields, column, empty=empty)
    if not found:
        raise RowRefused(empty, f"column {column!r} is []")
    return found
