"""Answers that are run: SQL on the database it was asked of, Python against its tests, each in a process of its own.

What holds a program back: limits on processor time, memory, processes and file sizes; an empty folder; an environment
without the user's variables; Python without installed packages; a hook that refuses processes, sockets and writing;
and, where Linux's `unshare` is allowed, no network at all. That keeps accidents in. It is no prison for code written
to break out: such code can read what the user can read. So nothing is run unless the recipe allows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("execution_worker.py")
_SECONDS = 10
_MEBIBYTES = 1024
_ROWS = 100_000
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARENTHESES = re.compile(r"\([^()]*\)")

Cells = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went: the rows of a query, or whether a program got to its end; `error` says why not."""

    error: str = ""
    rows: tuple[Cells, ...] = ()


@lru_cache(maxsize=256)
def run_query(database: str, sql: str, *, seconds: int = _SECONDS) -> Outcome:
    """Run one SELECT on an SQLite file, which is opened for reading and taken for immutable.

    Args:
        database: path of the file.
        sql: one statement; anything but reading is refused.
        seconds: processor time it may take; of real time, twice that.
    """
    request = {"kind": "query", "database": os.path.abspath(database), "sql": sql, "rows": _ROWS}
    reply = _run(request, seconds)
    rows = tuple(tuple(map(_cell, row)) for row in reply.get("rows", ()))
    return Outcome(str(reply.get("error", "")), rows)


def _cell(value: Any) -> Any:
    """Make values comparable: sums of floats differ in their last places by the order of summing."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value


def same_rows(given: Sequence[Cells], wanted: Sequence[Cells], *, ordered: bool) -> bool:
    """Whether two results are equal: row by row, or as multisets where the order was not asked for."""
    return list(given) == list(wanted) if ordered else Counter(given) == Counter(wanted)


def is_ordered(sql: str) -> bool:
    """Whether a query orders its result, which an ORDER BY in a subquery does not."""
    bare = _QUOTED.sub(" ", sql)
    while (inner := _PARENTHESES.sub(" ", bare)) != bare:
        bare = inner
    return re.search(r"\border\s+by\b", bare, re.IGNORECASE) is not None


def run_program(source: str, *, seconds: int = _SECONDS) -> Outcome:
    """Run a Python program to its end, tests and all; `error` tells why it did not get there.

    A program that leaves early, even with exit code 0, has not passed: the process hands back a token after the
    program's last line. That is proof against accidents; a program written to cheat could look for the token.

    Args:
        source: the program.
        seconds: processor time it may take; of real time, twice that.
    """
    token = secrets.token_hex(16)
    reply = _run({"kind": "program", "program": source, "token": token}, seconds)
    if reply.get("token") == token:
        return Outcome()
    return Outcome(str(reply.get("error") or "ended before its last line"))


def _run(request: dict[str, Any], seconds: int) -> dict[str, Any]:
    message = json.dumps(request | {"seconds": seconds, "mebibytes": _MEBIBYTES}).encode("utf-8", "surrogatepass")
    with (
        tempfile.TemporaryDirectory(prefix="finetune-run-") as folder,
        subprocess.Popen(
            [*_without_network(), sys.executable, "-I", "-S", "-B", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
            start_new_session=True,
        ) as process,
    ):
        try:
            output, _ = process.communicate(message, timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {2 * seconds} s"}
        finally:
            _end(process)
    try:
        reply = json.loads(output)
    except ValueError:
        ended = "" if process.returncode >= 0 else f" (signal {-process.returncode})"
        return {"error": f"the process ended without a result{ended}: too much time or memory, or it left early"}
    return reply if isinstance(reply, dict) else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


@cache
def _without_network() -> tuple[str, ...]:
    """Return what starts a process without network, or nothing where this system does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    prefix = (unshare, "--map-root-user", "--net")
    tried = subprocess.run([*prefix, sys.executable, "-I", "-S", "-c", ""], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else ()
