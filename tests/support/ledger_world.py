"""A broker, a Postgres behind a pooler, two workers, a monitor, producers of both lanes, and what must be stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from market_data_store.coordinator.queue import QueueInspector
from market_data_store.datasets import DATASETS
from market_data_store.errors import BrokerUnavailable
from market_data_store.local import free_port, start_postgres
from market_data_store.postgres import schema
from market_data_store.protocol import LANES, QUEUE
from support.brokers import Broker
from support.ledger_producer import VALUES, accepted, begun, expected
from support.owner import Trouble, in_trouble
from support.pgbouncer import PgBouncer
from support.processes import MDS, PYTHON, Part, Process
from support.sentinels import SentinelBroker
from support.version_0_4_0 import Version040
from support.waiting import wait_until
from support.workers import Worker

CONFIRM = "confirm"
PRODUCERS = {"plain": "", "confirming": CONFIRM, "history": ""}
#: The lanes of those that do not send live rows.
_LANES = {"history": "backfill"}
#: As whom the workers connect.
_ROLE = "store"
#: Fewer than the processes that write, so that they share them.
_POOLED_SESSIONS = 3
#: Within these seconds a dataset must be held, or written again. They include a lock's wait of 5 s, a producer's pause
#: after a loss of its broker, and the time that a killed worker's messages take to come back.
_HELD_WITHIN_S, _RECOVERED_WITHIN_S = 30.0, 90.0
_ROLES = """
    CREATE ROLE {role} LOGIN;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
"""


class World:
    """All of it, running. Ended by `end`."""

    def __init__(self, broker: str, directory: Path, redis_url: str) -> None:
        self._directory = directory
        #: How many seconds it took each time until rows were written again.
        self.recoveries: list[float] = []
        self._earlier: Version040 | None = None
        self._postgres_port = free_port()
        self.start_postgres()
        schema.upgrade(self.postgres.url)
        self._prepare_tables()
        self.pooler = PgBouncer(self.postgres.url, pool_size=_POOLED_SESSIONS, user=_ROLE)
        place = directory / "broker"
        self.broker = SentinelBroker(place) if broker == "sentinel" else Broker(broker, place)
        self._queue = QueueInspector(self.broker.asked_by(), QUEUE)
        self._servers = {
            "DATABASE_URL": self.pooler.url,
            **self.broker.environment,
            # Else a message that a killed worker held would come back after ten minutes.
            "MDS_VISIBILITY_TIMEOUT_S": "10",
            "MDS_HELD_PROBE_S": "2",
            # A message may be the one that a worker has in hand at several of the kills, and is not at fault for that.
            "MDS_MAX_DELIVERIES": "100",
        } | ({"REDIS_URL": redis_url} if broker == "rabbitmq" else {})
        self.workers = [Worker(self._servers, directory) for _ in range(2)]
        self.monitor = self._process("monitor", *MDS, "monitor")
        # What a master has confirmed and no replica has is lost with it, except for who awaits results.
        confirm = {name: CONFIRM if broker == "sentinel" else given for name, given in PRODUCERS.items()}
        self.producers = {
            name: self._process(
                name, PYTHON, "-m", "support.ledger_producer", name, directory, given, _LANES.get(name, "live")
            )
            for name, given in confirm.items()
        }

    def begin(self) -> None:
        """Wait until all producers' rows of each dataset are written."""
        for worker in self.workers:
            worker.ready()
        wait_until(lambda: all(len(self._newest(name)) == len(PRODUCERS) for name in VALUES), self.logs, timeout_s=60)

    def start_postgres(self) -> None:
        """Start Postgres, with what it has stored."""
        self.postgres = start_postgres(self._directory / "postgres", port=self._postgres_port)

    @contextmanager
    def in_trouble(self, dataset: str, trouble: Trouble) -> Iterator[None]:
        """A dataset whose table is in trouble; its messages are held by now if it can take no row."""
        table = DATASETS[dataset].table.name
        with in_trouble(self.postgres.url, trouble, table, VALUES[dataset], _ROLE):
            if trouble.holds:
                wait_until(lambda: self._is_held(dataset), lambda: f"not held: {self.logs()}", timeout_s=_HELD_WITHIN_S)
            yield

    @contextmanager
    def earlier_worker(self) -> Iterator[Worker]:
        """A ready worker of version 0.4, which cannot write through the pooler; killed at the end of the block."""
        if self._earlier is None:
            self._earlier = Version040(self._directory / "0.4")
        direct = urlsplit(self.postgres.url)
        url = direct._replace(netloc=f"{_ROLE}@{direct.hostname}:{direct.port}").geturl()
        worker = Worker({**self._servers, "DATABASE_URL": url, **self._earlier.variables}, self._directory)
        try:
            worker.ready()
            yield worker
        finally:
            worker.container.kill()

    def recover(self) -> None:
        """Wait until rows of each dataset are committed, and note how long that took."""
        started = time.monotonic()
        self.until_written()
        self.recoveries.append(time.monotonic() - started)

    def until_written(self) -> None:
        """Wait until rows of each dataset are committed."""
        before = {dataset: self._newest(dataset) for dataset in VALUES}
        for dataset, newest in before.items():
            wait_until(
                lambda dataset=dataset, newest=newest: self._newest(dataset) not in (newest, {}),  # type: ignore[misc]
                lambda dataset=dataset: f"no row of {dataset} is written: {self.logs()}",  # type: ignore[misc]
                timeout_s=_RECOVERED_WITHIN_S,
            )

    def settle(self) -> None:
        """Make the producers send what they hold, and wait until all of it is stored and no message is left."""
        for producer in self.producers.values():
            producer.end(timeout_s=120)
        wait_until(
            lambda: self.stored() == self.expected() and self._messages() == 0,
            lambda: f"{self._messages()} messages, {self._differences()}; {self.logs()}",
            timeout_s=240,
        )

    def accepted(self) -> dict[str, dict[str, int]]:
        """By producer and dataset, how many rows were accepted."""
        return {name: accepted(self._ledger(name)) for name in PRODUCERS}

    def expected(self) -> dict[tuple[str, str], dict[int, int]]:
        """What must be stored, by producer and dataset: the newest value of each key."""
        return {
            (name, dataset): expected(count)
            for name, counts in self.accepted().items()
            for dataset, count in counts.items()
        }

    def stored(self) -> dict[tuple[str, str], dict[int, int]]:
        """What is stored, with each value by its key."""
        found: dict[tuple[str, str], dict[int, int]] = {(name, dataset): {} for name in PRODUCERS for dataset in VALUES}
        for dataset in VALUES:
            query = "SELECT provider, extract(epoch FROM ts), {column} FROM {table}"
            for name, key, value in self.ask(query, dataset):
                found[name, dataset][int(key)] = int(value)
        return found

    def refused(self) -> Counter[tuple[str, str, int]]:
        """By producer, dataset and value, how often each row was given to `write` that the table refuses.

        A row is given to it again if the producer was killed before it noted that the row was accepted.
        """
        return Counter({(name, *row): n for name in PRODUCERS for row, n in begun(self._ledger(name)).items()})

    def letters(self) -> Counter[tuple[str, str, int]]:
        """The same of dead letters; what is in the place of the value if there is none is 0."""
        query = "SELECT coalesce(defaults->>'provider', row->>'provider'), dataset, row FROM dead_letters"
        return Counter(
            (provider, dataset, int((row or {}).get(VALUES.get(dataset, ""), 0)))
            for provider, dataset, row in self.ask(query)
        )

    def ask(self, query: str, dataset: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query, in which `{table}` and `{column}` are the dataset's."""
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            return connection.execute(_composed(query, dataset)).fetchall()

    def end(self) -> None:
        """Kill all of it."""
        for process in (*self.producers.values(), self.monitor):
            process.kill()
        for worker in self.workers:
            worker.container.kill()
        self._queue.close()
        self.pooler.remove()
        self.postgres.stop()
        self.broker.end()

    def logs(self) -> str:
        """The ends of the logs."""
        logs = [producer.whole_text()[-2_000:] for producer in self.producers.values()]
        return "\n---\n".join([*logs, *(worker.whole_log()[-6_000:] for worker in self.workers)])

    def _ledger(self, producer: str) -> Path:
        return self._directory / f"{producer}.ledger"

    def _process(self, name: str, *command: Part) -> Process:
        return Process(*command, directory=self._directory, environment=self._servers, name=name)

    def _newest(self, dataset: str) -> dict[str, int]:
        try:
            return dict(self.ask("SELECT provider, max({column}) FROM {table} GROUP BY 1", dataset))
        except psycopg.OperationalError:  # it recovers
            return {}

    def _messages(self) -> int | None:
        """How many wait in any queue; None if the broker does not say."""
        try:
            return sum(self._queue.depth(lane) + sum(self._queue.held(lane).values()) for lane in LANES.values())
        except BrokerUnavailable:
            return None

    def _differences(self) -> list[str]:
        stored, wanted = self.stored(), self.expected()
        return [
            f"{of}: {len(wanted[of].items() - stored[of].items())} rows are not stored, "
            f"{len(stored[of].items() - wanted[of].items())} are that should not be, "
            f"such as {sorted(wanted[of].items() ^ stored[of].items())[:6]}"
            for of in wanted
            if stored[of] != wanted[of]
        ]

    def _prepare_tables(self) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(_composed(_ROLES))
            for dataset in VALUES:
                connection.execute(_composed("ALTER TABLE {table} ADD CONSTRAINT sign CHECK ({column} >= 0)", dataset))

    def _is_held(self, dataset: str) -> bool:
        with suppress(BrokerUnavailable):
            return any(self._queue.held(lane).get(dataset, 0) > 0 for lane in LANES.values())
        return False


def _composed(query: str, dataset: str | None = None) -> sql.Composed:
    table = DATASETS[dataset].table.name if dataset else ""
    return sql.SQL(query).format(
        table=sql.Identifier(table), column=sql.Identifier(VALUES.get(dataset or "", "")), role=sql.Identifier(_ROLE)
    )
