"""Which values of a recipe are paths, from where they count, and which of them lead nowhere."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetune.errors import Problem, nearest
from finetune.recipe.data_names import split_name
from finetune.recipe.tree import Path, Tree, dotted

# In the place of a list's numbers
EACH = "*"
DATA_KEYS: tuple[Path, ...] = (
    ("data", "train"),
    ("data", "validation"),
    ("data", "test"),
    ("evaluate", "tasks", EACH, "test"),
    ("evaluate", "tasks", EACH, "examples"),
)
FILE_KEYS: tuple[Path, ...] = (
    ("data", "split", "test_ids"),
    ("model", "chat_template"),
    ("evaluate", "contestants", EACH, "path"),
    ("evaluate", "schema_file"),
    ("evaluate", "forgetting", "texts"),
    ("evaluate", "forgetting", "questions"),
    ("evaluate", "forgetting", "prompts"),
    ("evaluate", "tasks", EACH, "schema_file"),
    ("evaluate", "tasks", EACH, "path"),
)
BASE_KEYS: tuple[Path, ...] = (("model", "base"), ("evaluate", "contestants", EACH, "base"))
# Of these only the user's own, `module:function`, have a path
SCORER_KEYS: tuple[Path, ...] = (("evaluate", "scorer"), ("evaluate", "tasks", EACH, "scorer"))

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def resolve_paths(tree: Tree) -> None:
    """Make every relative path in the tree absolute, counted from where it was written.

    A path in a recipe counts from the folder of that file, one given by `--set` from the current folder. Left alone:
    `hub:` and `package:` names, and a base that looks like a hub id and is no folder there. A scorer of the user's own,
    `module:function`, becomes `path/of/module.py:function`.
    """
    for key in (*DATA_KEYS, *FILE_KEYS, *BASE_KEYS, *SCORER_KEYS):
        for place, section in _reached(tree.values, key[:-1], ()):
            if isinstance(section, dict) and key[-1] in section:
                section[key[-1]] = _resolved(key, section[key[-1]], (*place, key[-1]), tree)


def _reached(value: Any, key: Path, place: Path) -> Iterator[tuple[Path, Any]]:
    """Yield what a key leads to with its place; a key with `EACH` leads to as much as the list has items."""
    if not key:
        yield place, value
    elif key[0] == EACH and isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _reached(one, key[1:], (*place, number))
    elif isinstance(value, Mapping) and key[0] in value:
        yield from _reached(value[key[0]], key[1:], (*place, key[0]))


def _resolved(key: Path, value: Any, path: Path, tree: Tree) -> Any:
    """Return the value of a key with its paths made absolute: text, a list, or the sources of a mixture in it."""
    if isinstance(value, str):
        return _absolute(key, value, tree.source(path).folder)
    if isinstance(value, list):
        return [_resolved(key, one, (*path, number), tree) for number, one in enumerate(value)]
    if isinstance(value, dict) and "path" in value and key in DATA_KEYS:
        return {**value, "path": _resolved(key, value["path"], (*path, "path"), tree)}
    return value


def is_hub_base(base: str) -> bool:
    """Tell whether a resolved `model.base` names a model of the hub rather than something on this machine."""
    return not (base.startswith("package:") or os.path.isabs(base) or base.lower().endswith(".gguf") or _exists(base))


def missing(values: Mapping[str, Any], where: Callable[[str], str]) -> list[Problem]:
    """Report every path among the (resolved) values that leads to no file; globs have to match at least one."""
    problems = []
    for key, place, given in _paths(values):
        value = split_name(given).path if key in DATA_KEYS else given
        if key in SCORER_KEYS:
            value, colon, _ = value.rpartition(":")
            if not colon:
                continue
        if key in BASE_KEYS and not os.path.isabs(value):
            continue
        if value.startswith("hub:") or _exists(value) or (key in DATA_KEYS and _matches(value)):
            continue
        what = f"{dotted(place)} matches no file" if glob.has_magic(value) else f"{dotted(place)} does not exist"
        problems.append(Problem(where(dotted(place)), f"{what}: {value!r}", _near_file(value)))
    return problems


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[Path, Path, str]]:
    """Yield the key, the place and the text of every path."""
    for key in (*DATA_KEYS, *FILE_KEYS, *BASE_KEYS, *SCORER_KEYS):
        for place, found in _reached(values, key, ()):
            for inner, text in _texts(place, found):
                yield key, inner, text


def _texts(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    """Yield the texts of a value with the place of each: itself, a list's items, the paths of a mixture's sources."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _texts((*path, number), one)
    elif isinstance(value, Mapping) and "path" in value:
        yield from _texts((*path, "path"), value["path"])


def _absolute(key: Path, value: str, folder: str) -> str:
    if value.startswith(("hub:", "package:")) or not value:
        return value
    if key in SCORER_KEYS:
        return _own_scorer(value, folder)
    value = os.path.expanduser(value)
    if key in BASE_KEYS and not _is_local_base(value, folder):
        return value
    if key not in DATA_KEYS:
        return os.path.normpath(os.path.join(folder, value))
    name = split_name(value, folder=folder)
    if glob.has_magic(name.path) and not os.path.isabs(name.path):
        folder = glob.escape(folder)
    return str(replace(name, path=os.path.normpath(os.path.join(folder, name.path))))


def _own_scorer(value: str, folder: str) -> str:
    module, colon, function = value.rpartition(":")
    if not colon or not module:
        return value
    file = module if module.endswith(".py") else module.replace(".", "/") + ".py"
    return os.path.normpath(os.path.join(folder, os.path.expanduser(file))) + colon + function


def _is_local_base(value: str, folder: str) -> bool:
    if value.lower().endswith(".gguf") or value.startswith(".") or not _HUB_ID.fullmatch(value):
        return True
    return _exists(os.path.join(folder, value))


def _exists(path: str) -> bool:
    return os.path.exists(path) if "\0" not in path else False


def _matches(pattern: str) -> bool:
    return "\0" not in pattern and next(glob.iglob(pattern, recursive=True), None) is not None


def _near_file(path: str) -> str:
    """Name the file of the same folder that is spelt most like a missing one, or the folder that is missing."""
    if "\0" in path or glob.has_magic(path):
        return ""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        return f"the folder {folder!r} does not exist"
    names = {one.lower(): one for one in sorted(os.listdir(folder)) if not one.startswith(".")}
    close = nearest(name, names)
    return f"did you mean {names[close]!r}?" if close else ""
