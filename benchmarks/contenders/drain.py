"""Drains: from the queue into the table, by our workers and by the peers that are Celery applications."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.contender import Label, Timing, fill
from benchmarks.database import Database
from benchmarks.stations import Application, Station, Stations
from benchmarks.workloads import Workload
from market_data_store.errors import MarketDataStoreError
from market_data_store.local.processes import worker_command

OURS = Application(
    name="our worker",
    python=sys.executable,
    worker=tuple(worker_command(concurrency=2)),
    produce=("benchmarks.produce",),
    queue="store.write",
)
#: The same worker, with messages from `StoreClient.write_table`.
OURS_OF_TABLES = replace(OURS, name="our worker, write_table", produce=("benchmarks.produce", "--table"))


class Drain:
    """Enqueues while nobody consumes, then lets a worker with two processes drain; `stations` explains the clock."""

    def __init__(
        self,
        stations: Stations,
        application: Application,
        broker: tuple[str, str],
        database: Database,
        workload: Workload,
        pids: Mapping[str, int],
    ) -> None:
        """`broker` is a name and a URL; `pids` are process ids of servers whose CPU time is recorded as well."""
        name, self._url = broker
        self.label = Label(application.name, name, workload.kind, workload.per_message)
        self._stations, self._application = stations, application
        self._database, self._workload = database, workload
        self._pids = {server: pid for server, pid in pids.items() if server in ("postgres", name)}
        self._enqueue_s = 0.0

    def prepare(self) -> None:
        """Fill the table and the queue."""
        with self._station() as station:
            self._enqueue_s = self._enqueue(station)
            fill(self._database, self._workload)

    def run(self) -> Timing:
        """Drain the queue."""
        with self._station() as station:
            timing = station.drain(self._workload, self._pids)
        return Timing(timing.rows, timing.seconds, {"enqueued_a_second": timing.rows / self._enqueue_s, **timing.facts})

    def _enqueue(self, station: Station) -> float:
        """Put the messages into the queue; return the seconds that this took."""
        return station.enqueue(self._workload)

    @contextmanager
    def _station(self) -> Iterator[Station]:
        try:
            yield self._stations.get(self._application, self._url, self._database)
        except MarketDataStoreError:
            # Later contenders must not find its messages.
            self._stations.give_up(self._application, self._url, self._database)
            raise
