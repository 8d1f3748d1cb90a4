"""One command for many files: all are planned before a row is sent, each has a line, and there is one summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb
from support.databases import Connection
from support.processes import MDS, mds, run
from support.workers import Worker

from market_data_store.files.positions import content_of

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("broker_url", ["redis"], indirect=True)]

HEADER = "symbol,ts,open,high,low,close\n"
OPTIONS = ["--dataset", "bars", "--provider", "p", "--interval", "1m"]


def bar(symbol: str, minute: int, close: object = 1) -> str:
    return f"{symbol},2026-01-02T00:{minute:02}:00Z,1,1,1,{close}\n"


@pytest.fixture
def variables(worker: Worker, database_url: str, broker_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "BROKER_URL": broker_url}


def test_each_file_has_a_line_and_all_have_a_summary(
    variables: dict[str, str], database: Connection, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + bar("A", 0) + bar("A", 1, "x") + bar("A", 2))
    (tmp_path / "b.csv").write_text(HEADER + bar("B", 0) + bar("B", 1))
    loaded = mds(tmp_path, "load", "b.csv", "*.csv", *OPTIONS, **variables)
    assert loaded.returncode == 1, loaded
    lines = loaded.stdout.splitlines()
    assert sum(line.startswith("file          ") for line in lines) == 2, "the plan of a has a problem"
    b, reject, a = (line for line in lines if line.startswith(("a.csv: ", "b.csv: ")))
    assert b.startswith("b.csv: 2 written, 0 unchanged, ")
    assert reject == "a.csv: line 3: close: 'x' is not a number"
    assert a.startswith("a.csv: 2 written, 0 unchanged, 1 dead letters, ")
    assert "rows sent     5" in lines
    assert "rows stored   4 (4 written, 0 unchanged)" in lines
    assert "dead letters  1" in lines
    assert database.execute("SELECT file, line FROM dead_letters").fetchall() == [("a.csv", 3)]
    ((metadata, status),) = database.execute("SELECT metadata, status FROM job_runs").fetchall()
    assert (metadata["file"], metadata["files"], status) == ("b.csv", 2, "failure")
    assert "position" not in metadata
    assert "a.csv:3: close: 'x' is not a number" in mds(tmp_path, "dead-letters", "list", **variables).stdout

    said = json.loads(mds(tmp_path, "load", "b.csv", "*.csv", *OPTIONS, "--json", **variables).stdout)
    assert [(Path(file["file"]).name, file["unchanged"]) for file in said["files"]] == [("b.csv", 2), ("a.csv", 2)]
    assert (said["sent"], said["written"], said["unchanged"], said["rejected"]) == (5, 0, 4, 1)


def test_nothing_is_sent_while_one_file_is_undecided(
    variables: dict[str, str], database: Connection, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(HEADER + bar("A", 0))
    (tmp_path / "b.csv").write_text("alpha,beta\n1,2\n")
    (tmp_path / "c.csv").write_text(HEADER)
    one = mds(tmp_path, "load", "a.csv", "b.csv", *OPTIONS, **variables)
    assert (one.returncode, one.stdout) == (2, "")
    assert one.stderr.startswith("error: b.csv: ")
    assert one.stderr.count("\n") == 1
    both = mds(tmp_path, "load", "*.csv", *OPTIONS, **variables)
    assert both.returncode == 2
    first, *others = both.stderr.splitlines()
    assert first == "error: 2 files cannot be loaded; nothing was sent"
    assert [line[:7] for line in others] == ["b.csv: ", "c.csv: "]
    assert database.execute("SELECT FROM bars_ohlcv").rowcount == 0
    assert database.execute("SELECT FROM job_runs").rowcount == 0


def test_standard_input_is_a_file(variables: dict[str, str], database: Connection, tmp_path: Path) -> None:
    text = HEADER + bar("A", 0) + bar("A", 1, "x")
    loaded = run(*MDS, "load", "-", *OPTIONS, directory=tmp_path, environment=variables, text=text)
    assert loaded.returncode == 1, loaded
    assert f"standard input: {len(text)} bytes are kept in " in loaded.stdout
    assert "line 3: close: 'x' is not a number" in loaded.stdout
    assert database.execute("SELECT symbol FROM bars_ohlcv").fetchall() == [("A",)]
    assert database.execute("SELECT file, line FROM dead_letters").fetchall() == [("standard input", 3)]


def test_equal_ticks_stay_apart_over_an_interruption(
    variables: dict[str, str], database: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text("ts,price,size\n" + 4 * "2026-01-02T00:00:00Z,1,1\n")
    command = ["load", "ticks.csv", "--dataset", "ticks", "--provider", "p", "--symbol", "S"]
    assert mds(tmp_path, *command, **variables).returncode == 0
    # As if it had been killed when two rows were known to be stored; nothing else of it is there, to see what is sent.
    position = {"done": 0, "digest": "", "file": content_of(file), "rows": {"0 ": 2}, "rejects": []}
    database.execute("UPDATE job_runs SET metadata = metadata || %s", [Jsonb({"position": position})])
    database.execute("UPDATE tick_data SET symbol = 'another'")
    second = mds(tmp_path, *command, **variables)
    assert "goes on behind 2 rows of ticks.csv, where run " in second.stdout
    assert "rows stored   2 (2 written, 0 unchanged)\nsent before   2 " in second.stdout
    third = json.loads(mds(tmp_path, *command, "--json", **variables).stdout)
    assert (third["written"], third["unchanged"], third["sent_before"]) == (2, 2, 0)
    # --restart sends all, and so does a load of a store that has been emptied.
    for restarts in (["--restart"], []):
        database.execute("UPDATE job_runs SET metadata = metadata || %s", [Jsonb({"position": position})])
        if not restarts:
            database.execute("TRUNCATE tick_data")
        said = json.loads(mds(tmp_path, *command, "--json", *restarts, **variables).stdout)
        assert (said["sent"], said["sent_before"]) == (4, 0)
    assert database.execute("SELECT FROM tick_data WHERE symbol = 'S'").rowcount == 4
