"""What verbs print: results on standard output, progress and problems on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TextIO

from finetune.errors import FinetuneError, Problem

DONE, BUG, MENDABLE, NOT_PASSED = 0, 1, 2, 3
INTERRUPTED = 130

# Where results go while what libraries print is kept from standard output
RESULTS: ContextVar[TextIO | None] = ContextVar("RESULTS", default=None)


def tell(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def quiet_output(quiet: bool) -> bool:
    """Whether progress bars are left out: asked for, or standard error is no terminal."""
    return quiet or not sys.stderr.isatty()


def teller(quiet: bool) -> Callable[[str], None]:
    """Return what tells progress: nobody when quiet."""
    return (lambda _: None) if quiet else tell


def show(value: Any, *, as_json: bool, text: str) -> None:
    """Print a result: one JSON object, or text for people."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else text
    (RESULTS.get() or sys.stdout).write(line + "\n")


def problem_lines(problems: Iterable[Problem]) -> str:
    """Return problems for people, one after the other, worst first."""
    order = {"error": 0, "warning": 1, "note": 2}
    ranked = sorted(problems, key=lambda problem: order[problem.severity])
    return "\n".join(f"{problem.severity}: {problem}" for problem in ranked)


def proof_text(proof: Mapping[str, Any]) -> str:
    """Return a file's proof for people: one line, and where it failed a table of what was found and what was asked."""
    if proof["passed"]:
        return f"{proof['path']}: verified"
    parity, found = proof["prompt_parity"], [f"{proof['path']}: NOT VERIFIED"]
    rows = [
        ("mean KL in nats", f"{proof['kl']:.2e}", f"at most {proof['max_kl']:g}", proof["kl"] <= proof["max_kl"]),
        (
            "same likeliest token",
            f"{proof['top1_agreement']:.2%}",
            f"at least {proof['min_top1']:.1%}",
            proof["top1_agreement"] >= proof["min_top1"],
        ),
        ("same prompt tokens", "not compared" if parity is None else f"{parity:.2%}", "all", parity in (None, 1.0)),
        ("same greedy answers", f"{proof['greedy_match']:.0%}", "told only", True),
    ]
    found += [f"  {what:<21} {value:>12}  {bound:<16} {'ok' if ok else 'MISSED'}" for what, value, bound, ok in rows]
    return "\n".join([*found, *(f"  {problem}" for problem in proof["problems"])])


def calm_libraries() -> None:
    """Keep libraries from drawing bars, from warning users of what only we can mend, and from phoning home."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads that wait for each other spin; beside another busy process they burn the core it needs. Measured on two
    # cores, tokens/s alone and beside one: default 490 and 80, this 470 and 300. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    # bitsandbytes looks for optional CPU kernels on the hub when it is imported, and says so when there are none
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextlib.contextmanager
def only_json() -> Iterator[None]:
    """Let nothing but `show` write to standard output (transformers prints there when WANDB_MODE is offline)."""
    token = RESULTS.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        RESULTS.reset(token)


def guarded(verb: Callable[[], int | None], *, as_json: bool) -> int:
    """Run a verb and return the exit code: mendable faults with their text and 2, bugs with a traceback and 1.

    Args:
        verb: returns the exit code, or None for 0.
        as_json: tell mendable faults on standard output too, as JSON.
    """
    try:
        with only_json() if as_json else contextlib.nullcontext():
            code = verb() or DONE
        sys.stdout.flush()
        return code
    except FinetuneError as error:
        if as_json:
            show({"problems": [problem.as_dict() for problem in error.problems]}, as_json=True, text="")
        sys.stderr.write(f"{error}\n")
        return MENDABLE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; call the same command again to go on\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:
        traceback.print_exc()
        sys.stderr.write("this is a bug of finetune's; please report it with the text above\n")
        return BUG
