"""The yardstick: `COPY bars_ohlcv ... FROM STDIN (FORMAT BINARY)` in a loop, 500 rows per commit, one connection."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.contender import COPY, Label, Timing, fill
from benchmarks.database import LONG_AGO, Database, copy_in
from benchmarks.workloads import Workload


class BareCopy:
    """Copies prepared tuples into the table, which keeps its primary key."""

    label: Label = COPY

    def __init__(self, database: Database, workload: Workload) -> None:
        self._database = database
        self._workload = workload
        self._rows: list[tuple[Any, ...]] = []

    def prepare(self) -> None:
        """Prepare the tuples, and empty the table."""
        self._rows = [(*bar, LONG_AGO) for bar in self._workload.sent()]
        fill(self._database, self._workload)

    def run(self) -> Timing:
        """Copy the tuples."""
        with self._database.connect() as connection:
            started = time.perf_counter()
            copy_in(connection, self._rows)
            return Timing(len(self._rows), time.perf_counter() - started)
