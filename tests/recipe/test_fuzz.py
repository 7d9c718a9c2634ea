"""Whatever a file says, reading it ends in a Recipe or in a FinetuneError that says where and what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.recipe import Recipe, load_recipe, problems, recipe_from_dict, to_yaml
from finetune.recipe.names import ALIASES, all_keys

KEYS = sorted({step for key in all_keys() for step in key.split(".")} | set(list(ALIASES)[:20]) | {"extends", "0", ""})
WORDS = [*KEYS, "lora", "qlora", "full", "sft", "pretrain", "merged", "auto", "yes", "true", "null", "~", "1e-4", "0",
         "-1", "1e999", ".nan", "a/b", "*.csv", "hub:a/b", "\\0"]  # fmt: skip

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
yaml_text = st.lists(
    st.sampled_from(WORDS)
    | st.sampled_from([": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "'", '"', "#", "|\n",
                       ">-\n", "? ", "!!int ", "\t", "---\n", "<<: ", "%", "@", "\\", "\x00", "\u2028", "é"]),
    max_size=40,
).map("".join)  # fmt: skip

WHOLE: dict[str, Any] = {
    "model": {"base": "a/b", "revision": "main"},
    "data": {"train": ["x.jsonl"], "columns": {"text": "body"}, "split": {"validation": 0.1}, "format": "text"},
    "objective": {"kind": "pretrain"},
    "method": {"kind": "qlora", "rank": 8, "targets": ["q_proj"]},
    "train": {"steps": 3, "learning_rate": 1e-4},
    "export": [{"kind": "merged", "max_kl": 0.1}],
    "track": {"wandb": {"mode": "offline"}},
}


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for step, inner in steps for found in paths_of(inner, (*path, step)))]


PLACES = paths_of(WHOLE)[1:]


def outcome(read: Callable[[], Recipe]) -> Recipe | FinetuneError:
    try:
        return read()
    except FinetuneError as error:
        return error


def ends_well(path: Path, overrides: list[str] | None = None) -> Recipe | FinetuneError:
    found = problems(path, overrides or [])
    assert all(problem.what and "\n" not in problem.where for problem in found)
    result = outcome(lambda: load_recipe(path, overrides or []))
    if isinstance(result, FinetuneError):
        assert set(result.problems) <= set(found)
    return result


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(text=yaml_text)
@quick
def test_any_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    assert isinstance(ends_well(path), FinetuneError)


@given(raw=st.binary(max_size=60))
@quick
def test_any_bytes(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert isinstance(ends_well(path), FinetuneError)


@given(place=st.sampled_from(PLACES), value=values, remove=st.booleans(), extra=st.sampled_from(KEYS))
@quick
def test_mutated_recipes(path: Path, place: tuple[Any, ...], value: Any, remove: bool, extra: str) -> None:
    mutated = copy.deepcopy(WHOLE)
    section: Any = mutated
    for step in place[:-1]:
        section = section[step]
    if remove:
        del section[place[-1]]
    else:
        section[place[-1]] = value
    if isinstance(section, dict) and not remove:
        section.setdefault(extra, value)
    path.write_text(yaml.safe_dump(mutated, allow_unicode=True), encoding="utf-8", errors="replace")
    recipe = ends_well(path)
    if isinstance(recipe, Recipe):
        again = path.with_name("again.yaml")
        again.write_text(to_yaml(recipe), encoding="utf-8")
        assert load_recipe(again) == recipe


@given(override=st.sampled_from(["", *all_keys()]).flatmap(lambda key: yaml_text.map(lambda text: f"{key}={text}")))
@quick
def test_any_override(path: Path, override: str) -> None:
    path.write_text(yaml.safe_dump(WHOLE))
    ends_well(path, [override])


@given(value=values, place=st.sampled_from(PLACES))
@quick
def test_any_python_values(value: Any, place: tuple[Any, ...]) -> None:
    mutated = copy.deepcopy(WHOLE)
    section: Any = mutated
    for step in place[:-1]:
        section = section[step]
    section[place[-1]] = value
    assert isinstance(outcome(lambda: recipe_from_dict(mutated)), (Recipe, FinetuneError))


def test_the_unchanged_recipe_is_whole(path: Path) -> None:
    path.write_text(yaml.safe_dump(WHOLE))
    assert isinstance(ends_well(path), Recipe)
