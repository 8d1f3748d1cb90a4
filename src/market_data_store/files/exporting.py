"""Exports a dataset's rows to a file that `mds load` reads back.

CSV and NDJSON are the output of Postgres's COPY; Parquet has the same values in Postgres's own types. Rows are in key
order. There are all columns except `enqueued_at`, so a load is a new write of every row. Memory use is constant. The
same rows make the same bytes. A file gets its name only when it is complete.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.errors import MarketDataStoreError
from market_data_store.files.chunks import chunks
from market_data_store.files.parquet_writer import write_parquet
from market_data_store.files.replacing import replacing
from market_data_store.files.written_formats import STDOUT, WrittenFormat, written_format
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.selection import check_columns, estimated_rows, names_in, selection
from market_data_store.reads.tables import batches

#: Rows per write to the file.
_ROWS_AT_ONCE = 500
#: For 20 MB of bars, level 6 takes two to four times as long and makes files only 2 to 7 % smaller.
_GZIP_LEVEL = 4

#: The last setting writes a double with the fewest digits that read back as the same double.
_SESSION = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1"
_COPY = {
    "csv": "COPY ({}) TO STDOUT (FORMAT csv)",
    # JSON contains no control characters, so this never quotes; COPY's text format would double backslashes.
    "ndjson": r"COPY ({}) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written, and how long it took."""

    rows: int
    seconds: float
    #: Whether whoever read standard output went away, so that the rest was not written.
    unread: bool = False

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / max(self.seconds, 1e-9)


#: Called with the rows that were written since the last call.
Wrote = Callable[[int], None]


def export(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    file: Path,
    criteria: Mapping[str, Any],
    *,
    format_: str | None = None,
    on_progress: Callable[[Exported, int], None] = lambda *_: None,
) -> Exported:
    """Write the rows that meet the criteria to a file, in key order.

    `criteria` may have provider, symbol and interval (one name or several), start (inclusive) and end (exclusive); None
    selects everything. `format_` is csv, ndjson or parquet; the default is what the file's name says. `on_progress` is
    called with what is written so far and the approximate total of rows. An existing file is replaced when the new one
    is complete. Raises `InvalidMessage` if the file's name has an unknown format, and `MarketDataStoreError` if
    Postgres or the disk fails, or the table has a column whose values are not the dataset's; then an existing file
    stays as it was.
    """
    chosen = written_format(file, format_)
    started = time.monotonic()
    total = rows = 0

    def wrote(number: int) -> None:
        nonlocal rows
        rows += number
        on_progress(Exported(rows, time.monotonic() - started), max(total, rows))

    try:
        with connection.transaction(), _target(file, chosen) as stream:
            connection.execute(_SESSION)
            check_columns(connection, dataset, ())
            total = estimated_rows(connection, selection(dataset, "arrow", criteria))
            if chosen.name == "parquet":
                with batches(connection, dataset, criteria) as found:
                    write_parquet(found.schema, found.rows, stream, wrote)
            else:
                _write_text(connection, dataset, chosen.name, criteria, stream, wrote)
    except BrokenPipeError:  # `| head` has seen enough
        return Exported(rows, time.monotonic() - started, unread=True)
    except psycopg.Error as error:
        raise MarketDataStoreError(f"Postgres: {first_line(error)} (SQLSTATE {error.sqlstate or 'none'})") from error
    except OSError as error:
        raise MarketDataStoreError(f"cannot write {file}: {error.strerror or error}") from error
    return Exported(rows, time.monotonic() - started)


def _write_text(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    form: Any,
    criteria: Mapping[str, Any],
    stream: IO[bytes],
    wrote: Wrote,
) -> None:
    if form == "csv":
        stream.write(",".join(names_in(dataset)).encode() + b"\n")
    query = sql.SQL(_COPY[form]).format(selection(dataset, form, criteria))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for chunk in chunks(copy, _ROWS_AT_ONCE):  # Postgres sends one row at a time
            stream.write(b"".join(chunk))
            wrote(len(chunk))


@contextmanager
def _target(file: Path, format_: WrittenFormat) -> Iterator[IO[bytes]]:
    """Open standard output, or a file that gets its name when it is complete."""
    if file == STDOUT:
        with open(1, "wb", closefd=False) as raw:  # not sys.stdout, whose buffer may hold other output
            yield raw
        return
    with replacing(file) as stream:
        if not format_.gzipped:
            yield stream
            return
        # No name and no time in the header: the same rows make the same bytes.
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, stream, mtime=0) as packed:
            yield packed  # type: ignore[misc]  # it is a BufferedIOBase
