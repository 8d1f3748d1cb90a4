"""The monitors' upkeep: one of them does it, it deletes only where that is asked for, and it says what it did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from support.databases import Connection
from support.processes import MDS, mds, running
from support.waiting import wait_until
from support.web import monitor, serving

from market_data_store.config.owned_files import variables
from market_data_store.coordinator.clock_watch import ClockWatch
from market_data_store.local import free_port
from market_data_store.postgres import upkeep_runs
from market_data_store.postgres.leases import Lease
from market_data_store.postgres.room import Room
from market_data_store.postgres.upkeep_runs import RETENTION
from market_data_store.status.database import DatabaseReader
from market_data_store.upkeep import schedule
from market_data_store.upkeep.retention import Retention
from market_data_store.upkeep.schedule import Upkeep

DAYS = {"ticks": 30, "dead_letters": 90}
TICKS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, enqueued_at)
    SELECT 'p', 'S' || i % 3, now() - i * interval '1 day', i, 1, now() FROM generate_series(1, 40) AS i
"""
COUNT = "SELECT count(*) FROM tick_data"


@pytest.fixture
def upkeeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Upkeep]]:
    """Those that a test starts, ended after it; their turns are short."""
    monkeypatch.setattr(schedule, "_TURN_S", 0.05)
    started: list[Upkeep] = []
    yield started
    for each in started:
        each.stop()


def started(upkeeps: list[Upkeep], url: str, *, automatic: bool, interval_s: float = 3_600.0) -> Upkeep:
    upkeeps.append(Upkeep(url, Retention(DAYS, automatic=automatic), Room(0), ClockWatch(), interval_s))
    upkeeps[-1].start()
    return upkeeps[-1]


def said(database: Connection) -> str:
    wait_until(lambda: upkeep_runs.last(database, RETENTION) is not None, "a run")
    last = upkeep_runs.last(database, RETENTION)
    assert last is not None
    return last.said


def test_without_the_setting_nothing_is_deleted_and_what_would_be_is_said(
    database: Connection, database_url: str, upkeeps: list[Upkeep]
) -> None:
    database.execute(TICKS)
    started(upkeeps, database_url, automatic=False)
    expected = "would delete 11 rows of ticks; MDS_RETENTION_AUTO=1 or `mds retention` deletes it"
    assert said(database) == expected
    assert database.execute(COUNT).fetchall() == [(40,)]
    # With the setting it is due at once, whoever leads then.
    upkeeps.pop().stop()
    started(upkeeps, database_url, automatic=True)
    wait_until(lambda: said(database) == "deleted 11 rows of ticks", lambda: said(database))
    assert database.execute(COUNT).fetchall() == [(29,)]


def test_of_two_one_runs_and_the_other_takes_over(
    database: Connection, database_url: str, upkeeps: list[Upkeep]
) -> None:
    database.execute("CREATE TABLE runs (holder text, at timestamptz)")
    database.execute("""
        CREATE FUNCTION ran() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO runs VALUES (NEW.holder, NEW.started_at); RETURN NEW; END $$;
        CREATE TRIGGER ran BEFORE INSERT OR UPDATE ON upkeep_runs FOR EACH ROW EXECUTE FUNCTION ran()
    """)
    first = started(upkeeps, database_url, automatic=True, interval_s=0.2)
    wait_until(lambda: database.execute("SELECT FROM runs").rowcount >= 1)
    started(upkeeps, database_url, automatic=True, interval_s=0.2)
    wait_until(lambda: database.execute("SELECT FROM runs").rowcount >= 4)
    assert database.execute("SELECT DISTINCT holder FROM runs").rowcount == 1
    upkeeps.remove(first)
    first.stop()
    wait_until(lambda: database.execute("SELECT DISTINCT holder FROM runs").rowcount == 2)


def test_a_dataset_that_fails_is_named_and_the_others_are_done(
    database: Connection, database_url: str, upkeeps: list[Upkeep]
) -> None:
    database.execute(TICKS)
    database.execute("ALTER TABLE dead_letters RENAME TO away")
    started(upkeeps, database_url, automatic=True)
    assert said(database) == 'deleted 11 rows of ticks; dead_letters failed: relation "dead_letters" does not exist'


def test_a_run_that_loses_the_lease_ends(
    database: Connection, database_url: str, upkeeps: list[Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    database.execute(TICKS)
    database.execute("""
        CREATE FUNCTION robbed() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE leases SET holder = 'another', expires_at = now() + interval '20 s'; RETURN NULL; END $$;
        CREATE TRIGGER robbed AFTER DELETE ON tick_data FOR EACH STATEMENT EXECUTE FUNCTION robbed()
    """)
    caplog.set_level("INFO")
    started(upkeeps, database_url, automatic=True)
    wait_until(lambda: "upkeep: another process has the lease now" in caplog.text, lambda: caplog.text)
    assert upkeep_runs.last(database, RETENTION) is None


def test_a_database_that_is_not_migrated_is_said_once(
    unmigrated_url: str, upkeeps: list[Upkeep], caplog: pytest.LogCaptureFixture
) -> None:
    upkeep = started(upkeeps, unmigrated_url, automatic=True)
    wait_until(lambda: "Upkeep waits: a migration is due; run `mds migrate`" in caplog.text)
    upkeeps.remove(upkeep)
    upkeep.stop()
    assert len(caplog.records) == 1


def test_the_last_run_is_in_the_status(database: Connection, database_url: str, upkeeps: list[Upkeep]) -> None:
    database.execute(TICKS)
    reader = DatabaseReader(database_url)
    assert reader.read().retention is None
    started(upkeeps, database_url, automatic=True)
    assert said(database) == "deleted 11 rows of ticks"
    found = reader.read().retention
    reader.close()
    assert found is not None
    assert (found.said, found.automatic, found.age_s < 20) == ("deleted 11 rows of ticks", True, True)


def metrics(port: int) -> dict[str, float]:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith(("mds_upkeep", "mds_retention")))
    return {name: float(value) for name, _, value in pairs if "_created" not in name}


@pytest.mark.slow
def test_a_killed_monitor_is_followed_by_another(
    database: Connection, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    given = {
        **{"DATABASE_URL": database_url, "BROKER_URL": redis_url, "MDS_MONITOR_METRICS_PORT": str(port)},
        **{"MDS_RETENTION_DAYS": "ticks=30", "MDS_RETENTION_AUTO": "1", "MDS_UPKEEP_INTERVAL_S": "1"},
    }
    database.execute(TICKS)
    with running(*MDS, "monitor", directory=tmp_path, environment=given, name="first") as first:
        first.wait_for_text("Retention: deleted 11 rows of ticks")
        found = metrics(port)
        assert found.pop("mds_retention_last_run_timestamp_seconds") > 1.7e9
        assert found == {
            "mds_upkeep_leads": 1.0,
            "mds_retention_failed_datasets": 0.0,
            'mds_retention_deleted_total{dataset="ticks",unit="rows"}': 11.0,
            'mds_retention_deleted_total{dataset="ticks",unit="chunks"}': 0.0,
        }
        second = {**given, "MDS_MONITOR_METRICS_PORT": "0"}
        with running(*MDS, "monitor", directory=tmp_path, environment=second, name="second") as other:
            other.wait_for_text("Publishing feedback to")
            first.kill()
            database.execute("UPDATE tick_data SET ts = ts - interval '1 year' WHERE seq = 1")
            other.wait_for_text("This monitor leads the upkeep", timeout_s=30)
            other.wait_for_text("Retention: deleted 1 row of ticks", timeout_s=30)
    assert database.execute(COUNT).fetchall() == [(28,)]


@pytest.mark.slow
def test_page_and_command_say_what_would_go(
    database: Connection, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    given = {"DATABASE_URL": database_url, "BROKER_URL": redis_url, "MDS_RETENTION_DAYS": "ticks=30"}
    database.execute(TICKS)
    with monitor(tmp_path, **given) as process, serving(tmp_path, **given) as web:
        process.wait_for_text("Retention: would delete 11 rows of ticks; MDS_RETENTION_AUTO=1 or `mds retention`")
        shown = wait_until(lambda: web.client.get("/status.json").json()["retention"], web.log_text)
        assert (shown["automatic"], shown["found"]) == (
            False,
            [{"dataset": "ticks", "rows": 11, "chunks": None}],
        )
        status = mds(tmp_path, "status", **given)
        assert "would delete 11 rows of ticks" in status.stdout, status
    assert database.execute(COUNT).fetchall() == [(40,)]
    nowhere = {"BROKER_URL": redis_url}
    with monitor(tmp_path, **nowhere) as process:
        process.wait_for_text("No upkeep: DATABASE_URL is not set for this monitor")


@pytest.mark.slow
def test_mds_up_deletes_what_is_too_old(tmp_path: Path) -> None:
    settings = {"MDS_RETENTION_DAYS": "ticks=30", "MDS_RETENTION_AUTO": "1", "MDS_UPKEEP_INTERVAL_S": "1"}
    command = (*MDS, "up", "--web-port=0", "--flower-port=0")
    with running(*command, directory=tmp_path, environment=settings, name="up") as up:
        up.wait_for_text("Retention: deleted nothing", timeout_s=60)
        up.wait_for_text("Ready", timeout_s=60)
        with psycopg.connect(variables(tmp_path / ".mds/env")["DATABASE_URL"], autocommit=True) as database:
            database.execute(TICKS)
            up.wait_for_text("Retention: deleted 11 rows of ticks")
            assert database.execute(COUNT).fetchall() == [(29,)]
        up.end()


def test_the_lease_is_not_taken_for_good(database: Connection, database_url: str, upkeeps: list[Upkeep]) -> None:
    assert Lease("upkeep", lease_s=0.5).held(database)
    started(upkeeps, database_url, automatic=True)
    assert said(database) == "deleted nothing"
