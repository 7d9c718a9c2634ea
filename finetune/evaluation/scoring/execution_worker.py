"""Runs one query or one program and says how it went: a process of its own, started by `execution` and by nobody else.

It reads a JSON request from standard input, limits itself, does the work and writes a JSON reply. It imports the
standard library alone, because it runs without the packages of the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from typing import Any
from urllib.parse import quote

_MEBIBYTE = 2**20
# What a program that is only computing never does.
_FORBIDDEN = (
    *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "os.kill"),
    *("subprocess.Popen", "pty.spawn", "ctypes.dlopen", "sqlite3.connect", "webbrowser.open", "signal.pthread_kill"),
    *("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
)
_FORBIDDEN_MODULES = frozenset({"ctypes", "_ctypes", "_posixsubprocess", "multiprocessing", "socket", "_socket"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


def limit(seconds: int, mebibytes: int) -> None:
    """Bound this process: processor time, memory, size of files (none), new processes (none), no core dumps.

    Systems without POSIX limits have the caller's clock alone. The limit on processes does not hold for root.
    """
    try:
        import resource
    except ImportError:
        return
    for what, bound in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, mebibytes * _MEBIBYTE),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force, or this system has none of it
            resource.setrlimit(what, (bound, bound))


def query(request: dict[str, Any]) -> dict[str, Any]:
    """Run one SELECT on a database that is opened for reading, and return its rows.

    The file is taken for immutable: nothing is locked, and no journal is looked for or written.
    """
    try:
        connection = sqlite3.connect(f"file:{quote(request['database'])}?mode=ro&immutable=1", uri=True)
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 16 * _MEBIBYTE)
        connection.execute("SELECT name FROM sqlite_master").fetchall()
        connection.set_authorizer(_only_reading)
        cursor = connection.execute(request["sql"])
        if cursor.description is None:
            return {"error": "no query"}
        rows = cursor.fetchmany(request["rows"] + 1)
        if len(rows) > request["rows"]:
            return {"error": f"more than {request['rows']:,} rows"}
        return {"rows": [[_plain(value) for value in row] for row in rows]}
    except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _only_reading(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    reading = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    function = action == sqlite3.SQLITE_FUNCTION and second not in ("load_extension", "fts3_tokenizer")
    return sqlite3.SQLITE_OK if action in reading or function else sqlite3.SQLITE_DENY


def _plain(value: Any) -> Any:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def program(request: dict[str, Any]) -> dict[str, Any]:
    """Run a program to its end; only a run that gets there gives the request's token back."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    sys.addaudithook(_forbid)
    try:
        exec(compile(request["program"], "answer.py", "exec"), {"__name__": "__main__"})  # noqa: S102
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"token": request["token"]}


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what a program under test has no business with; such a hook cannot be taken away again."""
    module = event == "import" and str(arguments[0]).partition(".")[0] in _FORBIDDEN_MODULES
    writes = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
    if event.startswith(("socket.", *_FORBIDDEN)) or module or writes:
        raise PermissionError(f"a program under test may not do this: {event}")


def main() -> None:
    """Do what the request says and reply on the standard output as it was at the start."""
    request = json.loads(sys.stdin.buffer.read())
    reply = os.dup(1)
    limit(request["seconds"], request["mebibytes"])
    result = query(request) if request["kind"] == "query" else program(request)
    left = json.dumps(result).encode()
    while left:  # not through open(), which is forbidden by now
        left = left[os.write(reply, left) :]
    os._exit(0)  # threads the program left behind do not keep it alive


if __name__ == "__main__":
    main()
