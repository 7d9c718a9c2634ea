"""A scorer that the user wrote, named `module:function` in the recipe: `own_scorer` imports it and checks its scores.

The function is called as `function(answer, reference, metadata)` and returns how good the answer is, 0 to 1. It runs in
this process with all its rights, so nothing is imported unless the recipe allows it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import numbers
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finetune.errors import FinetuneError, nearest
from finetune.evaluation.scoring.scorer import Score, Scorer, Unjudged

_KEY = "evaluate.scorer"
_SIGNATURE = "write it as `def {name}(answer: str, reference: str, metadata: dict) -> float`"


def is_own(name: str) -> bool:
    """Tell whether a recipe's scorer is the user's own: `file.py:function`."""
    return ":" in name


def own_scorer(name: str, *, allowed: bool) -> Scorer:
    """Import the user's function and make a scorer of it.

    Args:
        name: `path/of/file.py:function`, as a recipe that has been read names it.
        allowed: the recipe says `evaluate.allow_code_execution: true`.

    Raises:
        FinetuneError: it is not allowed, there is no such file or function, or it takes other arguments.
    """
    file, _, called = name.rpartition(":")
    if not allowed:
        raise FinetuneError(
            f"the scorer {called!r} of {file!r} is code, which would run with all your rights",
            where="evaluate.allow_code_execution",
            fix="read it, and where you want that, set evaluate.allow_code_execution: true",
        )
    path = Path(file)
    if not path.is_file():
        raise FinetuneError(f"there is no file {file!r}", where=_KEY, fix="name a Python file beside the recipe")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    function = _function(path, called, digest)

    def judge(answer: str, reference: str, metadata: Mapping[str, Any]) -> Score:
        try:
            given = function(answer, reference, dict(metadata))
        except Exception as error:
            raise Unjudged(f"{called}() raised {_told(error, path)}") from error
        return Score(_share(given, called))

    def alone(answer: str, reference: str) -> Score:
        raise ValueError(f"{called} judges no answer without its item's metadata: take score()")

    what = f"{called}() of {path.name} (SHA-256 {digest[:12]})"
    return Scorer(called, False, True, f"mean {called}", alone, what, judge_item=judge)


def _function(path: Path, called: str, digest: str) -> Callable[..., object]:
    """Import a file by itself, under a name that no other module has, and take a function out of it."""
    module_name = f"finetune_own_scorer_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise FinetuneError(f"{str(path)!r} is no Python file", where=_KEY, fix="name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        what = f"{str(path)!r} cannot be imported: {_told(error, path)}"
        fix = "mend the file; it stands alone and sees no file beside it"
        raise FinetuneError(what, where=_KEY, fix=fix) from error
    found = getattr(module, called, None)
    if not callable(found):
        near = nearest(called, [name for name, one in vars(module).items() if inspect.isfunction(one)])
        fix = f"did you mean {near!r}?" if near else _SIGNATURE.format(name=called)
        raise FinetuneError(f"{str(path)!r} has no function {called!r}", where=_KEY, fix=fix)
    try:
        inspect.signature(found).bind("answer", "reference", {})
    except TypeError as error:
        what = f"{called!r} of {str(path)!r} does not take an answer, a reference and metadata: {error}"
        raise FinetuneError(what, where=_KEY, fix=_SIGNATURE.format(name=called)) from None
    return found  # type: ignore[no-any-return]


def _told(error: BaseException, path: Path) -> str:
    """Say what was raised, and at which line of the user's file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    place = f" at {path.name}:{lines[-1]}" if lines else ""
    text = str(error)
    return f"{type(error).__name__}{place}" + (f": {text[:200]}" if text else "")


def _share(given: object, called: str) -> float:
    if not isinstance(given, numbers.Real):
        raise Unjudged(f"{called}() returned {given!r:.80} ({type(given).__name__}), not a number from 0 to 1")
    value = float(given)
    if math.isnan(value) or not 0 <= value <= 1:
        raise Unjudged(f"{called}() returned {value!r}, not a number from 0 to 1")
    return value
