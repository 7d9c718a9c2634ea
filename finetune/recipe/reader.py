"""From a recipe file to a `Recipe`: `load_recipe("recipe.yaml", ["train.epochs=1"])`, or every problem at once.

text -> tree of values with their places    (tree.py)
     -> laid over the file it extends, with --set on top
     -> paths made absolute                 (paths.py)
     -> validated by the schema             (schema.py; errors told by translate.py and names.py)
     -> checked as a whole                  (rules.py)
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from finetune.errors import FinetuneError, Problem
from finetune.recipe.paths import missing, resolve_paths
from finetune.recipe.rules import findings
from finetune.recipe.schema import Recipe, Section
from finetune.recipe.translate import Fault, faults
from finetune.recipe.tree import Path, Source, Tree, dotted, lay_over, read_dict, read_override, read_yaml
from finetune.recipe.words import sections, show

MAX_BYTES = 1_000_000
FILE_NAME = "the recipe's file name"


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Args:
        path: the YAML file. Relative paths in it count from its own folder.
        overrides: settings laid over it, as `section.key=value`; relative paths in them count from the current
            folder. The value is read as YAML: a word, a number, quoted text, `[a, b]` or `{key: value}`.

    Returns:
        The recipe, with all paths absolute, `run.name` filled in, and the place of every setting in `where()`.

    Raises:
        FinetuneError: the file cannot be read, or says something a recipe cannot say; it carries every problem.
            Files the recipe names need not exist; `problems` and `missing_files` look for them.
    """
    recipe, found = _recipe(_tree(os.fspath(path), overrides))
    if recipe is None:
        raise FinetuneError.of(_in_order(found))
    return recipe


def recipe_from_dict(values: Mapping[str, Any], *, where: str = "<python>") -> Recipe:
    """Make a recipe from Python values: `recipe_from_dict({"model": {"base": ...}, "data": {"train": ...}})`.

    Args:
        values: what a recipe file would say; tuples, paths and section objects are welcome. Relative paths count
            from the current folder.
        where: what problems call the place the values come from.

    Raises:
        FinetuneError: with every problem, as `load_recipe` does.
    """
    recipe, found = _recipe(_prepared(read_dict(values, Source(where, 0, os.getcwd()))))
    if recipe is None:
        raise FinetuneError.of(_in_order(found))
    return recipe


def problems(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> list[Problem]:
    """Return everything that is wrong with a recipe file, missing files among it, in the order of its lines.

    Never raises a FinetuneError: what cannot be read at all is the one problem of the list.
    """
    try:
        tree = _tree(os.fspath(path), overrides)
    except FinetuneError as error:
        return list(error.problems)
    _, found = _recipe(tree)
    return _in_order([*found, *missing(tree.values, lambda key: str(tree.source(_split(key))))])


# ------------------------------------------------------------------------------------------------- files and layers


def _tree(path: str, overrides: Sequence[str]) -> Tree:
    """Read the file, the file it extends and the overrides into one tree."""
    tree = _read_file(path, "")
    if "extends" in tree.values:
        own, base = tree, _read_base(tree.values.pop("extends"), tree, path)
        tree = lay_over(base, own, _default_kinds())
        tree.top = own.top
    tree = lay_over(tree, _read_overrides(overrides), _default_kinds())
    _name_run(tree, path)
    return _prepared(tree)


def _prepared(tree: Tree) -> Tree:
    """Make paths absolute, and write down the kind of sections that leave it to the default."""
    resolve_paths(tree)
    for name, kind in _default_kinds().items():
        section = tree.values.get(name)
        if isinstance(section, dict) and "kind" not in section:
            tree.values[name] = {"kind": kind, **section}
    return tree


def _read_file(path: str, where: str) -> Tree:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise FinetuneError(f"{path!r} is a folder", where=where, fix="give the recipe file in it")
        if not stat.S_ISREG(mode):
            raise FinetuneError(f"{path!r} is no ordinary file", where=where, fix="give a YAML file")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        fix = f"give a recipe that exists; the current folder is {os.getcwd()}"
        raise FinetuneError(f"there is no recipe {path!r}", where=where, fix=fix) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FinetuneError(
            f"cannot read {path!r}: {reason}", where=where, fix="check the path and its rights"
        ) from None
    if len(raw) > MAX_BYTES:
        raise FinetuneError(
            f"{path!r} is larger than 1 MB", where=where, fix="give the recipe; data belong in data.train"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FinetuneError("not UTF-8 text", where=f"{path}:{line}", fix="save the file as UTF-8") from None
    return read_yaml(text, Source(path, 1, os.path.dirname(os.path.abspath(path))))


def _read_base(name: Any, tree: Tree, path: str) -> Tree:
    """Read the file that a recipe extends; it must not extend another."""
    where = str(tree.source(("extends",)))
    if not isinstance(name, str) or not name:
        raise FinetuneError(f"extends is {show(name)}; it must be the path of one file", where=where)
    base = _read_file(os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(name))), where)
    if "extends" in base.values:
        source = base.source(("extends",))
        fix = "a recipe extends one file, which stands alone: move the settings there"
        base.problems.append(Problem(str(source), f"{source.file!r} is extended and extends another file", fix))
        del base.values["extends"]
    return base


def _read_overrides(overrides: Sequence[str]) -> Tree:
    """Read `--set` settings into one tree; each setting may be given once."""
    top = Source("--set", 0, os.getcwd())
    result = Tree(top)
    seen: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        source = Source(f"--set {key}", 0, top.folder)
        try:
            if not equals:
                raise FinetuneError("there is no '='", where=str(source), fix="write --set section.key=value")
            if not all(key.split(".")):
                raise FinetuneError(f"{key!r} names no setting", where=str(source), fix="write --set section.key=value")
            if key in seen:
                raise FinetuneError(f"{key} is set twice", where=str(source), fix="keep one of them")
            seen.add(key)
            result = lay_over(result, read_override(tuple(key.split(".")), text, source), {})
        except FinetuneError as error:
            result.problems.extend(error.problems)
    return result


def _name_run(tree: Tree, path: str) -> None:
    """Name the run after the recipe file where the recipe does not name it."""
    run = tree.values.setdefault("run", {})
    if isinstance(run, dict) and run.get("name") is None:
        stem = os.path.splitext(os.path.basename(path))[0]
        run["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "run"
        tree.sources["run", "name"] = Source(FILE_NAME)


# ------------------------------------------------------------------------------------------------------- validation


def _recipe(tree: Tree) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe and no problems, or None and all of them."""
    recipe, wrong = _validate(tree)
    found = [*tree.problems, *(fault.problem(tree) for fault in wrong)]
    judged = recipe if recipe is not None else _repaired(tree, wrong)
    if judged is not None:
        unsure = {name for fault in wrong for name in fault.sections()}
        broken = [one for one in findings(judged) if not unsure & one.sections()]
        found += [Problem(str(tree.source(_split(one.key))), one.what, one.fix) for one in broken]
    if recipe is None or found:
        return None, found
    recipe._origins = {dotted(path): str(source) for path, source in tree.sources.items()}
    return recipe, []


def _validate(tree: Tree) -> tuple[Recipe | None, list[Fault]]:
    """Validate strictly: no text is taken for a number, no number for text, no word for true or false."""
    try:
        return Recipe.model_validate_json(json.dumps(tree.values), strict=True), []
    except ValidationError as error:
        return None, faults(error, tree)


def _repaired(tree: Tree, wrong: Sequence[Fault]) -> Recipe | None:
    """Return the recipe without its faulty settings, so that the rules can judge the rest; None if that fails."""
    values = json.loads(json.dumps(tree.values))
    for fault in wrong:
        if not fault.missing:
            _remove(values, fault.path)
    for name, field in Recipe.model_fields.items():
        for section in sections(field.annotation) if field.is_required() else ():
            inner = values.setdefault(name, {})
            for key, one in section.model_fields.items():
                if one.is_required():
                    inner.setdefault(key, "unknown")
    for name, kind in _default_kinds().items():
        if name in values:
            values[name].setdefault("kind", kind)
    try:
        return Recipe.model_validate_json(json.dumps(values), strict=True)
    except ValidationError:
        return None


def _remove(values: Any, path: Path) -> None:
    """Take out the setting at `path`, or the whole list when it stands in one."""
    for step in path[:-1]:
        inner = values.get(step)
        if not isinstance(inner, dict):
            values.pop(step, None)
            return
        values = inner
    values.pop(path[-1], None)


def _default_kinds() -> dict[str, str]:
    """Return the `kind` of each section that has several, where the recipe does not say it."""
    chosen: dict[str, str] = {}
    for name, field in Recipe.model_fields.items():
        if field.discriminator:
            default: Section = field.get_default(call_default_factory=True)
            chosen[name] = str(getattr(default, str(field.discriminator)))
    return chosen


def _split(key: str) -> Path:
    return tuple(int(step) if step.isdecimal() else step for step in key.split("."))


def _in_order(found: Sequence[Problem]) -> list[Problem]:
    """Sort problems by file and line, and leave out repetitions."""

    def place(problem: Problem) -> tuple[str, int]:
        file, _, line = problem.where.rpartition(":")
        return (file, int(line)) if line.isdecimal() else (problem.where, 0)

    return sorted(dict.fromkeys(found), key=place)
