"""The servers of a test run, embedded, and what a test starts on them: databases, brokers, workers."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import hypothesis
import kombu
import kombu.pools
import psycopg
import pytest
import redis
from celery import Celery
from psycopg.rows import dict_row
from pydantic import AliasChoices
from support.brokers import Broker
from support.browser import chromium
from support.neighbours import orchestrator, pipeline
from support.rabbitmq import RabbitMQ, rabbitmq
from support.requirements import require_rabbitmq
from support.stream import Stream
from support.workers import Worker, until

from market_data_store.config import Settings, resource
from market_data_store.coordinator.queue import QueueInspector
from market_data_store.local import start_postgres, start_valkey
from market_data_store.postgres import schema

__all__ = ["chromium", "orchestrator", "pipeline"]

#: The name of the task and of its queue, as a foreign application knows it.
TASK = "store.write"
QUEUE = "store.write"
WORKERS = pytest.StashKey[list[Worker]]()

Connection = psycopg.Connection[tuple[Any, ...]]
Bar = dict[str, Any]
StartWorker = Callable[..., Worker]
Send = Callable[..., Any]
HoldBack = Callable[[], AbstractContextManager[Callable[[int], object]]]


def pytest_configure() -> None:
    """Before `market_data_store.app` is imported, which reads them: a developer's own servers are not for tests."""
    for field in Settings.model_fields.values():
        assert isinstance(field.validation_alias, AliasChoices)
        for name in field.validation_alias.choices:
            os.environ.pop(str(name), None)
    # In CI the same examples each time: what a new example finds is found, and mended, before.
    hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
    hypothesis.settings.register_profile("default", deadline=None)
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded Postgres: its maintenance database."""
    with start_postgres(tmp_path_factory.mktemp("postgres")) as server:
        url = database_at(server.url, "postgres")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # nobody pulls the plug on a test
            connection.execute("SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> str:
    """Name of a migrated database that nobody is connected to, to be cloned."""
    name = "migrated_template"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    schema.upgrade(database_at(postgres_url, name))
    return name


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated, empty database for this test."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
        yield database_at(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Connection]:
    """A connection to this test's database; each statement is committed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def database_at(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@pytest.fixture(scope="session")
def valkey_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def redis_url(valkey_server_url: str) -> str:
    """An empty embedded Valkey."""
    with redis.Redis.from_url(valkey_server_url) as client:
        client.flushall()
    return valkey_server_url


@pytest.fixture
def stream(redis_url: str) -> Iterator[Stream]:
    """The stream of feedback in that Valkey."""
    stream = Stream(redis_url)
    yield stream
    stream.client.close()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each broker in turn, one of this test's own: it may be stopped."""
    if request.param == "rabbitmq":
        require_rabbitmq()
    broker = Broker(request.param, tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    require_rabbitmq()
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> str:
    """A RabbitMQ without our queue."""
    with kombu.Connection(rabbitmq_server.url) as connection:
        connection.default_channel.queue_delete(QUEUE)
    return rabbitmq_server.url


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def producer(broker_url: str) -> Iterator[Celery]:
    """A foreign application: it knows the broker, the task's name, and nothing of ours."""
    backend = broker_url if broker_url.startswith("redis") else "rpc://"
    with Celery("producer", broker=broker_url, backend=backend, set_as_current=False) as app:
        app.conf.task_create_missing_queue_type = "quorum"
        if backend == "rpc://":
            app.conf.broker_transport_options = {"confirm_publish": True}  # else a broker's crash can lose the last
        yield app
        # Sockets that are left to the garbage collector warn, in some later test.
        kombu.pools.reset()
        with suppress(AttributeError):  # rpc:// that has not waited for a result
            app.backend.result_consumer.stop()
        if backend != "rpc://":
            app.backend.client.connection_pool.disconnect()


@pytest.fixture
def queue(producer: Celery) -> Iterator[QueueInspector]:
    inspector = QueueInspector(producer, QUEUE)
    yield inspector
    inspector.close()


@pytest.fixture
def start_worker(
    request: pytest.FixtureRequest, broker_url: str, database_url: str, tmp_path: Path
) -> Iterator[StartWorker]:
    """Start workers on this test's broker and database, with more variables if need be: `start_worker(MDS_X="1")`."""
    workers = request.node.stash.setdefault(WORKERS, [])

    def start(pool: str = "prefork", module: str = "market_data_store.app", **environment: str) -> Worker:
        environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, **environment}
        worker = Worker(environment, tmp_path, pool=pool, module=module)
        workers.append(worker)
        worker.ready()
        return worker

    yield start
    for worker in workers:
        worker.container.kill()


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    return start_worker()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its workers logged."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {w.name()}", w.whole_log()[-20_000:]) for w in item.stash.get(WORKERS, [])]
    return report


@pytest.fixture(scope="session")
def bars() -> list[Bar]:
    """29,996 real bars of a minute each, in order of time, with all that a row of bars_ohlcv needs."""
    with gzip.open(resource("data") / "6EH4-1min-bars-2024-01.csv.gz", "rt") as lines:
        return [
            {"provider": "CME", "symbol": "6EH4", "interval": "1m", "ts": line.pop("timestamp_utc")}
            | {name: float(value) for name, value in line.items()}
            for line in csv.DictReader(lines)
        ]


@pytest.fixture
def stored(database: Connection) -> Callable[[], list[Bar]]:
    """What bars_ohlcv holds, in the form and order of `bars`."""
    columns = "provider, symbol, interval, (ts AT TIME ZONE 'UTC')::text AS ts, open, high, low, close, volume"
    cursor = database.cursor(row_factory=dict_row)
    return lambda: cursor.execute(f"SELECT {columns} FROM bars_ohlcv ORDER BY bars_ohlcv.ts").fetchall()


@pytest.fixture
def send(producer: Celery) -> Send:
    """Send bars in one message, as a foreign application does; returns the task's AsyncResult."""
    return lambda rows, **options: producer.send_task(TASK, args=["bars", rows], queue=QUEUE, **options)


@pytest.fixture
def writes_held_back(database_url: str, database: Connection) -> HoldBack:
    """`with writes_held_back() as until_held:` no bar is written in this block; `until_held(2)`: two batches wait."""

    @contextmanager
    def hold_back() -> Iterator[Callable[[int], object]]:
        with psycopg.connect(database_url) as holder:
            holder.execute("LOCK TABLE bars_ohlcv IN ACCESS EXCLUSIVE MODE")
            yield lambda batches: until(lambda: held() == batches, f"{batches} batches wait")

    def held() -> int:
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return database.execute(waiting).rowcount

    return hold_back
