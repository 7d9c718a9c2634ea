"""Figures on disk: every step told once, whatever stopped the run, and nobody called who was not asked for."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.recipe.schema import TrackSection, WandbTracker
from finetune.tracking import JsonLines, Trackers, open_trackers, read_metrics

REPO = Path(__file__).parents[1]


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_metrics(path)]


def test_each_event_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    tracker = JsonLines(path)
    assert read_metrics(path) == []
    tracker.log(1, {"loss": 2.5, "note": "first"})
    tracker.log(1, {"eval_loss": 3, "seen": None})
    tracker.finish({"best": 1})
    assert path.read_text() == '{"step": 1, "loss": 2.5, "note": "first"}\n{"step": 1, "eval_loss": 3, "seen": null}\n'
    assert read_metrics(path) == [
        {"step": 1, "loss": 2.5, "note": "first"},
        {"step": 1, "eval_loss": 3, "seen": None},
    ]


def test_a_new_run_begins_with_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    JsonLines(path).log(1, {"loss": 1.0})
    JsonLines(path)
    assert read_metrics(path) == []


def test_a_resumed_run_drops_what_comes_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonLines(path)
    for step in range(1, 7):
        tracker.log(step, {"loss": 1.0 / step})
    before = read_metrics(path)
    again = JsonLines(path, resume_step=4)
    assert read_metrics(path) == before[:4]
    again.log(5, {"loss": 9.0})
    assert steps(path) == [1, 2, 3, 4, 5]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_half_a_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonLines(path)
    tracker.log(1, {"loss": 2.0})
    tracker.log(2, {"loss": 1.0})
    with path.open("a") as handle:
        handle.write('{"step": 3, "lo')
    assert steps(path) == [1, 2]
    JsonLines(path, resume_step=2).log(3, {"loss": 0.5})
    assert steps(path) == [1, 2, 3]


def test_text_with_odd_line_ends_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    JsonLines(path).log(1, {"note": "a\nb\u2028c\x85d"})
    assert read_metrics(path) == [{"step": 1, "note": "a\nb\u2028c\x85d"}]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_json_is_a_bug_and_writes_nothing(tmp_path: Path, value: float) -> None:
    tracker = JsonLines(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        tracker.log(1, {"loss": value})
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_several_trackers_are_told_the_same(tmp_path: Path) -> None:
    both = Trackers(JsonLines(tmp_path / "a"), JsonLines(tmp_path / "b"))
    both.log(1, {"loss": 1.0})
    both.finish({})
    assert read_metrics(tmp_path / "a") == read_metrics(tmp_path / "b") == [{"step": 1, "loss": 1.0}]


def test_without_trackers_only_lines_are_written(tmp_path: Path) -> None:
    tracker = open_trackers(TrackSection(), folder=tmp_path, run_name="run", config={})
    assert isinstance(tracker, JsonLines)
    tracker.log(1, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


# ------------------------------------------------------------------------------------------------------- wandb

TRACKED = """
import sys
from pathlib import Path
from finetune.recipe.schema import TrackSection, WandbTracker
from finetune.tracking import open_trackers
if sys.argv[3] == "imported before":
    import wandb
section = TrackSection(wandb=WandbTracker(mode=sys.argv[2]))
tracker = open_trackers(section, folder=Path(sys.argv[1]), run_name="tickets", config={"rank": 16})
for step in (1, 2):
    tracker.log(step, {"loss": 1 / step})
tracker.finish({"verdict": "better"})
"""


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that answers nobody: its address, and the first bytes of whoever called."""
    calls: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    calls.append(caller.recv(200))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


def environment(home: Path, proxy: str, **more: str) -> dict[str, str]:
    """An environment without keys and habits, whose every connection goes to `proxy`."""
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG", "NETRC"))}
    proxies = {name: proxy for kind in ("http", "https", "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())}
    return {**kept, **proxies, "NO_PROXY": "", "no_proxy": "", "HOME": str(home), **more}


def tracked(tmp_path: Path, proxy: str, *, mode: str = "auto", order: str = "first", **more: str) -> Path:
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    run.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TRACKED, str(run), mode, order],
        cwd=REPO,
        env=environment(tmp_path / "home", proxy, **more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("order", ["imported here", "imported before"])
def test_wandb_without_a_key_writes_into_the_run_folder_and_calls_nobody(tmp_path: Path, order: str) -> None:
    with listening() as (proxy, calls):
        run = tracked(tmp_path, proxy, order=order)
    assert calls == []
    assert steps(run / "metrics.jsonl") == [1, 2]
    (offline,) = (run / "wandb").glob("offline-run-*")
    (written,) = offline.glob("run-*.wandb")
    content = written.read_bytes()
    for word in (b"tickets", b"rank", b"loss", b"verdict", b"better"):
        assert word in content
    outside = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert all(path.suffix == ".log" for path in outside), outside


@pytest.mark.slow
def test_the_listener_hears_what_calls(tmp_path: Path) -> None:
    code = "import urllib.request as u\ntry: u.urlopen('https://api.wandb.ai')\nexcept OSError: pass"
    with listening() as (proxy, calls):
        subprocess.run([sys.executable, "-c", code], env=environment(tmp_path / "home", proxy), check=True)
    assert len(calls) == 1
    assert calls[0].startswith(b"CONNECT api.wandb.ai:443")


@pytest.mark.slow
def test_a_key_does_not_overrule_an_environment_that_says_offline(tmp_path: Path) -> None:
    with listening() as (proxy, calls):
        run = tracked(tmp_path, proxy, WANDB_API_KEY="0" * 40, WANDB_MODE="offline")
    assert calls == []
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1


def asked_mode(tmp_path: Path, netrc: str | None = None, **more: str) -> str:
    """The mode that `auto` comes to."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    if netrc is not None:
        (home / ".netrc").write_text(netrc)
        (home / ".netrc").chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-c", "from finetune.tracking import _wandb_mode; print(_wandb_mode())"],
        cwd=REPO,
        env=environment(home, "", **more),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("netrc", "more", "expected"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": "key"}, "online"),
        (None, {"WANDB_API_KEY": ""}, "offline"),
        (None, {"WANDB_API_KEY": "key", "WANDB_MODE": "disabled"}, "disabled"),
        (None, {"WANDB_MODE": "online"}, "offline"),
        ("machine api.wandb.ai login user password key\n", {}, "online"),
        ("machine api.forge.coreweave.com login user password key\n", {}, "online"),
        ("machine example.org login user password key\n", {}, "offline"),
        ("default login user password key\n", {}, "offline"),
        ("machine api.wandb.ai login user password key\n", {"WANDB_BASE_URL": "https://wandb.example.org"}, "offline"),
        ("machine wandb.example.org login u password key\n", {"WANDB_BASE_URL": "https://wandb.example.org"}, "online"),
        ("not a netrc file\n", {}, "offline"),
    ],
)
def test_auto_is_online_with_a_key_only(tmp_path: Path, netrc: str | None, more: dict[str, str], expected: str) -> None:
    assert asked_mode(tmp_path, netrc, **more) == expected


def test_wandb_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    with pytest.raises(FinetuneError) as caught:
        open_trackers(TrackSection(wandb=WandbTracker(mode="offline")), folder=tmp_path, run_name="r", config={})
    assert str(caught.value) == (
        "track.wandb needs the package 'wandb', which is not installed\n    -> pip install 'finetune[wandb]'"
    )


def test_metrics_are_json_for_other_tools_too(tmp_path: Path) -> None:
    JsonLines(tmp_path / "m").log(3, {"loss": 0.1})
    assert [json.loads(line) for line in (tmp_path / "m").read_text().splitlines()] == [{"step": 3, "loss": 0.1}]
