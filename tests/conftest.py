"""What every test stands on: no network, caches of its own, one thread, and a base model small enough to train."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.small_runs import SmallRun

# Read by the libraries when they are first imported, so set before any test module is
CACHES = Path(tempfile.mkdtemp(prefix="finetune-tests-"))
os.environ.update(
    HF_HOME=str(CACHES / "hub"),
    FINETUNE_CACHE=str(CACHES / "finetune"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    WANDB_MODE="offline",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure() -> None:
    shutil.rmtree(CACHES, ignore_errors=True)


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse every connection that leaves this machine, and fail the test that tried, whoever caught the refusal.

    A test that means to look at a refusal empties the list.
    """
    tried: list[str] = []
    connect, find = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            tried.append(str(address))
            raise ConnectionRefusedError(f"tests have no network: {address}")
        connect(self, address)

    def guarded_find(host: Any, *rest: Any, **named: Any) -> Any:
        if not _is_here(host):
            tried.append(str(host))
            raise socket.gaierror(f"tests have no network: {host}")
        return find(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_find)
    yield tried
    assert not tried, f"this test went to the network: {tried}"


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    return host is None or name in ("", "localhost", "::1") or name.startswith("127.")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama and its tokenizer, as save_pretrained leaves them."""
    from tests.tiny import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 48 prompts with answers."""
    from tests.small_runs import questions, write_lines

    return write_lines(tmp_path_factory.mktemp("data") / "questions.jsonl", questions())


@pytest.fixture(scope="session")
def lora_run(tiny_base: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A whole run that nothing disturbed."""
    from finetune import pipeline
    from tests.small_runs import SmallRun, small_recipe

    method = {"kind": "lora", "rank": 4, "dropout": 0.1}
    recipe = small_recipe(tiny_base, corpus, tmp_path_factory.mktemp("runs"), method=method)
    result = pipeline.run(recipe)
    return SmallRun(recipe, result, Path(result.run))


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the one JSON value that standard output has to be."""
        return json.loads(self.out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process: `command("check", recipe, "--json")`."""
    from finetune.cli.app import app

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            app([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return Said(int(stop.value.code or 0), written.out, written.err)

    return call
