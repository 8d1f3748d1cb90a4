"""The benchmark's own database: its tables, what is in them before a run, and when a run's rows are committed."""

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

#: Rows a commit of the yardstick.
COPY_ROWS = 500
_COPY = """
    COPY bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, enqueued_at)
    FROM STDIN (FORMAT BINARY)
"""
_COPY_TYPES = ["text", "text", "text", "timestamptz", *["float8"] * 5, "timestamptz"]

#: Peers know nothing of `enqueued_at`, and AMDS has a table of its own, whose key is the predecessor's.
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
#: When the rows were enqueued that are in the table before a run.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_POLL_S = 0.005


class Database:
    """A migrated database in which the benchmark may do as it likes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> psycopg.Connection[Any]:
        """A connection whose statements are committed one by one."""
        return connect(self.url)

    def clear(self) -> None:
        """Empty the tables."""
        with self.connect() as connection:
            connection.execute("TRUNCATE bars_ohlcv")
            if connection.execute("SELECT to_regclass('bars')").fetchone() != (None,):
                connection.execute("TRUNCATE bars")

    def settle(self) -> None:
        """Write what the run before has left, so that the next one does not pay for it."""
        with self.connect() as connection:
            try:
                connection.execute("CHECKPOINT")
            except psycopg.errors.InsufficientPrivilege:
                pass  # on a server that was given

    def store(self, bars: Iterable[Bar]) -> None:
        """Put rows in, older than any message."""
        with self.connect() as connection:
            copy_in(connection, ((*bar, LONG_AGO) for bar in bars), rows_a_commit=50_000)

    def until_committed(self, markers: Sequence[Bar], timeout_s: float = 300.0) -> None:
        """Wait for the rows of a workload's messages, of which these are the markers; the last one is asked for first.

        That one is a look-up by key each 5 ms, which costs Postgres a hundredth of a core; when it is there, all
        of them are looked for at once. Raises `MarketDataStoreError` when the time is over.
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
        """Rows of the table."""
        with self.connect() as connection:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            return int(connection.execute(query).fetchall()[0][0])


def copy_in(connection: psycopg.Connection[Any], rows: Iterable[Sequence[Any]], rows_a_commit: int = COPY_ROWS) -> None:
    """The yardstick: a bare COPY in a loop."""
    rows = iter(rows)
    while chunk := list(islice(rows, rows_a_commit)):
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for row in chunk:
                copy.write_row(row)


@contextmanager
def created(server_url: str, name: str, migrate: Callable[[str], object] = schema.upgrade) -> Iterator[Database]:
    """A database of this name on the server, migrated (`migrate` gets its URL); dropped at the end.

    Raises `MarketDataStoreError` when there is one already: it may be somebody's.
    """
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    with connect(server_url) as connection:
        identifier = sql.Identifier(name)
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        except psycopg.errors.DuplicateDatabase:
            raise MarketDataStoreError(
                f"database {name}: exists already; drop it if an earlier benchmark left it"
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
