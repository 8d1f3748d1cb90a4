"""One worker for each broker, for all tests that need no other: started for the first, and as good as new for each.

A test shares it by taking the fixture `worker`. It needs no settings of its own, it kills nothing, and it leaves the
tables as they were. One that fails is the last to use that worker and its database. A module's `web` process, if it has
one, uses the database of the worker on Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import amqp
import kombu
import psycopg
import pytest
from celery import Celery

from market_data_store.coordinator.queue import holdable
from market_data_store.protocol import LANES, again_queue, held_queue
from support.databases import empty, new_database
from support.waiting import wait_until
from support.workers import Worker, working

#: Where the session's Valkey and RabbitMQ keep what shared workers take: the number of a database, a virtual host.
SHARED_DATABASE = 1
SHARED_HOST = "shared"

#: All that a worker makes.
OUR_QUEUES = tuple(
    name
    for queue in LANES.values()
    for name in (queue, again_queue(queue), *(held_queue(dataset, queue) for dataset in holdable()))
)
#: A worker that is not idle after this was left in disorder by the test before.
_IDLE_TIMEOUT_S = 5.0


def shares(request: pytest.FixtureRequest) -> bool:
    """Whether this test shares a worker or a web process, and so their corner of each server."""
    return not {"worker", "web"}.isdisjoint(request.fixturenames)


class Corner:
    """A database and a worker, at one broker."""

    def __init__(self, broker_url: str, postgres_url: str, template: str, directory: Path) -> None:
        self._broker_url = broker_url
        self._postgres_url = postgres_url
        self._template = template
        self._directory = directory
        self._stack = ExitStack()
        self._database_url = ""
        self._shared: _SharedWorker | None = None

    @property
    def database_url(self) -> str:
        if not self._database_url:
            self._database_url = self._stack.enter_context(new_database(self._postgres_url, self._template))
        return self._database_url

    def idle_worker(self) -> Worker:
        """The worker, with nothing in its queue, its tables and its log."""
        if self._shared is not None and not self._shared.is_idle():
            self.close()
        if self._shared is None:
            self._shared = self._stack.enter_context(_sharing(self._directory, self.database_url, self._broker_url))
        self.empty_database()
        self._shared.worker.forget_log()
        return self._shared.worker

    def empty_database(self) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            empty(connection)

    def close(self) -> None:
        """End the worker and drop the database; whatever comes next has others."""
        self._shared = None
        self._database_url = ""
        self._stack.close()


class _SharedWorker:
    def __init__(self, worker: Worker, app: Celery) -> None:
        self.worker = worker
        self._app = app
        # Connections of a pool would be there for tests that count connections, and gone after one that closes pools.
        app.control.mailbox.producer_pool = None

    def is_idle(self) -> bool:
        """Empty its queue, and wait until it has worked off what it had taken; False when it does not."""
        name = self.worker.hostname()
        with self._app.connection_for_write() as connection:
            empty_queue(connection)
            inspect = self._app.control.inspect(destination=[name], timeout=_IDLE_TIMEOUT_S, connection=connection)

            def has_nothing() -> bool:
                return all((look() or {}).get(name) == [] for look in (inspect.active, inspect.reserved))

            try:
                wait_until(has_nothing, timeout_s=_IDLE_TIMEOUT_S)
            except AssertionError:
                return False
        return True


@contextmanager
def _sharing(directory: Path, database_url: str, broker_url: str) -> Iterator[_SharedWorker]:
    with Celery("sharing", broker=broker_url, set_as_current=False) as app:
        with app.connection_for_write() as connection:
            empty_queue(connection)
        with working(directory, DATABASE_URL=database_url, BROKER_URL=broker_url) as worker:
            yield _SharedWorker(worker, app)


def empty_queue(connection: kombu.Connection) -> None:
    """Leave nothing at the broker but the queues that answer a worker's remote control."""
    if connection.transport.driver_type == "redis":
        client = connection.default_channel.client
        if keys := [key for key in client.scan_iter() if not key.startswith(b"_kombu.binding.")]:
            client.delete(*keys)
    else:
        for name in OUR_QUEUES:
            with connection.channel() as channel:
                try:
                    channel.queue_purge(name)
                except amqp.NotFound:
                    pass
