"""The standard of the house, as far as no linter knows it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "finetune"
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "scipy", "pandas", "numpy", "pyarrow", "matplotlib"}

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60


def relative(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def test_there_is_a_house_to_look_at() -> None:
    assert len(SOURCES) > 50
    assert {path.parent.name for path in SOURCES} >= {"finetune", "cli", "data", "models", "training", "recipe"}


# ------------------------------------------------------------------------------------------------------- lightness


def heavy_after(code: str) -> set[str]:
    """The heavy packages that are loaded after `code` ran in a fresh interpreter."""
    tail = "\nimport json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=REPO, capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


HELP = """
import sys
from finetune.__main__ import main
sys.argv = ["finetune", *{arguments}]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
"""


def test_importing_finetune_loads_nothing_heavy() -> None:
    assert heavy_after("import finetune; dir(finetune); finetune.FinetuneError; finetune.Recipe") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["data", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert heavy_after(HELP.format(arguments=arguments)) == set()


def test_the_look_at_lightness_sees_what_is_heavy() -> None:
    assert "torch" in heavy_after("import torch")


# ----------------------------------------------------------------------------------------------------- public face


def test_every_public_name_resolves() -> None:
    assert len(finetune.__all__) >= 10
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
    assert set(finetune.__all__) <= set(dir(finetune))
    with pytest.raises(AttributeError, match=r"^module 'finetune' has no attribute 'nothing'$"):
        _ = finetune.nothing


def test_what_a_type_checker_sees_is_what_there_is() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == finetune._HOMES


# ------------------------------------------------------------------------------------------------------ proportions


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring: explaining at length is no fault."""
    docstring = ast.get_docstring(node, clean=False)
    explained = len(docstring.splitlines()) if docstring else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - explained


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) >= LINES_OF_A_FILE:
            long.append(f"{relative(path)}: {lines} lines")
        for node in functions(ast.parse(text)):
            if length(node) >= LINES_OF_A_FUNCTION:
                long.append(f"{relative(path)}:{node.lineno}: {node.name} has {length(node)} lines")
    assert long == []


def test_no_room_for_odds_and_ends() -> None:
    odd = re.compile(r"(utils?|helpers?|common|misc)(\.py)?")
    assert [relative(path) for path in PACKAGE.rglob("*") if odd.fullmatch(path.name)] == []


def test_modules_classes_and_functions_say_what_they_are() -> None:
    silent = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(relative(path))
        for node in tree.body:
            named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{relative(path)}:{node.lineno}: {node.name}")
    assert silent == []


# ------------------------------------------------------------------------------------------------- foreign code

RUNS_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def dangers(source: str) -> list[str]:
    """What in a source could run code that came with data or with a model."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [f"imports {name}" for name in modules if name.partition(".")[0] in RUNS_CODE]
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        found += [f"{name}=True" for name in ("trust_remote_code", "allow_pickle") if given.get(name) == "True"]
    return found


def test_nothing_runs_code_that_comes_with_data_or_models() -> None:
    assert {relative(path): found for path in SOURCES if (found := dangers(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", "imports pickle"),
        ("from joblib.numpy_pickle import load", "imports joblib"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code=True"),
        ("np.load(x, allow_pickle=True)", "allow_pickle=True"),
    ],
)
def test_the_look_at_dangers_sees_them(source: str, expected: str) -> None:
    assert dangers(source)[0].startswith(expected.partition(".")[0])
    assert dangers("torch.load(path, weights_only=True)\nf(trust_remote_code=base.trust_remote_code)") == []


# ------------------------------------------------------------------------------------------------- machine paths

MACHINE_PATH = re.compile(r"(?<![\w./:-])/(work|tmp|root|home/\w+|Users/\w+)(/|\b)")
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".jinja", ".json", ".jsonl", ".csv", ".txt", ""}


def texts() -> list[Path]:
    found = [REPO / name for name in ("README.md", "Makefile", "pyproject.toml", "constraints.txt")]
    for folder in ("finetune", "data", "docs", "recipes", "notebooks", "benchmarks", ".ci"):
        found += [path for path in (REPO / folder).rglob("*") if path.is_file() and path.suffix in TEXTS]
    return [path for path in found if "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts]


def test_no_path_of_one_machine_stands_in_the_project() -> None:
    looked_at = texts()
    assert {path.name for path in looked_at} >= {"README.md", "pipeline.py", "quickstart.yaml", "plain.jinja"}
    found = [
        f"{relative(path)}:{number}: {line.strip()[:80]}"
        for path in looked_at
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("data: /work/x.csv", True),
        ('"/tmp"', True),
        ("cd /root/runs", True),
        ("/home/ann/x", True),
        ("runs/work/x", False),
        ("https://example.org/tmp/x", False),
        ("the tmp folder", False),
        ("/workflow", False),
    ],
)
def test_the_look_at_paths_sees_them(text: str, seen: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is seen


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [relative(path) for path in texts() if path.suffix == ".py" and later.search(path.read_text("utf-8"))] == []
