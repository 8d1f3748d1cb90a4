"""DuckDB with bounded memory: what finds no room in it goes to TMPDIR, and a full TMPDIR is one line."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from market_data_store.files.spilling import full, own_directory

#: Rows that DuckDB hands over at once.
BATCH_ROWS = 25_000
#: DuckDB's own memory; beyond it, what must be sorted or grouped goes to TMPDIR.
_MEMORY = "96MB"
#: DuckDB's error for a disk without room has no number; with less than this, in bytes, that is what it means.
_NO_ROOM_BYTES = 16 * 1024 * 1024
_SIZE = "SELECT coalesce(sum(size), 0) FROM duckdb_temporary_files()"


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open DuckDB with bounded memory."""
    with own_directory() as directory:
        threads = min(4, os.cpu_count() or 1)
        connection = duckdb.connect(
            ":memory:", config={"memory_limit": _MEMORY, "threads": threads, "temp_directory": str(directory)}
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()


def spilled_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    """Return how many bytes of a connection's tables are in TMPDIR."""
    ((size,),) = connection.sql(_SIZE).fetchall()
    return int(size)


def require_room(path: Path, error: duckdb.Error) -> None:
    """Raise the error for a full TMPDIR if that is what DuckDB's error means."""
    is_full = isinstance(error, duckdb.OutOfMemoryException) or (
        isinstance(error, duckdb.IOException) and shutil.disk_usage(tempfile.gettempdir()).free < _NO_ROOM_BYTES
    )
    if is_full:
        raise full(f"{path}: what must be sorted of it") from error


def batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """Yield the result of a query, in the order of the file."""
    try:
        yield from connection.sql(query).to_arrow_reader(BATCH_ROWS)
    except OSError as error:  # so Arrow gives an error of DuckDB's
        raise duckdb.InvalidInputException(str(error).splitlines()[0]) from error
