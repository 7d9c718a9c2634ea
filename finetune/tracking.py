"""Where a run's figures go: `metrics.jsonl` always, other trackers when the recipe names them."""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from finetune.errors import FinetuneError, missing_extra
from finetune.recipe.schema import TrackSection, WandbTracker

# The public service moved from the first to the second with wandb 0.31
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")

Figures = Mapping[str, float | int | str | None]


class Tracker(Protocol):
    """Takes the figures of a run as they come."""

    def log(self, step: int, figures: Figures) -> None: ...

    def finish(self, summary: Figures) -> None: ...


class JsonLines:
    """One JSON object a log event in `metrics.jsonl`.

    A run that resumes at an earlier step drops the lines after it, so that no step is told twice.
    """

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        self.path = path
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resume_step] if resume_step else []
        aside = path.with_name(f".{path.name}.kept")
        aside.write_text("".join(kept), encoding="utf-8")
        os.replace(aside, path)

    def log(self, step: int, figures: Figures) -> None:
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"step": step, **figures}, allow_nan=False) + "\n")

    def finish(self, summary: Figures) -> None:
        """Nothing to do: the lines are on disk, the summary is in the manifest."""


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    # A kill in the middle of a write leaves a last line without its end.
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a run's `metrics.jsonl`; an empty list where there is none."""
    return [json.loads(line) for line in _lines(path)]


class Wandb:
    """Weights & Biases. Offline where there is no key, so that nothing waits for a login.

    With `mode: auto` the environment's WANDB_MODE may keep a run offline, but not put it online.
    """

    def __init__(self, section: WandbTracker, *, run_name: str, folder: Path, config: Mapping[str, Any]) -> None:
        mode = _wandb_mode() if section.mode == "auto" else section.mode
        if mode != "online":
            # Offline runs, too, tell the service how wandb itself is doing (wandb 0.31), unless this is off
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("wandb", "wandb", "track.wandb") from error
        try:
            self._run = wandb.init(
                project=section.project,
                entity=section.entity,
                name=run_name,
                dir=str(folder),
                config=dict(config),
                mode=mode,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:
            raise FinetuneError(
                f"Weights & Biases did not start: {error}", where="track.wandb", fix="set track.wandb.mode: offline"
            ) from error

    def log(self, step: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, summary: Figures) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish()


def _wandb_mode() -> Literal["online", "offline", "disabled"]:
    asked = os.environ.get("WANDB_MODE")
    if asked == "disabled":
        return "disabled"
    return "online" if asked != "offline" and _has_wandb_key() else "offline"


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any(host in known for host in ([urlsplit(own).netloc] if own else WANDB_HOSTS))


class Trackers:
    """Several trackers that are told the same."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def log(self, step: int, figures: Figures) -> None:
        for tracker in self._trackers:
            tracker.log(step, figures)

    def finish(self, summary: Figures) -> None:
        for tracker in self._trackers:
            tracker.finish(summary)


def open_trackers(
    section: TrackSection, *, folder: Path, run_name: str, config: Mapping[str, Any], resume_step: int = 0
) -> Tracker:
    """Open every tracker that the recipe asks for, and `metrics.jsonl`."""
    lines = JsonLines(folder / "metrics.jsonl", resume_step=resume_step)
    if section.wandb is None:
        return lines
    return Trackers(lines, Wandb(section.wandb, run_name=run_name, folder=folder, config=config))
