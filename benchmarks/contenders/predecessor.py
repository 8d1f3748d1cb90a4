"""market-data-store 0.6, with each of its three ways to write bars."""

from __future__ import annotations

from benchmarks import processes
from benchmarks.contender import Label, Timing, fill
from benchmarks.database import Database
from benchmarks.venvs import python_of
from benchmarks.workloads import Workload

#: By the program's argument: the name, and the table that it writes to.
WAYS = {
    "coordinator": ("WriteCoordinator 0.6", "bars"),
    "amds": ("AMDS 0.6", "bars"),
    "store_client": ("StoreClient 0.6", "bars_ohlcv"),
}


class Predecessor:
    """One process without a broker: only the way from objects in memory to the commit."""

    def __init__(self, way: str, database: Database, workload: Workload) -> None:
        name, self._table = WAYS[way]
        self.label = Label(name, kind=workload.kind)
        self._database, self._workload = database, workload
        numbers = (workload.rows, workload.per_message, workload.first, workload.live_symbols)
        self._command = [python_of("predecessor"), "-m", "benchmarks.peers.predecessor", way, workload.kind]
        self._command += map(str, numbers)
        # It logs a line for each batch.
        self._env = processes.environment(DATABASE_URL=database.url, LOGURU_LEVEL="WARNING")

    def prepare(self) -> None:
        """Empty its table."""
        fill(self._database, self._workload)

    def run(self) -> Timing:
        """Write the rows."""
        seconds = float(processes.answer(self._command, self._env)["seconds"])
        self._database.check(self._workload, self._table)
        return Timing(self._workload.rows, seconds)
