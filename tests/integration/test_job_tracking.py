"""Runs of jobs are recorded as pipelines and the predecessor record them, and listed by `mds jobs`."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from rich.console import Console
from support.brokers import on_redis
from support.databases import Connection
from support.processes import MDS, Process, running
from support.waiting import wait_until
from support.workers import Worker

from market_data_store import config
from market_data_store.cli import recording
from market_data_store.cli.ending import Ended
from market_data_store.cli.jobs import command
from market_data_store.cli.recording import recorded
from market_data_store.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidJobRun,
    MarketDataStoreError,
)
from market_data_store.job_tracking import JobRunTracker
from market_data_store.protocol import BACKFILL_QUEUE, Counts

#: Neither has this id.
UNKNOWN = 4711


@pytest.fixture
def tracker(database_url: str) -> JobRunTracker:
    return JobRunTracker(database_url)


@pytest.fixture
def environment(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Settings of this test's database alone, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    config.settings.cache_clear()
    yield monkeypatch
    config.settings.cache_clear()


def the_run(tracker: JobRunTracker, run_id: int) -> dict[str, Any]:
    run = tracker.get_run(run_id)
    assert run is not None
    return run


def age(database: Connection, run_id: int, minutes: int) -> None:
    """As if the run had begun, and been heard of last, so many minutes earlier."""
    shift = "started_at = started_at - %(by)s, updated_at = updated_at - %(by)s"
    database.execute(f"UPDATE job_runs SET {shift} WHERE id = %(id)s", {"by": timedelta(minutes=minutes), "id": run_id})


# --- What is recorded ------------------------------------------------------------------------------------------------


def test_a_run_is_recorded_from_its_start_to_its_end(tracker: JobRunTracker) -> None:
    run_id = tracker.start_run("live_us", "bars", "ibkr", "backfill", "a3f5", "1.2.0", {"git": "abc"})
    assert run_id == 1
    begun = the_run(tracker, run_id)
    assert begun["status"] == "running"
    assert (begun["completed_at"], begun["elapsed_ms"], begun["error_message"]) == (None, None, None)
    assert datetime.fromisoformat(begun["metadata"]["last_heartbeat"]) == begun["started_at"]
    tracker.complete_run(run_id)
    ended = the_run(tracker, run_id)
    assert ended["status"] == "success"
    assert ended["elapsed_ms"] >= 0
    assert ended["started_at"] == begun["started_at"] <= ended["completed_at"] == ended["updated_at"]
    given = ("job_name", "dataset_name", "provider", "mode", "config_fingerprint", "pipeline_version")
    assert [ended[name] for name in given] == ["live_us", "bars", "ibkr", "backfill", "a3f5", "1.2.0"]
    assert ended["metadata"]["git"] == "abc"


def test_rows_add_up_symbols_are_replaced_and_the_span_widens(tracker: JobRunTracker) -> None:
    run_id = tracker.start_run("j")
    tracker.update_progress(run_id, 10, 1, ["A"], datetime(2024, 1, 2), datetime(2024, 1, 3, tzinfo=UTC))
    tracker.update_progress(run_id, rows_written=5, symbols=["A", "B"], min_ts=datetime(2024, 1, 1, tzinfo=UTC))
    tracker.update_progress(run_id, rows_failed=2, max_ts=datetime(2024, 1, 2))
    run = the_run(tracker, run_id)
    assert (run["rows_written"], run["rows_failed"], run["symbols"]) == (15, 3, ["A", "B"])
    assert (run["min_ts"], run["max_ts"]) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))


def test_a_heartbeat_is_kept_where_the_predecessors_readers_look(tracker: JobRunTracker, database: Connection) -> None:
    run_id = tracker.start_run("j", metadata={"git": "abc"})
    stuck = """
        SELECT count(*) FROM job_runs WHERE status = 'running' AND (metadata->>'last_heartbeat' IS NULL
            OR (metadata->>'last_heartbeat')::timestamptz < now() - interval '15 minutes')
    """
    database.execute('UPDATE job_runs SET metadata = metadata || \'{"last_heartbeat": "2024-01-02T00:00:00Z"}\'')
    tracker.update_progress(run_id, heartbeat=False)
    assert database.execute(stuck).fetchall() == [(1,)]
    tracker.update_progress(run_id)
    assert database.execute(stuck).fetchall() == [(0,)]
    run = the_run(tracker, run_id)
    assert run["metadata"]["git"] == "abc"


def test_the_calls_of_market_data_pipeline_are_taken_as_they_are(tracker: JobRunTracker) -> None:
    run_id = tracker.start_run(job_name="backfill_us", config_fingerprint="a7f5", profile="prod")
    tracker.update_progress(run_id, rows_processed=1_000, batches_processed=1, duration_seconds=0.5)
    tracker.update_progress(run_id, rows_processed=2_000, batches_processed=2, duration_seconds=1.25)
    tracker.complete_run(run_id, status="failure", error="no route\nto host")
    run = the_run(tracker, run_id)
    # Processed is not written: the pipeline writes after it has counted.
    assert (run["rows_written"], run["status"], run["error_message"]) == (0, "failure", "no route to host")
    del run["metadata"]["last_heartbeat"]
    assert run["metadata"] == {
        "profile": "prod",
        "rows_processed": 2_000,
        "batches_processed": 2,
        "duration_seconds": 1.25,
    }


def test_the_sql_of_the_pipelines_replay_finds_its_columns(database: Connection) -> None:
    ((run_id,),) = database.execute(
        "INSERT INTO job_runs (job_name, provider, mode, status, symbols, min_ts, max_ts, metadata) "
        "VALUES ('tick_replay', 'ibkr', 'backfill', 'running', '{A}', 'epoch', now(), '{\"speed\": 1}') RETURNING id"
    ).fetchall()
    database.execute("UPDATE job_runs SET rows_written = 5, max_ts = now(), updated_at = now() WHERE id = %s", [run_id])
    database.execute(
        "UPDATE job_runs SET status = 'success', rows_written = 6, completed_at = now(), error_message = NULL, "
        "updated_at = now() WHERE id = %s",
        [run_id],
    )


def test_an_error_is_kept_in_one_line_that_postgres_takes_and_without_passwords(tracker: JobRunTracker) -> None:
    run_id = tracker.start_run("j")
    tracker.complete_run(run_id, "failure", "cannot reach\r\n  redis://:p@ss/w@host:6379/0\0 or amqp://me:x@h \udc80")
    run = the_run(tracker, run_id)
    assert run["error_message"] == "cannot reach redis://***@host:6379/0 or amqp://***@h"


def test_nothing_is_left_open_between_calls(tracker: JobRunTracker, database: Connection) -> None:
    tracker.update_progress(tracker.start_run("j"))
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_until(lambda: database.execute(others).rowcount == 0)


# --- What is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_run_is_named(tracker: JobRunTracker) -> None:
    assert tracker.get_run(UNKNOWN) is None
    for call in (tracker.update_progress, tracker.complete_run):
        with pytest.raises(InvalidJobRun, match="run_id: 4711 is not a job run; use what start_run returned"):
            call(UNKNOWN)


def test_an_unknown_status_is_named_with_those_that_there_are(tracker: JobRunTracker) -> None:
    run_id = tracker.start_run("j")
    for status in ("completed", "running"):
        with pytest.raises(ValueError, match=f"status: '{status}' is unknown; use one of success, failure, cancelled$"):
            tracker.complete_run(run_id, status)
    with pytest.raises(InvalidJobRun, match=r"use one of running, success, failure, cancelled$"):
        tracker.get_recent_runs(status="completed")


def test_a_database_that_cannot_be_used_is_one_line(tracker: JobRunTracker, database: Connection) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"^cannot connect to postgresql://\*\*\*@127.0.0.1:1/db: ") as error:
        JobRunTracker("postgresql://me:s3cret@127.0.0.1:1/db").start_run("j")
    assert "s3cret" not in str(error.value)
    with pytest.raises(MarketDataStoreError, match="job_runs: PostgreSQL text fields cannot contain NUL"):
        tracker.start_run("j\0")
    database.execute("DROP TABLE job_runs")
    with pytest.raises(MarketDataStoreError, match=r'^relation "job_runs" does not exist; run `mds migrate`$'):
        tracker.get_recent_runs()


def test_without_a_url_it_is_that_of_the_settings(environment: pytest.MonkeyPatch, tracker: JobRunTracker) -> None:
    assert JobRunTracker().start_run("j") == 1
    assert tracker.get_run(1) is not None
    environment.delenv("DATABASE_URL")
    config.settings.cache_clear()
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        JobRunTracker()


# --- What is found ---------------------------------------------------------------------------------------------------


def test_runs_are_found_by_job_and_by_status_the_newest_first(tracker: JobRunTracker) -> None:
    first, second, third = (tracker.start_run(name) for name in ("a", "b", "a"))
    tracker.complete_run(first, "failure", "x")
    assert [run["id"] for run in tracker.get_recent_runs()] == [third, second, first]
    assert [run["id"] for run in tracker.get_recent_runs(limit=2)] == [third, second]
    assert [run["id"] for run in tracker.get_recent_runs(job_name="a")] == [third, first]
    assert [run["id"] for run in tracker.get_recent_runs(status="running", job_name="a")] == [third]
    assert tracker.get_recent_runs(status="cancelled") == []


def test_a_run_is_stuck_when_nothing_was_heard_of_it_for_long(tracker: JobRunTracker, database: Connection) -> None:
    fresh, silent, alive, ended = (tracker.start_run(name) for name in ("fresh", "silent", "alive", "ended"))
    for run_id in (silent, alive, ended):
        age(database, run_id, 20)
    tracker.update_progress(alive)
    tracker.complete_run(ended)
    age(database, ended, 20)
    assert [run["id"] for run in tracker.get_stuck_runs()] == [silent]
    assert tracker.get_stuck_runs(heartbeat_timeout_minutes=30) == []
    assert [run["id"] for run in tracker.get_stuck_runs(0)] == [fresh, alive, silent]
    assert [run["id"] for run in tracker.get_stuck_runs(0, limit=1, job_name="silent")] == [silent]


# --- Recording, for those that go on without -------------------------------------------------------------------------


def test_progress_is_recorded_while_the_block_goes_on(
    environment: pytest.MonkeyPatch, tracker: JobRunTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(recording, "_INTERVAL_S", 0.0)
    with recorded("load", "bars", "cme", {"file": "x.csv"}, Console()) as report:
        for counts in (Counts(written=10, rejected=1), Counts(written=12, unchanged=3, stale=1, rejected=1)):
            report(counts)
            run = the_run(tracker, 1)
            failed = counts.rejected + counts.stale
            assert (run["status"], run["rows_written"], run["rows_failed"]) == ("running", counts.written, failed)
            processed = run["metadata"]["rows_processed"]
        assert processed == 17
    run = the_run(tracker, 1)
    assert (run["rows_written"], run["rows_failed"], run["mode"]) == (12, 2, "backfill")
    assert (run["status"], run["error_message"]) == ("failure", "dead letters: 1, stale rows: 1")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "status", "kept"),
    [
        (KeyboardInterrupt(), "cancelled", "interrupted"),
        (SystemExit(0), "cancelled", "interrupted"),
        (Ended(signal.SIGTERM), "cancelled", "ended by SIGTERM"),
        (DatabaseUnavailable("no\nPostgres"), "failure", "no Postgres"),
        (RuntimeError("password=s3cret"), "failure", "RuntimeError"),
    ],
)
def test_what_ends_the_block_ends_the_run(
    environment: pytest.MonkeyPatch, tracker: JobRunTracker, error: BaseException, status: str, kept: str
) -> None:
    def work() -> None:
        with recorded("load", "bars", None, {}, Console()) as report:
            report(Counts(written=3))
            raise error

    with pytest.raises(type(error)):
        work()
    run = the_run(tracker, 1)
    assert (run["status"], run["error_message"], run["rows_written"]) == (status, kept, 3)


def test_what_cannot_be_recorded_is_said_once_and_disturbs_nothing(
    environment: pytest.MonkeyPatch, database: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setattr(recording, "_INTERVAL_S", 0.0)
    said = 'not recorded in job_runs: relation "job_runs" does not exist; run `mds migrate`\n'
    with recorded("load", "bars", None, {}, Console()) as report:
        database.execute("ALTER TABLE job_runs RENAME TO elsewhere")
        report(Counts(written=1))
        report(Counts(written=2))
    assert capsys.readouterr().out == said
    with recorded("load", "bars", None, {}, Console()) as report:
        report(Counts(written=1))
    assert capsys.readouterr().out == said
    database.execute("ALTER TABLE elsewhere RENAME TO job_runs")
    with recorded("load", "bars", None, {}, Console()) as report:
        database.execute("ALTER TABLE job_runs RENAME TO elsewhere")
        report(Counts(written=1))
        database.execute("ALTER TABLE elsewhere RENAME TO job_runs")
        report(Counts(written=2))
    # What the first report did not bring, the second did.
    found = database.execute("SELECT rows_written, status FROM job_runs WHERE id = 2").fetchall()
    assert found == [(2, "success")]


# --- The commands ----------------------------------------------------------------------------------------------------

QUOTES = "ts,bid\n2024-01-02T00:00:00Z,1\n2024-01-02T00:00:01Z,x\n"


def list_jobs(*arguments: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(command, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.splitlines()


def load(
    broker_url: str, database_url: str, directory: Path, content: str = QUOTES, name: str = "quotes.csv"
) -> AbstractContextManager[Process]:
    (directory / name).write_text(content)
    command = (*MDS, "load", name, "--dataset", "quotes", "--symbol", "X", "--provider", "p")
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    return running(*command, directory=directory, environment=environment)


@on_redis
def test_a_load_is_recorded_with_what_became_of_its_rows(
    worker: Worker, broker_url: str, database_url: str, tracker: JobRunTracker, tmp_path: Path
) -> None:
    for content, code in ((QUOTES, 1), (QUOTES.rpartition("2024")[0], 0), ("ts,bid\n", 1)):
        with load(broker_url, database_url, tmp_path, content) as loading:
            assert loading.wait(60) == code, loading.said()
    again, first = tracker.get_recent_runs(job_name="mds load")  # a file without rows is not a run
    assert (first["dataset_name"], first["provider"], first["mode"]) == ("quotes", "p", "backfill")
    assert (first["metadata"]["file"], first["metadata"]["rows_processed"]) == ("quotes.csv", 2)
    assert first["metadata"]["rows_total"] == 2
    assert (first["rows_written"], first["rows_failed"]) == (1, 1)
    assert (first["status"], first["error_message"]) == ("failure", "dead letters: 1")
    # The second time the row is there already.
    assert (again["rows_written"], again["rows_failed"], again["metadata"]["rows_processed"]) == (0, 0, 1)
    assert (again["status"], again["error_message"]) == ("success", None)
    assert first["elapsed_ms"] > 0


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, "cancelled"), (signal.SIGTERM, "cancelled"), (signal.SIGKILL, "running")],
)
def test_a_load_that_is_interrupted_is_cancelled_and_one_that_is_killed_is_stuck(
    redis_url: str,
    database_url: str,
    environment: pytest.MonkeyPatch,
    tracker: JobRunTracker,
    database: Connection,
    tmp_path: Path,
    number: signal.Signals,
    status: str,
) -> None:
    content = QUOTES.replace("x", "2")
    with load(redis_url, database_url, tmp_path, content) as loading, redis.Redis.from_url(redis_url) as broker:
        # There is no worker, so it waits for one; a signal before may come while its run is being recorded.
        wait_until(lambda: broker.llen(BACKFILL_QUEUE), "the rows are sent", timeout_s=60)
        loading.send_signal(number)
        ended = loading.wait(60)
    (run,) = tracker.get_recent_runs()
    assert (run["status"], run["rows_written"]) == (status, 0)
    if status == "cancelled":
        assert ended == 128 + number
        assert run["error_message"] == f"ended by {number.name}"
        facts = "0 rows were stored, 2 more were sent and will be; run it again to go on"
        assert loading.text().endswith(f"\nended by {number.name}; {facts}\n")
    age(database, run["id"], 16)
    code, lines = list_jobs("--stuck")
    assert code == 0
    assert [line.split()[:5] for line in lines[1:]] == [["1", "mds", "load", "quotes", "p"]] * (status == "running")


def test_a_load_that_fails_is_recorded_as_a_failure(
    redis_url: str, database_url: str, tracker: JobRunTracker, tmp_path: Path
) -> None:
    with load("redis://127.0.0.1:9/0", database_url, tmp_path) as loading:
        assert loading.wait(60) == 1, loading.said()
    (run,) = tracker.get_recent_runs()
    assert (run["status"], f"error: {run['error_message']}; no row was sent") == ("failure", loading.lines()[-1])


def test_a_file_that_cannot_be_read_is_no_run(
    redis_url: str, database_url: str, tracker: JobRunTracker, tmp_path: Path
) -> None:
    with load(redis_url, database_url, tmp_path, "\x1f\x8b no gzip", "quotes.csv.gz") as loading:
        assert loading.wait(60) in (1, 2), loading.said()
    assert tracker.get_recent_runs() == []


def test_runs_are_listed_a_line_each(
    environment: pytest.MonkeyPatch, tracker: JobRunTracker, database: Connection
) -> None:
    assert list_jobs() == (0, ["no runs"])
    assert list_jobs("--stuck") == (0, ["no runs are stuck"])
    failed = tracker.start_run("mds load", "bars", "cme")
    tracker.update_progress(failed, rows_written=29_996, rows_failed=4, rows_processed=30_000)
    tracker.complete_run(failed, "failure", "dead letters: 4 " + "and " * 100 + "so on")
    database.execute("UPDATE job_runs SET completed_at = started_at + interval '1234.56 s'")
    foreign = tracker.start_run("\x1b[2J[red]")
    database.execute("UPDATE job_runs SET metadata = '[]' WHERE id = %s", [foreign])
    code, (header, first, second) = list_jobs()
    assert code == 0
    assert re.fullmatch(r"id +job +data +status +started +seconds +processed +written +failed +error *", header)
    assert re.fullmatch(r" 2 +\\x1b\[2J\[red] +running +\S+ \S+Z +0 +0 *", first)
    assert re.fullmatch(
        r" 1 +mds load +bars cme +failure +\S+ \S+Z +1,234.6 +30,000 +29,996 +4 +dead letters: 4 (and )+so on *", second
    )
    for options, kept in (
        (["--limit", "1"], first),
        (["--job", "mds load"], second),
        (["--status", "failure"], second),
    ):
        code, (_, line) = list_jobs(*options)
        assert (code, line.split()[0]) == (0, kept.split()[0])
    code, (header, line) = list_jobs("--stuck", "--minutes", "0")
    assert "  last heard  " in header
    assert line.split()[0] == "2"


def test_unusable_options_are_refused(environment: pytest.MonkeyPatch) -> None:
    code, said = list_jobs("--stuck", "--status", "running")
    assert (code, said[-1]) == (2, "Error: --stuck and --status cannot be combined: a stuck run has the status running")
    assert list_jobs("--status", "done")[0] == 2
