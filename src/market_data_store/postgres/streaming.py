"""Streams the rows of a query as Arrow record batches: Postgres's binary COPY, decoded by the ADBC driver.

The driver makes columns of what Postgres sends at the speed of a copy. It opens a connection of its own, because it
cannot take over one of psycopg.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pyarrow as pa
from adbc_driver_postgresql import dbapi
from psycopg import sql
from psycopg.conninfo import make_conninfo

from market_data_store.connections.names import process_name
from market_data_store.errors import DatabaseUnavailable

#: Seconds between looks for a signal.
_LOOK_S = 0.25


@contextmanager
def streamed(connection: psycopg.Connection[Any], query: sql.Composed) -> Iterator[Iterator[pa.RecordBatch]]:
    """Run the query on a connection beside this one, with its server, database and user; yields its rows in batches.

    A batch has about 16 MiB; the next one is read meanwhile. What this connection has not committed is not seen. Raises
    `DatabaseUnavailable`, also while batches are read.
    """
    with _driver_errors():
        own = dbapi.connect(_conninfo(connection))
    # In a transaction, which a pooler leaves to one session.
    with own, own.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        try:
            _answer(thread.submit(cursor.execute, query.as_string(connection)))
            yield _batches(cursor.fetch_record_batch(), thread)
        except BaseException:  # also a signal, and a reader that wants no more
            with suppress(dbapi.Error):  # of a lost connection
                cursor.adbc_cancel()
            raise


def _batches(reader: pa.RecordBatchReader, thread: ThreadPoolExecutor) -> Iterator[pa.RecordBatch]:
    coming = thread.submit(next, reader, None)
    while (batch := _answer(coming)) is not None:
        coming = thread.submit(next, reader, None)
        yield batch


def _answer(future: Future[Any]) -> Any:
    """Wait for the driver, which waits for Postgres in a thread; a signal is noticed meanwhile."""
    while not wait([future], timeout=_LOOK_S).done:
        pass
    with _driver_errors():
        return future.result()


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except (dbapi.Error, pa.ArrowException, OSError) as error:  # what fails between batches is an OSError of Arrow's
        raise DatabaseUnavailable(f"Postgres: {_said(error)}") from error


def _conninfo(connection: psycopg.Connection[Any]) -> str:
    info = connection.info
    given = {
        "fallback_application_name": process_name(),
        **info.get_parameters(),
        **({"password": info.password} if info.password else {}),
        "client_encoding": "utf8",
    }
    return make_conninfo(**given)


def _said(error: Exception) -> str:
    """Return the server's message, without what the driver says around it."""
    text = str(error).strip()
    first = text.rpartition("ERROR:")[2].strip().partition("\n")[0]
    sqlstate = getattr(error, "sqlstate", None)
    return f"{first} (SQLSTATE {sqlstate})" if sqlstate else first
