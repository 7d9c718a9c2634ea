"""Values with the place each was written: YAML text or a dict becomes a `Tree`, and one tree is laid over another.

Only what YAML 1.2 and JSON agree on is read as more than text: `true`, `false`, `null`, whole and decimal numbers
(`1e-4` among them). `yes`, dates and `1:30` stay the text that was typed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from finetune.errors import FinetuneError, Problem
from finetune.recipe.schema import Section
from finetune.recipe.words import show

MAX_DEPTH = 20
MAX_NODES = 10_000
MAX_TEXT = 2_000_000

Path: TypeAlias = tuple[str | int, ...]

_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 300
_MOST_BITS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_SAID = "half of a surrogate pair (\\uD800 to \\uDFFF) is no text"

_SYNTAX_FIXES = {
    "mapping values are not allowed here": "check the indentation, and put quotes around text that contains ': '",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "expected a single document in the stream": "remove the line `---` that begins a second document",
    "expected <block end>": "check the indentation: keys of one section start in the same column",
    "found unexpected end of stream": "close the quote or bracket that was opened",
    "found undefined alias": "define it first with `&name`, or put quotes around text that begins with '*'",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written: a file and line (0 where lines mean nothing), and where its relative paths start."""

    file: str
    line: int = 0
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Tree:
    """Plain values, the source of every key and list item, and what was wrong with the writing itself."""

    top: Source
    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[Path, Source] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def source(self, path: Path) -> Source:
        """Return the source of the value at `path`, or of the nearest section above it that was written."""
        while path:
            if path in self.sources:
                return self.sources[path]
            path = path[:-1]
        return self.top

    def value(self, path: Path) -> Any:
        """Return the value at `path`, which must exist."""
        found: Any = self.values
        for step in path:
            found = found[step]
        return found


# --------------------------------------------------------------------------------------------------- from YAML text


def read_yaml(text: str, top: Source) -> Tree:
    """Read the one mapping that a recipe file is.

    Faults that leave the rest readable (a key given twice) are collected in the tree's `problems`.

    Raises:
        FinetuneError: the text is no YAML, holds nothing or something other than a mapping, is nested deeper than
            20 levels or has more than 10,000 values.
    """
    node = _compose(text, top)
    if node is None:
        raise FinetuneError(
            "the file is empty", where=str(top), fix="a recipe needs at least model.base and data.train"
        )
    if not isinstance(node, yaml.MappingNode):
        found = "a list" if isinstance(node, yaml.SequenceNode) else "text"
        raise FinetuneError(
            f"a recipe is a mapping of keys, but this is {found}", where=str(top), fix="write `key: value`"
        )
    reader = _NodeReader(top)
    reader.tree.values = reader.mapping(node, ())
    return reader.tree


def read_override(path: Path, text: str, top: Source) -> Tree:
    """Read the value of one `--set a.b=value`: a plain value, quoted text, or a list or mapping in brackets.

    Raises:
        FinetuneError: the value is no YAML, or a part of it would be lost.
    """
    node = _compose(text, top)
    reader = _NodeReader(top)
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        raise FinetuneError(
            f"{text!r} reads as several values", where=str(top), fix="put the text in quotes of its own"
        )
    lost = text[node.end_mark.index if node else 0 :].strip()
    if lost:
        raise FinetuneError(
            f"{lost!r} would be lost as a comment", where=str(top), fix="put the text in quotes of its own"
        )
    value: Any = None if node is None else reader.value(node, path)
    for depth in range(1, len(path) + 1):
        reader.tree.sources[path[:depth]] = top
    for step in reversed(path):
        value = {step: value}
    reader.tree.values = value
    return reader.tree


class _Loader(yaml.SafeLoader):
    """Composes nodes without giving them types, and stops at the limits before memory or time run out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.nodes = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return "plain" if implicit[0] else "quoted"
        return "plain"

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels", problem_mark=self.get_mark())
        if self.nodes > 2 * MAX_NODES:  # keys are nodes as well
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES} values", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str, top: Source) -> yaml.Node | None:
    """Return the root node of a YAML text, with every fault of the syntax told in one sentence."""
    loader = None
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
        return node
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _syntax_error(f"the character U+{int(error.character):04X} cannot stand in YAML", top, line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "not valid YAML"
        raise _syntax_error(said, top, mark.line + 1 if mark else 0) from None
    except (ValueError, OverflowError, IndexError):  # PyYAML on escapes such as "\UFFFFFFFF" and on huge versions
        line = loader.get_mark().line + 1 if loader else 0
        raise _syntax_error("a number or an escape such as \\U is out of range", top, line) from None


def _syntax_error(said: str, top: Source, line: int) -> FinetuneError:
    where = f"{top.file}:{line}" if line and top.line else top.file
    if "\\t" in said:
        return FinetuneError("a tab stands where YAML wants spaces", where=where, fix="indent with spaces")
    if said.startswith("more than"):
        return FinetuneError(f"{said} are too many for a recipe", where=where)
    fix = next((advice for start, advice in _SYNTAX_FIXES.items() if said.startswith(start)), "")
    return FinetuneError(f"not valid YAML: {said}", where=where, fix=fix)


class _NodeReader:
    """Walks composed nodes once, expanding aliases, and fills a Tree."""

    def __init__(self, top: Source) -> None:
        self.tree = Tree(top)
        self.open: list[yaml.Node] = []
        self.count = 0
        self.size = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise _syntax_error(f"more than {MAX_NODES} values", self.tree.top, self.line(node))
        if any(node is outer for outer in self.open):
            raise FinetuneError("an alias contains itself", where=str(self.source(node)), fix="write the values out")
        if len(self.open) > MAX_DEPTH:
            raise _syntax_error(f"more than {MAX_DEPTH} levels", self.tree.top, self.line(node))
        self.refuse_tag(node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        return self.sequence(node, path)

    def sequence(self, node: yaml.Node, path: Path) -> list[Any]:
        values = []
        self.open.append(node)
        for number, item in enumerate(node.value):
            here = (*path, number)
            self.tree.sources[here] = self.source(item)
            values.append(self.value(item, here))
        self.open.pop()
        return values

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self.open.append(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, "a key has to be one word", "write `key: value`")
                continue
            self.refuse_tag(key_node)
            key = self.text(key_node)
            here = (*path, key)
            if key == "<<" and key_node.tag == "plain":
                self.fault(key_node, "the merge key '<<' is not read", "use `extends: FILE`, or repeat the keys")
            elif key in values:
                first = self.tree.sources[here]
                self.fault(key_node, f"the key {show(key)} stands here and in {first}", "keep one of them")
            else:
                self.tree.sources[here] = self.source(key_node)
                values[key] = self.value(value_node, here)
        self.open.pop()
        return values

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = self.text(node)
        if node.tag == "quoted":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if (WHOLE.fullmatch(text) or DECIMAL.fullmatch(text)) and len(text) > _LONGEST_NUMBER:
            self.fault(node, f"a number of {len(text)} characters is too long", "put quotes around it if it is text")
            return None
        if WHOLE.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if DECIMAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text

    def text(self, node: yaml.ScalarNode) -> str:
        text = str(node.value)
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise _syntax_error(f"more than {MAX_TEXT} characters", self.tree.top, self.line(node))
        if _SURROGATE.search(text):
            self.fault(node, _SURROGATE_SAID, "write the character itself")
            return ""
        return text

    def refuse_tag(self, node: yaml.Node) -> None:
        if node.tag not in ("plain", "quoted"):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.fault(node, f"the tag {show(tag)} has no meaning in a recipe", "remove it")

    def fault(self, node: yaml.Node, what: str, fix: str) -> None:
        self.tree.problems.append(Problem(str(self.source(node)), what, fix))

    def source(self, node: yaml.Node) -> Source:
        top = self.tree.top
        return Source(top.file, self.line(node), top.folder) if top.line else top

    def line(self, node: yaml.Node) -> int:
        return int(node.start_mark.line) + 1


# --------------------------------------------------------------------------------------------------- from Python


def read_dict(values: Mapping[Any, Any], top: Source) -> Tree:
    """Take over a recipe written as Python values; tuples, paths and Section objects are welcome in it."""
    tree = Tree(top)
    tree.values = _plain(values, (), tree)
    return tree


def _plain(value: Any, path: Path, tree: Tree) -> Any:
    if len(path) > MAX_DEPTH:
        raise FinetuneError(f"more than {MAX_DEPTH} levels are too many for a recipe", where=str(tree.top))
    if path:
        tree.sources[path] = tree.top
    if isinstance(value, Section):
        named = [name for name in type(value).model_fields if name == "kind" or name in value.model_fields_set]
        value = {name: getattr(value, name) for name in named}
    if isinstance(value, Mapping):
        return {str(key): _plain(one, (*path, str(key)), tree) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, (*path, number), tree) for number, one in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str) and _SURROGATE.search(value):
        what, fix = _SURROGATE_SAID, "write the character itself"
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        what, fix = f"{dotted(path)} is a number of {value.bit_length()} bits", "give a smaller one"
    elif value is None or isinstance(value, (str, bool, int, float)):
        return value
    else:
        what = f"{dotted(path)} is an object of type {type(value).__name__}"
        fix = "give text, a number, true or false, a list or a dict"
    tree.problems.append(Problem(str(tree.top), what, fix))
    return None


# ------------------------------------------------------------------------------------------------- laying over


def lay_over(under: Tree, over: Tree, default_kinds: Mapping[str, str]) -> Tree:
    """Return `under` with everything that `over` says: mappings are merged, all else is replaced.

    A section whose `kind` changes is replaced as a whole, because its other keys belong to the old kind;
    `default_kinds` names such sections and the kind they have where none is written. An empty mapping empties.
    """
    joined: set[Path] = set()
    replaced: set[Path] = set()

    def same_kind(old: dict[str, Any], new: dict[str, Any], path: Path) -> bool:
        default = default_kinds.get(dotted(path))
        return default is None or "kind" not in new or bool(new["kind"] == old.get("kind", default))

    def merged(low: dict[str, Any], high: dict[str, Any], path: Path) -> dict[str, Any]:
        result = dict(low)
        for key, value in high.items():
            here, old = (*path, key), low.get(key)
            if isinstance(value, dict) and value and isinstance(old, dict) and same_kind(old, value, here):
                result[key] = merged(old, value, here)
                joined.add(here)
            else:
                result[key] = value
                replaced.add(here)
        return result

    values = merged(under.values, over.values, ())
    sources = {
        path: source
        for path, source in under.sources.items()
        if not any(path[:depth] in replaced for depth in range(1, len(path) + 1))
    }
    for path, source in over.sources.items():
        if source.line or path not in joined:  # a `--set` inside a section does not say where the section stands
            sources[path] = source
    return Tree(under.top, values, sources, [*under.problems, *over.problems])


def dotted(path: Path) -> str:
    """Return a path as it is written in messages: `data.split.seed`, `export.0.dtype`."""
    return ".".join(str(step) for step in path)
