"""Every setting a recipe may have is read by code outside finetune/recipe: a setting nobody reads is a lie.

A read is `something.field`, where `something` must be of the right section when the field's name is a common one:
its own name ends with the section's (`recipe.run.seed`, `split.seed`), it is annotated with the section's class, or
it was assigned or looped from such an expression. Choosing by `isinstance` or `case` counts as reading `kind`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune.recipe.schema import Recipe, Section
from finetune.recipe.words import item_type, kinds, sections

PACKAGE = Path(__file__).parents[1] / "finetune"
# fmt: off
COMMON = {
    "name", "seed", "kind", "folder", "rows", "mode", "train", "test", "validation", "format", "fields", "columns",
    "prompt", "completion", "template", "base", "system", "steps", "epochs", "dtype", "rank", "alpha", "dropout",
    "project", "entity", "schedule", "packing", "targets", "keep", "attention", "revision",
}
# fmt: on


@dataclass(frozen=True)
class Setting:
    """A leaf of the schema: its name, the names its section goes by, and the classes that have it.

    `choices` counts the values of a `kind`, and is 0 for all else; one with a single choice has nothing to tell.
    """

    path: str
    section: str
    name: str
    classes: frozenset[str]
    choices: int


def all_settings() -> list[Setting]:
    found: dict[str, Setting] = {}

    def walk(classes: tuple[type[Section], ...], path: str) -> None:
        for one in classes:
            for name, info in one.model_fields.items():
                inner = sections(info.annotation) or sections(item_type(info.annotation))
                where = f"{path}.{name}" if path else name
                if inner:
                    walk(inner, where)
                    continue
                names = {base.__name__ for base in one.__mro__ if issubclass(base, Section) and base is not Section}
                names |= {path.rpartition(".")[2].capitalize()}  # Method and Objective, the unions' own names
                known = found[where].classes if where in found else frozenset()
                choices = len(kinds(classes)) if name == "kind" else 0
                found[where] = Setting(where, path.rpartition(".")[2], name, known | names, choices)

    walk((Recipe,), "")
    return list(found.values())


@dataclass
class Reads:
    """What one or more files read: (the owner's section or class, attribute), and every attribute by itself."""

    owned: set[tuple[str, str]] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)

    def has(self, setting: Setting, common: set[str]) -> bool:
        owners = {setting.section, *setting.classes}
        if any((owner, setting.name) in self.owned for owner in owners):
            return True
        if setting.name == "kind":
            return any((owner, "isinstance") in self.owned for owner in setting.classes)
        return setting.name not in common and setting.name in self.bare


def collect(source: str, reads: Reads) -> None:
    """Add what a file reads. Names are resolved over the whole file, which is enough for telling sections apart."""
    tree = ast.parse(source)
    aliases = dict(_aliases(tree))

    def owners(node: ast.expr) -> set[str]:
        """The sections and classes an expression may be, by its last name; a bare `run` is mostly a run folder."""
        if isinstance(node, ast.Attribute):
            return {node.attr}
        if isinstance(node, ast.Subscript):
            return owners(node.value)
        if isinstance(node, ast.Name):
            ends = {node.id, node.id.rpartition("_")[2], node.id.partition("_")[0]}
            return (ends - {"run", ""}) | aliases.get(node.id, set())
        return set()

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            reads.bare.add(node.attr)
            reads.owned |= {(owner, node.attr) for owner in owners(node.value)}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance" and len(node.args) == 2:
            reads.owned |= {(name, "isinstance") for name in _class_names(node.args[1])}
        elif isinstance(node, ast.MatchClass):
            for name in _class_names(node.cls):
                reads.owned |= {(name, "isinstance"), *((name, key) for key in node.kwd_attrs)}


def _aliases(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Names that stand for a section: annotated ones, and those assigned or looped from `x.section`."""
    known: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            known.setdefault(node.arg, set()).update(_class_names(node.annotation))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            known.setdefault(node.target.id, set()).update(_class_names(node.annotation))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                _pair(target, node.value, known)
        elif isinstance(node, (ast.For, ast.comprehension)):
            _pair(node.target, node.iter, known)
    yield from known.items()


def _pair(target: ast.expr, value: ast.expr, known: dict[str, set[str]]) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=False):
            _pair(one, other, known)
    elif isinstance(target, ast.Name):
        names = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
        known.setdefault(target.id, set()).update(names)


def _class_names(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return found | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def common_names(settings: list[Setting]) -> set[str]:
    return COMMON | {name for name, times in Counter(one.name for one in settings).items() if times > 1}


def test_every_setting_is_read() -> None:
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if "recipe" not in path.relative_to(PACKAGE).parts]
    assert len(files) > 20
    reads = Reads()
    for path in files:
        collect(path.read_text(encoding="utf-8"), reads)
    settings = all_settings()
    assert len(settings) > 60
    common = common_names(settings)
    unread = [one.path for one in settings if one.choices != 1 and not reads.has(one, common)]
    assert unread == []


@pytest.mark.parametrize(
    ("code", "path", "read"),
    [
        ("recipe.run.seed", "run.seed", True),
        ("recipe.run.seed", "data.split.seed", False),
        ("split.seed", "data.split.seed", True),
        ("other.seed", "run.seed", False),
        ("run.name", "run.name", False),
        ("def f(s: RunSection): return s.seed", "run.seed", True),
        ("def f(s: 'RunSection | None'): return s.seed", "run.seed", True),
        ("def f(s: SplitSection): return s.seed", "run.seed", False),
        ("part = recipe.data.sample\npart.seed", "data.sample.seed", True),
        ("a, b = recipe.data.sample, recipe.run\nb.seed", "data.sample.seed", False),
        ("for one in recipe.export: one.dtype", "export.dtype", True),
        ("recipe.model.dtype", "export.dtype", False),
        ("isinstance(recipe.method, (LoraMethod, QloraMethod))", "method.kind", True),
        ("isinstance(x, MergedExport)", "method.kind", False),
        ("match recipe.method:\n    case LoraMethod(rank=r): pass", "method.rank", True),
        ("def f(m: LowRank): return m.rank", "method.rank", True),
        ("def f(m: Method): return m.kind", "method.kind", True),
        ("anything.max_grad_norm", "train.max_grad_norm", True),
        ("train.max_grad_norm = 1", "train.max_grad_norm", False),
        ("'train.max_grad_norm'", "train.max_grad_norm", False),
    ],
)
def test_what_counts_as_a_read(code: str, path: str, read: bool) -> None:
    settings = all_settings()
    (setting,) = [one for one in settings if one.path == path]
    reads = Reads()
    collect(code, reads)
    assert reads.has(setting, common_names(settings)) is read
