"""Queries and programs run apart: what they may do, what they may not, and how the end of each is told."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.scoring.execution import is_ordered, run_program, run_query, same_rows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX systems")


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "pets #1?.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE pet (name, weight REAL, photo BLOB)")
        connection.execute("INSERT INTO pet VALUES ('Rex', 0.1, x'00ff')")
        connection.execute("INSERT INTO pet VALUES ('Ann', 0.2, NULL)")
        connection.execute("INSERT INTO pet VALUES (CAST(x'e9' AS TEXT), 3.0, NULL)")
    connection.close()
    return str(path)


def test_a_query_gives_its_rows(database: str) -> None:
    assert run_query(database, "SELECT name, weight FROM pet ORDER BY weight LIMIT 2").rows == (
        ("Rex", 0.1),
        ("Ann", 0.2),
    )
    assert run_query(database, "SELECT photo FROM pet WHERE photo NOT NULL;").rows == ((b"\0\xff",),)
    assert run_query(database, "SELECT name FROM pet WHERE weight = 3").rows == (("\udce9",),)
    assert run_query(database, "SELECT sum(weight) FROM pet WHERE weight < 1").rows == ((0.3,),)
    assert run_query(database, "WITH a AS (SELECT 1 AS x) SELECT upper('b'), x FROM a").rows == (("B", 1),)


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("DROP TABLE pet", "DatabaseError: not authorized"),
        ("DELETE FROM pet", "DatabaseError: not authorized"),
        ("INSERT INTO pet VALUES (1, 2, 3)", "DatabaseError: not authorized"),
        ("UPDATE pet SET name = 'x'", "DatabaseError: not authorized"),
        ("CREATE TEMP TABLE a (b)", "DatabaseError: not authorized"),
        ("ATTACH 'other.sqlite' AS other", "DatabaseError: not authorized"),
        ("PRAGMA table_info(pet)", "DatabaseError: not authorized"),
        ("SELECT load_extension('x')", "OperationalError: not authorized to use function: load_extension"),
        ("SELECT 1; SELECT 2", "ProgrammingError: You can only execute one statement at a time."),
        ("SELECT randomblob(900000000)", "DataError: string or blob too big"),
        ("SELEC 1", 'OperationalError: near "SELEC": syntax error'),
        ("", "no query"),
        ("-- nothing", "no query"),
    ],
)
def test_anything_but_one_reading_query_is_refused(database: str, sql: str, error: str) -> None:
    before = Path(database).read_bytes()
    outcome = run_query(database, sql)
    assert (outcome.error.replace("Warning: ", "ProgrammingError: "), outcome.rows) == (error, ())
    assert Path(database).read_bytes() == before


def test_queries_without_end_are_ended(database: str) -> None:
    count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT {} FROM c"
    started = time.perf_counter()
    assert run_query(database, count.format("count(*)"), seconds=1).error
    assert time.perf_counter() - started < 20
    assert run_query(database, count.format("x")).error == "more than 100,000 rows"


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing.sqlite"
    assert run_query(str(missing), "SELECT 1").error == "OperationalError: unable to open database file"
    assert not missing.exists()


ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=6)


@given(ROWS, st.randoms())
def test_rows_are_compared_as_multisets_unless_they_are_ordered(rows: list[tuple[int, str]], draw: object) -> None:
    shuffled = sorted(rows, key=lambda row: hash((repr(draw), row)))
    assert same_rows(shuffled, rows, ordered=False)
    assert same_rows(shuffled, rows, ordered=True) == (shuffled == rows)
    assert not same_rows([*rows, (9, "z")], rows, ordered=False)
    assert not rows or not same_rows([*rows, rows[0]], rows, ordered=False)


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM b ORDER BY a", True),
        ("select a from b order\n by a limit 1", True),
        ("SELECT a FROM (SELECT a FROM b ORDER BY c)", False),
        ("SELECT a FROM b WHERE c IN (SELECT c FROM d ORDER BY (e + 1)) ", False),
        ("SELECT 'order by' FROM b", False),
        ('SELECT "order by" FROM b -- order by a', False),
        ("SELECT a FROM (SELECT 1) ORDER BY (a)", True),
        ("SELECT border, byte FROM b", False),
    ],
)
def test_only_the_outermost_order_counts(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


@pytest.mark.parametrize("source", ["assert 1 + 1 == 2", "print('x' * 100_000)", "import hashlib, random, re, math"])
def test_a_program_that_gets_to_its_end_has_passed(source: str) -> None:
    assert run_program(source).error == ""


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("assert 1 == 2", "AssertionError: "),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("raise SystemExit", "SystemExit: "),
        ("def f(:", "SyntaxError: invalid syntax (answer.py, line 1)"),
        ("import os\nos._exit(0)", "the process ended without a result: too much time or memory, or it left early"),
        ("print('\"token\"')\nimport os\nos.abort()", "the process ended without a result (signal 6): too much"),
        ("x = bytearray(3 * 2**30)", "MemoryError: "),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("open('file', 'w')", "PermissionError: a program under test may not do this: open"),
        ("import os\nos.remove('x')", "PermissionError: a program under test may not do this: os.remove"),
        ("import os\nos.fork()", "PermissionError: a program under test may not do this: os.fork"),
        ("import os\nos.system('true')", "PermissionError: a program under test may not do this: os.system"),
        ("import subprocess\nsubprocess.run(['true'])", "PermissionError: a program under test may not do this: "),
        ("import socket", "PermissionError: a program under test may not do this: import"),
        ("import ctypes", "PermissionError: a program under test may not do this: import"),
        ("def f(): f()\nf()", "RecursionError: "),
    ],
)
def test_a_program_that_does_not_is_told_why(source: str, error: str) -> None:
    assert run_program(source).error.startswith(error)


def test_a_program_without_end_is_ended() -> None:
    started = time.perf_counter()
    assert run_program("while True: pass", seconds=1).error
    assert run_program("import time\ntime.sleep(60)", seconds=1).error == "took more than 2 s"
    assert time.perf_counter() - started < 20


def test_a_program_sees_an_empty_folder_and_no_variables_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    known = "{'PATH', 'HOME', 'LANG', 'PYTHONHASHSEED', 'LC_CTYPE'}"
    source = f"import os\nassert os.listdir('.') == []\nassert set(os.environ) <= {known}, set(os.environ)"
    assert run_program(source).error == ""


def test_threads_left_behind_do_not_keep_a_program_alive() -> None:
    started = time.perf_counter()
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    # The limit on processes is one on threads too, for all but root.
    assert run_program(source).error in ("", "RuntimeError: can't start new thread")
    assert time.perf_counter() - started < 10
