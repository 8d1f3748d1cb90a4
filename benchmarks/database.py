"""The benchmark's own database: its tables, their contents before a run, and when a run's rows are committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks.workloads import Bar, Workload
from market_data_store.errors import MarketDataStoreError
from market_data_store.postgres import schema
from market_data_store.postgres.connection import connect

#: Rows per commit of the yardstick.
COPY_ROWS = 500
COPY = """
    COPY bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, enqueued_at)
    FROM STDIN (FORMAT BINARY)
"""
_COPY_TYPES = ["text", "text", "text", "timestamptz", *["float8"] * 5, "timestamptz"]

#: Peers do not know `enqueued_at`. AMDS has its own table, with the predecessor's key.
_FOR_PEERS = """
    ALTER TABLE bars_ohlcv ALTER COLUMN enqueued_at SET DEFAULT now();
    CREATE TABLE bars (
        ts timestamptz NOT NULL, tenant_id text NOT NULL, vendor text NOT NULL, symbol text NOT NULL,
        timeframe text NOT NULL, open_price float8, high_price float8, low_price float8, close_price float8,
        volume bigint, PRIMARY KEY (ts, tenant_id, vendor, symbol, timeframe)
    );
"""
_COMMITTED = """
    SELECT count(*)
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::float8[])
         AS marker (provider, symbol, interval, ts, volume)
    JOIN bars_ohlcv USING (provider, symbol, interval, ts, volume)
"""
#: The enqueue time of the rows that are in the table before a run.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_POLL_S = 0.005


class Database:
    """A migrated database that the benchmark may change as it likes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection that commits each statement by itself."""
        return connect(self.url)

    def clear(self) -> None:
        """Empty the tables."""
        with self.connect() as connection:
            connection.execute("TRUNCATE bars_ohlcv")
            if connection.execute("SELECT to_regclass('bars')").fetchone() != (None,):
                connection.execute("TRUNCATE bars")

    def settle(self) -> None:
        """Write the previous run's dirty pages, so that the next run does not pay for them."""
        with self.connect() as connection:
            try:
                connection.execute("CHECKPOINT")
            except psycopg.errors.InsufficientPrivilege:
                pass  # on a given server

    def store(self, bars: Iterable[Bar]) -> None:
        """Insert rows that are older than any message."""
        with self.connect() as connection:
            copy_in(connection, ((*bar, LONG_AGO) for bar in bars), rows_a_commit=50_000)

    def until_committed(self, markers: Sequence[Bar], timeout_s: float = 300.0) -> None:
        """Wait until all messages with these markers are committed.

        Until the last marker is there, only that one is looked up, by key, every 5 ms; this costs Postgres a hundredth
        of a core. Then all markers are looked up at once. Raises `MarketDataStoreError` when the time runs out.
        """
        deadline = time.monotonic() + timeout_s
        with self.connect() as connection:
            for some in (markers[-1:], markers):
                keys = [[getattr(m, name) for m in some] for name in ("provider", "symbol", "interval", "ts", "volume")]
                while connection.execute(_COMMITTED, keys, prepare=True).fetchall() != [(len(some),)]:
                    if time.monotonic() > deadline:
                        raise MarketDataStoreError(f"rows were not committed within {timeout_s:.0f} s: {some[-1]}")
                    time.sleep(_POLL_S)

    def check(self, workload: Workload, table: str = "bars_ohlcv") -> None:
        """Raise `MarketDataStoreError` unless the table holds the workload's rows and no others."""
        if (found := self.count(table)) != workload.rows:
            raise MarketDataStoreError(f"{table}: {found:,} rows are stored, {workload.rows:,} were sent")

    def count(self, table: str = "bars_ohlcv") -> int:
        """Return the number of rows in the table."""
        with self.connect() as connection:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            return int(connection.execute(query).fetchall()[0][0])


def copy_in(connection: psycopg.Connection[Any], rows: Iterable[Sequence[Any]], rows_a_commit: int = COPY_ROWS) -> None:
    """Run a bare COPY in a loop: the yardstick."""
    rows = iter(rows)
    while chunk := list(islice(rows, rows_a_commit)):
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for row in chunk:
                copy.write_row(row)


@contextmanager
def created(server_url: str, name: str, migrate: Callable[[str], object] = schema.upgrade) -> Iterator[Database]:
    """Create a database with this name, migrate it (`migrate` gets its URL), and drop it at the end.

    Raises `MarketDataStoreError` if it exists already, because it may be somebody's.
    """
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    with connect(server_url) as connection:
        identifier = sql.Identifier(name)
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        except psycopg.errors.DuplicateDatabase:
            raise MarketDataStoreError(
                f"database {name}: already exists; drop it if an earlier benchmark left it behind"
            ) from None
        except psycopg.Error as error:
            raise MarketDataStoreError(f"database {name}: cannot be created: {error}") from error
        try:
            migrate(url)
            with connect(url) as own:
                own.execute(_FOR_PEERS)
            yield Database(url)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
