"""Latency from `StoreClient.write` to the commit, with default settings, at 10, 50 and 80 % load.

A load is a share of the rate that this machine sustains end to end, with producer, worker, broker and Postgres working
at once. That rate is measured first. Postgres says when a row was committed (`pg_xact_commit_timestamp`), by the same
clock that the producer reads. Postgres takes that time just before it flushes the commit to disk, so the latency lacks
the last millisecond or so (one fsync).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.drain import OURS
from benchmarks.database import Database
from benchmarks.processes import environment, running
from benchmarks.results import Latency
from benchmarks.servers import Servers
from benchmarks.stations import Stations
from market_data_store.errors import MarketDataStoreError

LOADS = (0.1, 0.5, 0.8)

#: Without the first second, in which the producer starts.
PERCENTILES = """
    WITH waits AS (
        SELECT trade_count, extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000 - trade_count / 1000.0 AS ms
        FROM bars_ohlcv
    )
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.99) WITHIN GROUP (ORDER BY ms), count(*)
    FROM waits WHERE trade_count >= (SELECT min(trade_count) + 1000000 FROM waits)
"""
_SUSTAINED = """
    SELECT count(*) / (extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) - min(trade_count) / 1e6)
    FROM bars_ohlcv
"""


def unavailable(database: Database) -> str | None:
    """Return why latency cannot be measured here, or None if it can."""
    with database.connect() as connection:
        if connection.execute("SHOW track_commit_timestamp").fetchone() == ("on",):
            return None
    return "Postgres does not record commit times; set track_commit_timestamp = on and restart it"


def latencies(
    servers: Servers, broker: str, stations: Stations, directory: Path, rows: int, seconds: float
) -> Iterator[Latency]:
    """Yield the latency at each load: `rows` to find the sustained rate, then `seconds` per load."""
    database, url = servers.database, servers.brokers[broker]
    station = stations.get(OURS, url, database)
    station.resume()
    try:
        _feed(database, url, directory, rows, 0)
        sustained = _query(database, _SUSTAINED)[0]
        for load in LOADS:
            rate = round(load * sustained)
            _feed(database, url, directory, round(rate * (seconds + 1)), rate)
            p50, p99, counted = _query(database, PERCENTILES)
            yield Latency(broker, load, sustained, p50, p99, round(counted))
    finally:
        station.pause()


def _feed(database: Database, broker_url: str, directory: Path, rows: int, rate: int) -> None:
    database.clear()
    database.settle()
    command = [sys.executable, "-m", "benchmarks.feed", str(rows), str(rate)]
    deadline = time.monotonic() + 600
    with running(command, environment(BROKER_URL=broker_url), directory / "feed.log") as feed:
        feed.until_logged("done", timeout_s=600)
    while database.count() < rows:
        if time.monotonic() > deadline:
            raise MarketDataStoreError(f"latency: {database.count():,} of {rows:,} rows were stored in 600 s")
        time.sleep(0.1)


def _query(database: Database, query: str) -> tuple[float, ...]:
    with database.connect() as connection:
        return tuple(float(value) for value in connection.execute(query).fetchall()[0])
