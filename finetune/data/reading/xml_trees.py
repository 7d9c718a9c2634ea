"""XML as a tree of elements with their lines, parsed so that a hostile file can do no harm: `parse_xml(content)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from finetune.data.reading.packed import Content
from finetune.errors import FinetuneError

_DEEPEST = 200


@dataclass(slots=True)
class Element:
    """One element: its name without a namespace, attributes, line, and what stands in it, in order."""

    tag: str
    attributes: dict[str, str]
    line: int
    parts: list[str | Element] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        return [part for part in self.parts if isinstance(part, Element)]

    @property
    def is_mixed(self) -> bool:
        """Text with marks in it, rather than elements in elements."""
        return any(isinstance(part, str) and part.strip() for part in self.parts) and bool(self.children)

    def text(self) -> str:
        """All the text in the element and below it."""
        return "".join(part if isinstance(part, str) else part.text() for part in self.parts)

    def descendants(self) -> Iterator[Element]:
        """The elements below this one."""
        for child in self.children:
            yield child
            yield from child.descendants()


def parse_xml(content: Content) -> Element:
    """Parse a whole document; comments and processing instructions are no part of the tree.

    Raises:
        FinetuneError: it is empty or no well-formed XML, declares entities (which could grow without bound, or fetch
            files), leaves one undefined, or is nested more than 200 deep.
    """
    builder = _Builder(content.name)
    with content.open() as stream:
        if not stream.peek(1):
            raise FinetuneError("the file is empty", where=content.name)
        try:
            builder.parser.ParseFile(stream)
        except expat.ExpatError as error:
            raise FinetuneError(
                f"broken XML: {expat.ErrorString(error.code)} at column {error.offset + 1}",
                where=f"{content.name}:{error.lineno}",
            ) from None
    return builder.root


class _Builder:
    """Takes the parser's events and makes the tree of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[Element] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._declared
        self.parser.SkippedEntityHandler = self._undefined
        self.root = Element("", {}, 0)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        named = {name.rpartition(" ")[2]: value for name, value in attributes.items()}
        element = Element(tag.rpartition(" ")[2], named, self.parser.CurrentLineNumber)
        if self._open:
            self._open[-1].parts.append(element)
        else:
            self.root = element
        self._open.append(element)
        if len(self._open) > _DEEPEST:
            raise FinetuneError(f"XML nested more than {_DEEPEST} deep", where=f"{self._name}:{element.line}")

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        self._open[-1].parts.append(text)

    def _declared(self, name: str, *_: object) -> None:
        raise FinetuneError(
            f"XML that declares entities of its own ({name!r}) is not read: they can grow without bound or fetch files",
            where=f"{self._name}:{self.parser.CurrentLineNumber}",
            fix="write the texts out, e.g. `xmllint --noent OLD > NEW` if you trust the file",
        )

    def _undefined(self, name: str, _: bool) -> None:
        raise FinetuneError(
            f"the entity &{name}; is not defined in the file",
            where=f"{self._name}:{self.parser.CurrentLineNumber}",
            fix="write the character itself",
        )
