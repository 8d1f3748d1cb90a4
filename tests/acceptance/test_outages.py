"""Real faults of Postgres while rows come in: workers survive each, no row is lost, and no dead letter is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from support.databases import empty, new_database
from support.stream import Stream
from support.waiting import wait_until
from support.web import monitor
from support.workers import Worker, working

from market_data_store.local import free_port, start_postgres, start_valkey
from market_data_store.postgres import schema
from market_data_store.protocol import QUEUE, TASK

Connection = psycopg.Connection[Any]
Trouble = Callable[[Connection], AbstractContextManager[None]]

_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'writer'"


@contextmanager
def read_only(database: Connection) -> Any:
    """Act as after a failover to a server that is still a replica."""
    database.execute("ALTER ROLE writer SET default_transaction_read_only = on")
    database.execute(_OTHERS)
    yield
    database.execute("ALTER ROLE writer RESET default_transaction_read_only")
    database.execute(_OTHERS)  # as the replica's promotion, or the next failover, does


@contextmanager
def too_many_connections(database: Connection) -> Any:
    database.execute("ALTER ROLE writer CONNECTION LIMIT 0")
    database.execute(_OTHERS)
    yield
    database.execute("ALTER ROLE writer CONNECTION LIMIT -1")


@contextmanager
def statement_timeout(database: Connection) -> Any:
    database.execute("ALTER ROLE writer SET statement_timeout = '20ms'")
    database.execute(_OTHERS)
    with database.transaction():
        database.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
        yield
    database.execute("ALTER ROLE writer RESET statement_timeout")
    database.execute(_OTHERS)


def raising(sqlstate: str) -> Trouble:
    """Simulate an error of the server that no test can cause at will (a full disk), or for as long as needed."""

    @contextmanager
    def raise_it(database: Connection) -> Any:
        body = f"BEGIN RAISE EXCEPTION 'made for this test' USING ERRCODE = '{sqlstate}'; END"
        database.execute(f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        database.execute("CREATE TRIGGER fail BEFORE INSERT ON signals FOR EACH ROW EXECUTE FUNCTION fail()")
        yield
        database.execute("DROP TRIGGER fail ON signals")
        database.execute("DROP FUNCTION fail")

    return raise_it


TROUBLES: dict[str, Trouble] = {
    "25006": read_only,
    "53300": too_many_connections,
    "57014": statement_timeout,
    "53100": raising("53100"),  # disk full
    "40P01": raising("40P01"),  # deadlock detected
    "40001": raising("40001"),  # serialization failure
    "58030": raising("58030"),  # I/O error
    "XX001": raising("XX001"),  # data corrupted
}


#: These may come from the dataset's table, which is then held; at the others the messages go back to the broker.
HOLDS = {"57014"}


def send(producer: Celery, rows: range, rows_a_message: int) -> None:
    for start in range(rows.start, rows.stop, rows_a_message):
        numbers = range(start, min(start + rows_a_message, rows.stop))
        message = [{"provider": "p", "symbol": "S", "name": "n", "ts": n, "value": n} for n in numbers]
        producer.send_task(TASK, args=["signals", message, {"time_unit": "s"}], queue=QUEUE, ignore_result=True)


def stored(database: Connection) -> int:
    return int(database.execute("SELECT count(*) FROM signals WHERE extract(epoch FROM ts) = value").fetchall()[0][0])


@dataclass
class Case:
    """A worker whose role Postgres can make trouble for, at a Valkey of its own."""

    worker: Worker
    producer: Celery
    database: Connection


@pytest.fixture(scope="module")
def store(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """One for all troubles, which come in turn."""
    directory = tmp_path_factory.mktemp("outages")
    with (
        new_database(postgres_url, migrated_template) as url,
        psycopg.connect(url, autocommit=True) as database,
        start_valkey(directory / "valkey") as valkey,
        Celery("producer", broker=valkey.url, set_as_current=False) as producer,
    ):
        database.execute("CREATE ROLE writer LOGIN")
        database.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
        database.execute("GRANT TEMPORARY ON DATABASE " + database.info.dbname + " TO writer")
        writer_url = url.replace("postgres@", "writer@")
        with working(directory, DATABASE_URL=writer_url, BROKER_URL=valkey.url, MDS_RETRY_DEADLINE_S="1") as worker:
            yield Case(worker, producer, database)
        database.execute(_OTHERS)
        database.execute("DROP OWNED BY writer")
        database.execute("DROP ROLE writer")


@pytest.mark.slow
@pytest.mark.parametrize("sqlstate", TROUBLES)
def test_a_worker_survives_a_fault_of_postgres(sqlstate: str, store: Case) -> None:
    worker, producer, database = store.worker, store.producer, store.database
    empty(database)
    worker.forget_log()
    send(producer, range(100), 10)
    wait_until(lambda: stored(database) == 100, worker.whole_log)
    with TROUBLES[sqlstate](database):
        send(producer, range(100, 400), 10)
        wait_until(lambda: f"SQLSTATE {sqlstate}" in worker.whole_log() or said(worker, sqlstate), worker.whole_log)
        settled = "The dataset signals is held" if sqlstate in HOLDS else "goes back to the broker"
        wait_until(lambda: settled in worker.whole_log(), worker.whole_log, timeout_s=30)
    wait_until(lambda: stored(database) == 400, worker.whole_log, timeout_s=60)
    assert database.execute("SELECT count(*) FROM dead_letters").fetchall() == [(0,)]


def said(worker: Worker, sqlstate: str) -> bool:
    return sqlstate == "53300" and "Postgres takes no more connections" in worker.whole_log()


@pytest.mark.parametrize(
    "outage_s", [pytest.param(8, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.soak)]
)
def test_postgres_is_gone_in_the_middle_of_thirty_thousand_rows(
    outage_s: int, broker_url: str, producer: Celery, redis_url: str, tmp_path: Path
) -> None:
    port, stream = free_port(), Stream(redis_url)
    with ExitStack() as stack:
        with start_postgres(tmp_path / "data", port=port) as server:
            schema.upgrade(server.url)
            servers = {"DATABASE_URL": server.url, "BROKER_URL": broker_url, "REDIS_URL": redis_url}
            settings = {"MDS_QUEUE_CAPACITY": "40", "MDS_PREFETCH_MESSAGES": "2", "MDS_RETRY_DEADLINE_S": "3"}
            stack.callback(stream.client.close)
            stack.enter_context(monitor(tmp_path, **servers, **settings))
            worker = stack.enter_context(working(tmp_path, **servers, **settings))
            stream.wait_for("ok", timeout_s=20)
            send(producer, range(10_000), 500)
            with psycopg.connect(server.url, autocommit=True) as database:
                wait_until(lambda: stored(database) > 0)
        stopped_at = time.monotonic()
        send(producer, range(10_000, 30_000), 500)
        stream.wait_for("hard", timeout_s=30)
        wait_until(lambda: time.monotonic() - stopped_at > outage_s, timeout_s=outage_s + 10)
        pid = worker.pid
        with start_postgres(tmp_path / "data", port=port) as server:
            with psycopg.connect(server.url, autocommit=True) as database:
                wait_until(lambda: stored(database) == 30_000, worker.whole_log, timeout_s=120)
                assert database.execute("SELECT count(*) FROM dead_letters").fetchall() == [(0,)]
            stream.wait_for("ok", timeout_s=30)
            assert worker.pid == pid  # no restart
    levels = [level for level, _ in stream.states()]
    assert "hard" in levels
    assert levels[-1] == "ok"
