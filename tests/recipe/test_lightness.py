"""Reading a recipe must not wait for the libraries that train."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "pandas", "numpy", "scipy", "datasets", "peft", "trl", "pyarrow"}


def heavy_after(code: str) -> set[str]:
    """The heavy packages that are loaded after `code` ran in a fresh interpreter."""
    tail = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=REPO, capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stdout))


def test_reading_a_recipe_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {base: a/b}\ndata: {train: x}\n")
    calls = "r = load_recipe(p); problems(p); explain(r); to_yaml(r); json_schema(); reference_markdown()"
    assert heavy_after(f"p = {str(path)!r}\nfrom finetune.recipe import *\n{calls}") == set()


def test_the_check_itself_sees_heavy_packages() -> None:
    pytest.importorskip("numpy")
    assert heavy_after("import finetune.recipe, numpy") == {"numpy"}
