"""Memory of each process of a deployment while 2 million rows go through it.

Starts a worker, the monitor and the web process as in the Procfile, and a producer that sends as fast as it can. Once a
second it reads the web process's metrics and status, as Prometheus and a browser would. Memory is resident memory,
shared pages included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx

from benchmarks.database import Database
from benchmarks.processes import Process, children, environment, resident_mb, running
from benchmarks.results import Memory
from benchmarks.servers import REDIS, Servers
from market_data_store.errors import MarketDataStoreError
from market_data_store.local import free_port
from market_data_store.local.host import accepts
from market_data_store.local.processes import web_command, worker_command

#: The early figure is taken after this share of the rows.
_EARLY = 0.25
#: A figure is the median of the samples within this share of the rows.
_WINDOW = 0.05
_INTERVAL_S = 0.5
_STORED = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'bars_ohlcv'"

#: (rows stored, MB by process).
Sample = tuple[int, dict[str, float]]


def memory(servers: Servers, directory: Path, rows: int, show: Callable[[int], None]) -> list[Memory]:
    """Send the rows through the store; call `show` with the number of rows stored so far."""
    database = servers.database
    database.clear()
    database.settle()
    port = free_port()
    env = environment(
        BROKER_URL=servers.brokers[REDIS],
        DATABASE_URL=database.url,
        MDS_WORKER_METRICS_PORT=str(free_port()),
        MDS_HOST="127.0.0.1",
        PORT=str(port),
    )
    commands = {
        "worker": worker_command(concurrency=2),
        "monitor": ["market_data_store", "monitor"],
        "web": web_command(),
    }
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(running([sys.executable, "-m", *command], env, directory / f"memory-{name}.log"))
            for name, command in commands.items()
        }
        started["worker"].until_logged("ready.")
        _until_open(port)
        feed = [sys.executable, "-m", "benchmarks.feed", str(rows), "0"]
        started["producer"] = stack.enter_context(running(feed, env, directory / "memory-producer.log"))
        return summarized(list(_samples(database, started, rows, f"http://127.0.0.1:{port}", show)), rows)


def summarized(samples: list[Sample], rows: int) -> list[Memory]:
    """Return the early and the late figure of each process."""
    early, late, window = round(rows * _EARLY), rows, rows * _WINDOW

    def at(process: str, moment: int) -> float:
        found = [mb[process] for stored, mb in samples if process in mb and abs(stored - moment) <= window]
        nearest = min((abs(stored - moment), mb[process]) for stored, mb in samples if process in mb)
        return median(found) if found else nearest[1]

    names = dict.fromkeys(name for _, mb in samples for name in mb)
    return [
        Memory(name, early, at(name, early), late, at(name, late), max(mb.get(name, 0.0) for _, mb in samples))
        for name in names
    ]


def _samples(
    database: Database, started: dict[str, Process], rows: int, web_url: str, show: Callable[[int], None]
) -> list[Sample]:
    samples: list[Sample] = []
    first, stored, changed_at = None, 0, time.monotonic()
    with database.connect() as connection, httpx.Client(base_url=web_url, timeout=5) as web:
        while stored < rows:
            count = int(connection.execute(_STORED).fetchall()[0][0])
            first = count if first is None else first  # TRUNCATE does not reset the counter
            if count - first > stored:
                stored, changed_at = count - first, time.monotonic()
            if time.monotonic() - changed_at > 60:
                raise MarketDataStoreError(
                    f"memory: {stored:,} of {rows:,} rows are stored, and none was added in 60 s"
                )
            samples.append((stored, _resident(started)))
            show(stored)
            if len(samples) % round(1 / _INTERVAL_S) == 0:
                web.get("/metrics")
                web.get("/status.json")
            time.sleep(_INTERVAL_S)
    return samples


def _resident(started: dict[str, Process]) -> dict[str, float]:
    found = {}
    for name, process in started.items():
        pids = [process.pid, *sorted(children(process.pid))] if process.is_running else []
        for number, pid in enumerate(pids):
            mb = resident_mb(pid)
            if mb:
                found[f"{name}, child {number}" if number else name] = mb
    return found


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 60
    while not accepts(port):
        if time.monotonic() > deadline:
            raise MarketDataStoreError("memory: the web process did not listen within 60 s")
        time.sleep(0.05)
