"""From the queue into the table: our workers, and the peers that are Celery applications."""

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
#: The same, with messages that `StoreClient.write_table` made.
OURS_OF_TABLES = replace(OURS, name="our worker, write_table", produce=("benchmarks.produce", "--table"))


class Drain:
    """Enqueue with nobody consuming, then let a worker of two processes drain; see `stations` for the clock."""

    def __init__(
        self,
        stations: Stations,
        application: Application,
        broker: tuple[str, str],
        database: Database,
        workload: Workload,
        pids: Mapping[str, int],
    ) -> None:
        """`broker` is its name and URL; `pids` are the servers whose CPU time is noted as well."""
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
        """Drain."""
        with self._station() as station:
            timing = station.drain(self._workload, self._pids)
        return Timing(timing.rows, timing.seconds, {"enqueued_a_second": timing.rows / self._enqueue_s, **timing.facts})

    def _enqueue(self, station: Station) -> float:
        """Seconds that it took."""
        return station.enqueue(self._workload)

    @contextmanager
    def _station(self) -> Iterator[Station]:
        try:
            yield self._stations.get(self._application, self._url, self._database)
        except MarketDataStoreError:
            # Nobody else is to find its messages.
            self._stations.give_up(self._application, self._url, self._database)
            raise
