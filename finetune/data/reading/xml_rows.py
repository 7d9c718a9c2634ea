"""Rows out of XML: one for each of the elements that repeat, with attributes and inner elements as columns.

`read_xml(content)`. Nothing outside the file is ever fetched, and a file that declares entities is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from finetune.data.reading.packed import Content
from finetune.data.reading.records import Records
from finetune.data.reading.xml_trees import Element, parse_xml
from finetune.data.rows import Origin, Row
from finetune.errors import FinetuneError, Problem, nearest

Path = tuple[str, ...]


def read_xml(content: Content, *, inside: str | None = None) -> Records:
    """Read the rows of an XML file.

    The rows are the elements that repeat under one parent and have attributes or inner elements; of several kinds the
    one nearest to the top, then the more frequent. Without any, the inner element of one named after it (`items` of
    `item`), else the whole document is the one row. Attributes and inner elements become columns (`Question`,
    `Question.qid`); what stands around a row, in its ancestors, becomes columns that begin with the ancestor's name
    (`Document.id`). What occurs several times under one parent is a list. Text is kept to the byte.

    Args:
        content: the file.
        inside: path of the elements that are rows, from the top, e.g. `/Document/QAPairs/QAPair`; None finds it.

    Raises:
        FinetuneError: broken XML, entity declarations, nesting beyond measure, or no such element.
    """
    root = parse_xml(content)
    paths = _Paths(root)
    if inside is None:
        chosen, why = paths.rows()
        what = f"read with {'/' + '/'.join(chosen)} as its rows: {why}"
        notes = [Problem(content.name, what, "other elements are named as 'FILE.xml::/PATH'", "note")]
    else:
        chosen, notes = _asked(inside, paths, content.name), []
    if paths.mixed:
        tags = ", ".join(f"<{tag}>" for tag in sorted(paths.mixed))
        what = f"marks inside running text are read as their text alone: {tags}"
        notes.append(Problem(content.name, what, severity="note"))
    items = (Row(Origin(content.name, line), fields) for line, fields in _rows(root, chosen, paths.repeated))
    return Records(container=f"XML, rows are <{chosen[-1]}>", items=items, notes=tuple(notes))


class _Paths:
    """What kinds of elements a document has, by the names from the top down to them."""

    def __init__(self, root: Element) -> None:
        self.counts: Counter[Path] = Counter()
        self.repeated: set[Path] = set()
        self.mixed: set[str] = set()
        self._structured: set[Path] = set()
        self._named_after: set[Path] = set()
        self._visit(root, (root.tag,))

    def _visit(self, element: Element, path: Path) -> None:
        self.counts[path] += 1
        if element.children or element.attributes:
            self._structured.add(path)
        if element.is_mixed:
            self.mixed.update(inner.tag for inner in element.descendants())
            return
        tags = Counter(child.tag for child in element.children)
        self.repeated.update((*path, tag) for tag, count in tags.items() if count > 1)
        if len(tags) == 1:
            (tag,) = tags
            if element.tag.lower().startswith(tag.lower().removesuffix("y")) and element.tag != tag:
                self._named_after.add((*path, tag))
        for child in element.children:
            self._visit(child, (*path, child.tag))

    def rows(self) -> tuple[Path, str]:
        """Choose the elements that are rows; say why."""
        top = [path for path in self.repeated if len(path) == 2]
        ways = (
            (self.repeated & self._structured, "the first elements from the top that repeat"),
            (self._named_after & self._structured, "its parent is named after it"),
            (top, "the elements that repeat"),
        )
        for found, why in ways:
            if found:
                return min(found, key=lambda path: (len(path), -self.counts[path], path)), why
        return next(iter(self.counts)), "nothing in it repeats"


def _asked(inside: str, paths: _Paths, file: str) -> Path:
    known = {"/" + "/".join(path): path for path in paths.counts}
    if inside not in known:
        near = nearest(inside, known)
        raise FinetuneError(
            f"there is no element {inside!r}; the document begins with {next(iter(known))!r}",
            where=file,
            fix=f"did you mean {near!r}?" if near else "name the elements from the top, e.g. '/Document/Items/Item'",
        )
    return known[inside]


def _rows(root: Element, chosen: Path, repeated: set[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    def walk(element: Element, path: Path, around: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        if path == chosen:
            yield element.line, {**_fields(element, path, repeated), **around}
            return
        inner = chosen[len(path)]
        own = _fields(element, path, repeated, without=inner)
        around = {**around, **{f"{element.tag}.{name}": value for name, value in own.items()}}
        for child in element.children:
            if child.tag == inner:
                yield from walk(child, (*path, inner), around)

    yield from walk(root, chosen[:1], {})


def _fields(element: Element, path: Path, repeated: set[Path], without: str = "") -> dict[str, Any]:
    """Return the columns of an element: attributes, its own text under its name, and what its children hold."""
    children: defaultdict[str, list[Element]] = defaultdict(list)
    if not element.is_mixed:
        for child in element.children:
            if child.tag != without:
                children[child.tag].append(child)
    fields: dict[str, Any] = {
        (f"@{name}" if name in children or name == element.tag else name): value
        for name, value in element.attributes.items()
    }
    if element.is_mixed or not element.children:
        fields[element.tag] = element.text()
    for tag, found in children.items():
        fields.update(_child(tag, found, (*path, tag), repeated))
    return fields


def _child(tag: str, found: Sequence[Element], path: Path, repeated: set[Path]) -> dict[str, Any]:
    if path in repeated:
        plain = all(not one.attributes and (one.is_mixed or not one.children) for one in found)
        return {tag: [one.text() if plain else _fields(one, path, repeated) for one in found]}
    (only,) = found
    return {tag if name == tag else f"{tag}.{name}": value for name, value in _fields(only, path, repeated).items()}
