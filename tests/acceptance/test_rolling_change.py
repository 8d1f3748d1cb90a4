"""Processes of version 0.4 run beside today's, through the migrations and back, and no row is lost.

One producer of each version writes all the time. At the end every row that their `write` accepted is stored with the
newest value of its key, and each row that the table refuses is a dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery
from psycopg import sql
from support.brokers import Broker
from support.databases import new_database
from support.ledger_producer import VALUES, accepted, begun, expected
from support.processes import MDS, PYTHON, Part, Process, run, running
from support.version_0_4_0 import Version040
from support.waiting import wait_until
from support.web import TOKEN
from support.workers import Worker

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.datasets import DATASETS
from market_data_store.local import free_port
from market_data_store.protocol import QUEUE, held_queue

#: Where version 0.4 left the database, and today's newest.
THEN = "0002"
MDS_THEN = (PYTHON, "-m", "market_data_store")
PRODUCERS = ("then", "now")
WITHIN_S = 90.0


class Store:
    """One broker and one database, and the processes of both versions that use them."""

    def __init__(self, broker: Broker, database_url: str, redis_url: str, directory: Path) -> None:
        self._directory = directory
        self._url = database_url
        self._now = {
            "DATABASE_URL": database_url,
            "BROKER_URL": broker.url,
            "MDS_VISIBILITY_TIMEOUT_S": "10",
            "MDS_HELD_PROBE_S": "2",
            "ADMIN_TOKEN": TOKEN,
        } | ({"REDIS_URL": redis_url} if broker.kind == "rabbitmq" else {})
        self._then = self._now | Version040(directory / "then").variables
        self._queue = QueueInspector(Celery(broker=broker.url), QUEUE)
        self.workers: list[Worker] = []
        self.processes: list[Process] = []

    def worker(self, *, then: bool = False) -> Worker:
        """A worker of today, or of then, which is ready."""
        worker = Worker(self._then if then else self._now, self._directory)
        self.workers.append(worker)
        worker.ready()
        return worker

    def start(self, name: str, *command: Part, then: bool = False, **variables: str) -> Process:
        environment = (self._then if then else self._now) | variables
        process = Process(*command, directory=self._directory, environment=environment, name=name)
        self.processes.append(process)
        return process

    def mds(self, *arguments: str, then: bool = False) -> str:
        """What a command prints that ends well."""
        done = self.run(*arguments, then=then)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def run(self, *arguments: str, then: bool = False) -> CompletedProcess[str]:
        command, environment = (MDS_THEN, self._then) if then else (MDS, self._now)
        return run(*command, *arguments, directory=self._directory, environment=environment)

    def migrate_down(self) -> None:
        """As many steps as there are to where 0.4 left the database."""
        while self.ask("SELECT version_num FROM alembic_version") != [(THEN,)]:
            self.mds("migrate", "--down", "--yes")

    def goes_on(self) -> None:
        """Wait until another row of each producer is committed for each dataset."""
        before = {dataset: self._newest(dataset) for dataset in VALUES}
        for dataset, newest in before.items():
            wait_until(
                lambda dataset=dataset, newest=newest: all(  # type: ignore[misc]
                    self._newest(dataset).get(name, -1) > newest.get(name, -1) for name in PRODUCERS
                ),
                lambda dataset=dataset: f"no row of {dataset}: {self.logs()}",  # type: ignore[misc]
                timeout_s=WITHIN_S,
            )

    def held(self) -> dict[str, int]:
        return self._queue.set_aside()

    def settle(self) -> None:
        """End the producers when all that they hold is sent, and wait until it is stored."""
        for process in self.processes:
            if process.log.stem in PRODUCERS:
                process.end(timeout_s=120)
        wait_until(lambda: self.differences() == {} and self._queue.depth() == 0, self.logs, timeout_s=WITHIN_S)

    def differences(self) -> dict[tuple[str, str], Any]:
        """By producer and dataset, what is not stored as it must be."""
        found = {}
        for dataset in VALUES:
            stored: dict[str, dict[int, int]] = {name: {} for name in PRODUCERS}
            for name, key, value in self.ask("SELECT provider, extract(epoch FROM ts), {column} FROM {table}", dataset):
                stored[name][int(key)] = int(value)
            for name in PRODUCERS:
                wanted = expected(accepted(self._ledger(name))[dataset])
                if wanted != stored[name]:
                    found[name, dataset] = sorted(wanted.items() ^ stored[name].items())[:6]
        return found

    def letters(self) -> set[tuple[str, str, int]]:
        query = "SELECT coalesce(defaults->>'provider', row->>'provider'), dataset, row FROM dead_letters"
        return {(name, dataset, int((row or {}).get(VALUES[dataset], 0))) for name, dataset, row in self.ask(query)}

    def refused(self) -> set[tuple[str, str, int]]:
        """The rows that the table refuses."""
        return {(name, *row) for name in PRODUCERS for row in begun(self._ledger(name))}

    def ask(self, query: str, dataset: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url) as connection:
            return connection.execute(_composed(query, dataset)).fetchall()

    def alter(self, statement: str, dataset: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_composed(statement, dataset))

    def logs(self) -> str:
        logs = [f"{worker.name()}:\n{worker.whole_log()[-5_000:]}" for worker in self.workers]
        return "\n---\n".join([str(self.differences()), str(self.held()), str(self.letters() ^ self.refused()), *logs])

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for worker in self.workers:
            worker.container.kill()
        self._queue.close()

    def _newest(self, dataset: str) -> dict[str, int]:
        return dict(self.ask("SELECT provider, max({column}) FROM {table} GROUP BY 1", dataset))

    def _ledger(self, producer: str) -> Path:
        return self._directory / f"{producer}.ledger"


def _composed(query: str, dataset: str | None) -> sql.Composed:
    table = DATASETS[dataset].table.name if dataset else ""
    column = VALUES[dataset] if dataset else ""
    return sql.SQL(query).format(table=sql.Identifier(table), column=sql.Identifier(column))


@pytest.fixture
def store(broker: Broker, postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Store]:
    with new_database(postgres_url) as url:
        store = Store(broker, url, redis_url, tmp_path)
        yield store
        store.end()


@pytest.mark.slow
def test_two_versions_run_beside_each_other_through_the_migrations_and_back(store: Store, tmp_path: Path) -> None:
    store.mds("migrate", then=True)
    for dataset in VALUES:
        store.alter("ALTER TABLE {table} ADD CONSTRAINT sign CHECK ({column} >= 0)", dataset)
    first, second = store.worker(then=True), store.worker(then=True)
    monitor = store.start("monitor then", *MDS_THEN, "monitor", then=True)
    for name in PRODUCERS:
        arguments = ("-m", "support.ledger_producer", name, tmp_path, "confirm")
        store.start(name, PYTHON, *arguments, then=name == "then")
    store.goes_on()

    # Up: the migrations, then one worker after the other.
    store.mds("migrate")
    store.goes_on()
    third = store.worker()
    store.goes_on()
    first.stop()
    store.goes_on()
    second.container.kill()
    monitor.end()
    monitor = store.start("monitor now", *MDS, "monitor")
    fourth = store.worker()
    store.goes_on()

    # Down: the migrations first, by mistake, then as the documents say.
    store.migrate_down()
    wait_until(lambda: held_queue("bars") in store.held(), store.logs, timeout_s=30)
    third.container.kill()
    fourth.stop()
    fifth = store.worker(then=True)  # on Redis it puts back what a killed worker had
    wait_until(lambda: releases_all(store), store.logs, timeout_s=WITHIN_S)
    monitor.end()
    store.start("monitor again", *MDS_THEN, "monitor", then=True)
    store.goes_on()
    assert store.held() == {}
    store.settle()
    assert store.letters() == store.refused()
    fifth.stop()


def releases_all(store: Store) -> bool:
    """Give back what is set aside; on Redis what a killed worker had follows when its lease has ended."""
    done = json.loads(store.run("release-held", "--json").stdout)
    return not (done["left"] or done["taken"])


#: Writes ten rows with a spool; with `send`, waits until the spool is empty.
_SPOOLING = """
import sys, time
from market_data_store import StoreClient
path, send = sys.argv[1:]
client = StoreClient(spool=path, check=False)
name = "pending_rows" if hasattr(StoreClient, "pending_rows") else "spooled"
if not send:
    client.write("ticks", [{"provider": "p", "symbol": "S", "ts": n, "price": 1, "time_unit": "s"} for n in range(10)])
    print(getattr(client, name), flush=True)
    time.sleep(60)
while getattr(client, name):
    time.sleep(0.05)
client.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("written_then", [True, False])
def test_rows_in_the_spool_of_one_version_are_sent_by_the_other(
    redis_url: str, tmp_path: Path, written_then: bool
) -> None:
    then = Version040(tmp_path / "then").variables
    first, second = (then, {}) if written_then else ({}, then)
    spool = tmp_path / "spool"
    away = {**first, "BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    with running(PYTHON, "-c", _SPOOLING, spool, "", directory=tmp_path, environment=away) as producer:
        assert producer.wait_for_line(1) == "10"
    here = {**second, "BROKER_URL": redis_url}
    sent = run(PYTHON, "-c", _SPOOLING, spool, "send", directory=tmp_path, environment=here)
    assert sent.returncode == 0, sent
    with redis.Redis.from_url(redis_url) as server:
        assert server.llen(QUEUE) == 1
