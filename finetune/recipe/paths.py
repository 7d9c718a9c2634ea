"""Which values of a recipe are paths, from where they count, and which of them lead nowhere."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from finetune.errors import Problem, nearest
from finetune.recipe.tree import Path, Tree, dotted

DATA_KEYS: tuple[Path, ...] = (("data", "train"), ("data", "validation"), ("data", "test"))
FILE_KEYS: tuple[Path, ...] = (("data", "split", "test_ids"), ("model", "chat_template"))
BASE_KEY: Path = ("model", "base")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def resolve_paths(tree: Tree) -> None:
    """Make every relative path in the tree absolute, counted from where it was written.

    A path in a recipe counts from the folder of that file, one given by `--set` from the current folder. Left alone:
    `hub:` and `package:` names, and a base that looks like a hub id and is no folder there.
    """
    for key in (*DATA_KEYS, *FILE_KEYS, BASE_KEY):
        section: Any = tree.values
        for step in key[:-1]:
            section = section.get(step) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key[-1] not in section:
            continue
        value, name = section[key[-1]], key[-1]
        if isinstance(value, str):
            section[name] = _absolute(key, value, tree.source(key).folder)
        elif isinstance(value, list):
            folders = [tree.source((*key, number)).folder for number in range(len(value))]
            section[name] = [
                _absolute(key, one, folder) if isinstance(one, str) else one
                for one, folder in zip(value, folders, strict=True)
            ]


def is_hub_base(base: str) -> bool:
    """Tell whether a resolved `model.base` names a model of the hub rather than something on this machine."""
    return not (base.startswith("package:") or os.path.isabs(base) or base.lower().endswith(".gguf") or _exists(base))


def missing(values: Mapping[str, Any], where: Callable[[str], str]) -> list[Problem]:
    """Report every path among the (resolved) values that leads to no file; globs have to match at least one."""
    problems = []
    for key, value in _paths(values):
        if key == BASE_KEY and not os.path.isabs(value):
            continue
        if value.startswith("hub:") or _exists(value) or (key[:2] in DATA_KEYS and _matches(value)):
            continue
        what = f"{dotted(key)} matches no file" if glob.has_magic(value) else f"{dotted(key)} does not exist"
        problems.append(Problem(where(dotted(key)), f"{what}: {value!r}", _near_file(value)))
    return problems


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for key in (*DATA_KEYS, *FILE_KEYS, BASE_KEY):
        found: Any = values
        for step in key:
            found = found.get(step) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            yield key, found
        elif isinstance(found, (list, tuple)):
            yield from (((*key, number), one) for number, one in enumerate(found) if isinstance(one, str))


def _absolute(key: Path, value: str, folder: str) -> str:
    if value.startswith(("hub:", "package:")) or not value:
        return value
    value = os.path.expanduser(value)
    if key == BASE_KEY and not _is_local_base(value, folder):
        return value
    if key in DATA_KEYS and glob.has_magic(value) and not os.path.isabs(value):
        folder = glob.escape(folder)
    return os.path.normpath(os.path.join(folder, value))


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
