"""Commands that SIGTERM or SIGINT ends: their exit status, one line, and nothing half done."""

from __future__ import annotations

import re
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from support.databases import Connection
from support.processes import MDS, PYTHON, run, running
from support.waiting import wait_until
from support.writing import letter

from market_data_store import dead_letters

# Not pg_stat_activity, which shows a transaction the same again and again.
WAITING = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
ENDED = {
    "export": (["export", "bars", "bars.csv"], "bars_ohlcv", "bars.csv was not written"),
    "purge": (["dead-letters", "purge", "--all", "--yes"], "dead_letters", "no letter was deleted"),
    "migrate": (
        ["migrate", "--down", "--yes"],
        "alembic_version",
        "the step that was running is undone; see `mds migrate --status`",
    ),
}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGTERM, "export"),
        *(
            pytest.param(number, name, marks=pytest.mark.slow)
            for number, name in (
                (signal.SIGINT, "export"),
                (signal.SIGTERM, "purge"),
                (signal.SIGINT, "purge"),
                (signal.SIGTERM, "migrate"),
                (signal.SIGINT, "migrate"),
            )
        ),
    ],
)
def test_a_command_that_is_ended_says_what_it_did(
    database: Connection, database_url: str, tmp_path: Path, number: signal.Signals, name: str
) -> None:
    arguments, table, said = ENDED[name]
    dead_letters.keep(database, [letter()])
    with (
        database.transaction(),
        running(*MDS, *arguments, directory=tmp_path, environment={"DATABASE_URL": database_url}) as command,
    ):
        database.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: database.execute(WAITING).fetchall() == [(1,)], "it waits for the table")
        command.send_signal(number)
        assert command.wait(20) == 128 + number
    assert command.text() == f"ended by {number.name}; {said}\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("bars")] == []
    assert dead_letters.count(database) == 1


def minds(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1) and bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["load", "monitor"])
def test_a_signal_at_any_moment_leaves_no_traceback(tmp_path: Path, number: signal.Signals, command: str) -> None:
    (tmp_path / "one.csv").write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
    arguments = ["load", "one.csv", "--dataset", "signals"] if command == "load" else [command]
    mds = (PYTHON, "-m", "market_data_store")
    # A server that does not answer: the command is at work until it is ended.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {"DATABASE_URL": f"postgresql://{server}/x", "BROKER_URL": f"redis://{server}/0"}
        for moment_s in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0):
            with running(*mds, *arguments, directory=tmp_path, environment=environment) as process:
                wait_until(partial(minds, process.pid, number), "the interpreter has started")
                time.sleep(moment_s)
                process.send_signal(number)
                assert process.wait(20) == (0 if command == "monitor" else 128 + number), (moment_s, process.said())
            assert "Traceback" not in process.text()
            if command == "load":
                last = (process.text().splitlines() or [""])[-1]  # behind the plan, if it came so far
                assert last in ("", f"ended by {number.name}", f"ended by {number.name}; no row was sent")


#: What modules of C make of any exception that is raised while they are imported.
IMPORTED = """
import signal
try:
    signal.raise_signal(signal.{})
except BaseException as error:
    raise ImportError("Encountered an error") from error
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_module_of_c_is_imported_is_no_error_of_imports(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "one.csv").write_text("ts,symbol,provider,name,value\n2024-01-01T00:00:00Z,A,p,n,1\n")
    (tmp_path / "duckdb.py").write_text(IMPORTED.format(number.name))  # found before the real one
    command = (PYTHON, "-m", "market_data_store", "load", "one.csv", "--dataset", "signals")
    ended = run(*command, directory=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", f"ended by {number.name}\n")


def test_what_deletes_needs_an_answer_or_yes(database: Connection, database_url: str, tmp_path: Path) -> None:
    refused = run(*MDS, "migrate", "--down", directory=tmp_path, environment={"DATABASE_URL": database_url})
    assert refused.returncode == 2
    *losses, error = refused.stderr.splitlines()
    assert sorted(losses) == ["partitions_leaving: 0 rows", "partitions_wanted: 0 rows"]
    assert error.startswith("Error: this deletes the tables and columns that revision ")
    assert error.endswith("; give --yes to do that without being asked")
    assert database.execute("SELECT to_regclass('bars_ohlcv') IS NOT NULL").fetchall() == [(True,)]
