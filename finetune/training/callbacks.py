"""What happens between steps: when to look at the validation rows, when to save, what to log and to show."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from finetune.tracking import Tracker
from finetune.training.checkpoints import standing


class Cadence(TrainerCallback):  # type: ignore[misc]
    """Log each step; evaluate and save every so many steps and at the end; stop early when nothing improves."""

    def __init__(
        self, *, eval_every: int | None, save_every: int, early_stop: int | None, max_forgetting: float | None = None
    ) -> None:
        self.eval_every = eval_every
        self.save_every = save_every
        self.early_stop = early_stop
        self.max_forgetting = max_forgetting

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        last = state.global_step >= state.max_steps
        control.should_log = True
        control.should_training_stop = control.should_training_stop or last
        control.should_evaluate = self.eval_every is not None and (last or state.global_step % self.eval_every == 0)
        control.should_save = last or state.global_step % self.save_every == 0
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if looks_since_best(state.log_history, self.max_forgetting) == 0:
            # So that the best one can be taken back, whatever the saving cadence
            control.should_save = True
        if stops_early(state.log_history, self.early_stop, self.max_forgetting):
            control.should_training_stop = True
            control.should_save = True
        return control


def looks_since_best(history: list[dict[str, Any]], max_forgetting: float | None = None) -> int:
    """Return how many looks at the validation rows there were since the best; 0 where there was none."""
    found = [standing(entry, max_forgetting) for entry in history if "eval_loss" in entry]
    return len(found) - 1 - found.index(min(found)) if found else 0


def stops_early(history: list[dict[str, Any]], early_stop: int | None, max_forgetting: float | None = None) -> bool:
    """Whether a run with this history has gone without a new best for as long as the recipe allows."""
    return early_stop is not None and looks_since_best(history, max_forgetting) >= early_stop


class Tracking(TrainerCallback):  # type: ignore[misc]
    """Hand every log event to the tracker, with the speed since the one before."""

    # fmt: off
    NAMES = (
        "loss", "eval_loss", "eval_forgetting", "learning_rate", "grad_norm", "epoch", "tokens", "tokens_per_second",
    )
    # fmt: on

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        figures = {name: logs[name] for name in self.NAMES if logs and name in logs}
        if "loss" in figures or "eval_loss" in figures:
            self.tracker.log(state.global_step, figures)


class Meter:
    """Counts tokens and the seconds spent on them; looks at the validation rows and saves are not counted."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._last = (0, 0.0)

    def add(self, tokens: int, started: float) -> None:
        self.tokens += tokens
        self.seconds += time.perf_counter() - started

    def rate(self) -> float:
        """Return tokens per second since the last call."""
        tokens, seconds = self.tokens - self._last[0], self.seconds - self._last[1]
        self._last = (self.tokens, self.seconds)
        return tokens / seconds if seconds else 0.0


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """One line with loss, speed and remaining time, on a terminal's standard error."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task: TaskID | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.start()
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, figures="")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.task is None or not logs or "loss" not in logs:
            return
        figures = f"loss {logs['loss']:.3f}  {logs['tokens_per_second']:,.0f} tokens/s"
        self.progress.update(self.task, completed=state.global_step, figures=figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.stop()


def cadence(
    steps: int, *, eval_every: int | None, save_every: int | None, has_validation: bool
) -> tuple[int | None, int]:
    """Return the steps between looks at the validation rows (None without any) and between checkpoints."""
    looks = eval_every or max(1, math.ceil(steps / 5))
    return (looks if has_validation else None), save_every or looks
