"""Runs the parts of a benchmark one after the other on the same servers. A part that fails is skipped with a reason."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks import growth, latency
from benchmarks.contenders.bare_copy import BareCopy
from benchmarks.memory import memory
from benchmarks.plan import GROUPS, Plan
from benchmarks.results import Results, Run
from benchmarks.rounds import take_turns
from benchmarks.servers import Servers
from benchmarks.stations import Stations
from market_data_store.cli.terminal import ShowProgress
from market_data_store.errors import MarketDataStoreError

#: The parts that can be selected. The contenders of those in `GROUPS` take turns.
PARTS = (*GROUPS, "latency", "memory", "growth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, and how much."""

    parts: frozenset[str]
    #: Rows in a fast contender's turn.
    rows: int
    repeat: int
    #: Rows per message of the drains.
    per_message: tuple[int, ...]
    #: Seconds per load when latency is measured.
    latency_s: float
    memory_rows: int
    #: Numbers of rows in the tables of `growth`.
    sizes: tuple[int, ...]


class Benchmark:
    """One run of the command; `results` grows while it runs."""

    def __init__(self, servers: Servers, directory: Path, options: Options, show: ShowProgress) -> None:
        self.results = Results(about=_about(servers, options), skipped=dict(servers.skipped))
        self._servers, self._directory, self._options, self._show = servers, directory, options, show
        self._stations = Stations(directory)

    def run(self) -> None:
        """Measure all selected parts."""
        parts = {"latency": self._latency, "memory": self._memory, "growth": self._growth}
        try:
            if self._options.parts.intersection(GROUPS):
                self._turns()
            for name, measure in parts.items():
                if name in self._options.parts:
                    with self._left_out(name):
                        measure()
        finally:
            self._stations.close()

    def _turns(self) -> None:
        plan = Plan(self._servers, self._stations, self._options.rows, self._options.per_message)
        self._show(0, 1, "making the peers' environments")
        contenders = plan.contenders(self._options.parts)
        yardstick = BareCopy(self._servers.database, plan.workload())
        self.results.skipped |= plan.skipped
        turns = take_turns(yardstick, contenders, self._options.repeat, self._show, self.results.skipped)
        self.results.runs.extend(turns)

    def _latency(self) -> None:
        reason = latency.unavailable(self._servers.database)
        if reason:
            raise MarketDataStoreError(reason)
        options = self._options
        for broker in self._servers.brokers:
            self._show(0, len(latency.LOADS), f"latency, {broker}")
            for found in latency.latencies(
                self._servers, broker, self._stations, self._directory, options.rows, options.latency_s
            ):
                self.results.latencies.append(found)
                self._show(len(self.results.latencies) % len(latency.LOADS), len(latency.LOADS), f"latency, {broker}")

    def _memory(self) -> None:
        rows = self._options.memory_rows
        show = partial(self._rows, "memory", rows)
        self.results.memory.extend(memory(self._servers, self._directory, rows, show))

    def _growth(self) -> None:
        sizes = self._options.sizes
        show = partial(self._rows, "growth", max(sizes))
        with growth.databases(self._servers, sizes, show) as databases:
            for turn in range(self._options.repeat):
                for rows, database in databases.items():
                    # Each contender runs only once: afterwards its keys are in the table.
                    for contender in growth.contenders(
                        self._servers, self._stations, database, self._options.rows // 2, turn
                    ):
                        self._show(turn, self._options.repeat, f"growth, {rows:,} rows: {contender.label}")
                        contender.prepare()
                        run = Run(contender.label, turn, contender.run())
                        self.results.growth.setdefault(rows, []).append(run)

    @contextmanager
    def _left_out(self, name: str) -> Iterator[None]:
        try:
            yield
        except MarketDataStoreError as error:
            self.results.skipped[name] = str(error)

    def _rows(self, name: str, of: int, rows: int) -> None:
        self._show(rows, of, name, f"{rows:,} rows")


def _about(servers: Servers, options: Options) -> dict[str, str]:
    with servers.database.connect() as connection:
        postgres = connection.info.parameter_status("server_version") or "unknown"
    packages = ("celery", "kombu", "psycopg", "redis")
    return {
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "Postgres": f"{postgres}, {'embedded' if 'postgres' in servers.pids else 'given'}",
        "Python": f"{platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}",
        "rows": f"{options.rows:,} for a quick contender, {options.repeat} rounds",
    }
