"""Exports a dataset's rows to a file that `mds load` reads back.

The file is the output of Postgres's COPY, in key order. It has all columns except `enqueued_at`, so a load is a new
write of every row. Memory use is constant. The same rows make the same bytes. A file gets its name only when it is
complete.
"""

from __future__ import annotations

import gzip
import os
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
from market_data_store.files.reader import format_of
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.found import check_types
from market_data_store.wire.fields import Field, fields_of

#: The path that means standard output, which gets NDJSON.
STDOUT = Path("-")

#: Rows per write to the file.
_ROWS_AT_ONCE = 500
#: For 20 MB of bars, level 6 takes two to four times as long and makes files only 2 to 7 % smaller.
_GZIP_LEVEL = 4

#: The last setting writes a double with the fewest digits that read back as the same double.
_SESSION = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1"
_SELECT = """
    SELECT {output} FROM {table} AS stored CROSS JOIN LATERAL (SELECT {values}) AS exported
    WHERE {criteria} ORDER BY {key}
"""
_CRITERIA = {
    "provider": "stored.provider = %(provider)s",
    "symbol": "stored.symbol = %(symbol)s",
    "interval": "stored.interval = %(interval)s",
    "start": "stored.ts >= %(start)s",
    "end": "stored.ts < %(end)s",
}
_OUTPUT = {"csv": "exported.*", "ndjson": "row_to_json(exported)"}
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

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / max(self.seconds, 1e-9)


def export(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    file: Path,
    criteria: Mapping[str, Any],
    *,
    on_progress: Callable[[Exported, int], None] = lambda *_: None,
) -> Exported:
    """Write the rows that meet the criteria to a file, in key order.

    `criteria` may have provider, symbol, interval, start (inclusive) and end (exclusive); None selects everything.
    `on_progress` is called with what is written so far and the approximate total of rows. An existing file is replaced
    when the new one is complete. Raises `InvalidMessage` if the file's name has an unknown format, and
    `MarketDataStoreError` if Postgres or the disk fails, or the table has a column whose values are not the dataset's;
    then an existing file stays as it was.
    """
    format_, gzipped = ("ndjson", False) if file == STDOUT else format_of(file)
    given = {name: value for name, value in criteria.items() if value is not None}
    select = _selection(dataset, format_, given)
    started = time.monotonic()
    rows = 0
    try:
        with connection.transaction(), connection.cursor() as cursor, _target(file, gzipped) as stream:
            cursor.execute(_SESSION)
            check_types(connection, dataset, [column.name for column in dataset.columns])
            total = _expected(cursor, select, given)
            if format_ == "csv":
                stream.write(",".join(column.name for column in dataset.columns).encode() + b"\n")
            copy_out = sql.SQL(_COPY[format_]).format(select)
            with cursor.copy(copy_out, given) as copy:
                for chunk in chunks(copy, _ROWS_AT_ONCE):  # Postgres sends one row at a time
                    stream.write(b"".join(chunk))
                    rows += len(chunk)
                    on_progress(Exported(rows, time.monotonic() - started), max(total, rows))
    except psycopg.Error as error:
        raise MarketDataStoreError(f"Postgres: {first_line(error)} (SQLSTATE {error.sqlstate or 'none'})") from error
    except OSError as error:
        raise MarketDataStoreError(f"cannot write {file}: {error.strerror or error}") from error
    return Exported(rows, time.monotonic() - started)


def _selection(dataset: Dataset, format_: str, given: Mapping[str, Any]) -> sql.Composed:
    criteria = [sql.SQL(_CRITERIA[name]) for name in given] or [sql.SQL("true")]
    return sql.SQL(_SELECT).format(
        output=sql.SQL(_OUTPUT[format_]),
        table=sql.Identifier(dataset.table.name),
        values=sql.SQL(", ").join(_value(f, format_) for f in fields_of(dataset)),
        criteria=sql.SQL(" AND ").join(criteria),
        key=sql.SQL(", ").join(sql.Identifier("stored", name) for name in dataset.key),
    )


def _value(f: Field, format_: str) -> sql.Composed:
    form = (format_ == "csv" and f.kind.export_csv) or f.kind.export
    # The cast is for a column that its owner has given another type.
    value = sql.SQL("{}::" + f.kind.copy_type).format(sql.Identifier("stored", f.name))
    return sql.SQL(form + " AS {1}").format(value, sql.Identifier(f.name))


def _expected(cursor: psycopg.Cursor[Any], select: sql.Composed, given: Mapping[str, Any]) -> int:
    """Return the planner's estimate of the number of rows; counting them takes as long as exporting them."""
    ((plans,),) = cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(select), given).fetchall()
    return int(plans[0]["Plan"]["Plan Rows"])


@contextmanager
def _target(file: Path, gzipped: bool) -> Iterator[IO[bytes]]:
    """Open standard output, or a file that gets its name when it is complete."""
    if file == STDOUT:
        with open(1, "wb", closefd=False) as raw:  # not sys.stdout, whose buffer may hold other output
            yield raw
        return
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as raw:
            if gzipped:
                # No name and no time in the header: the same rows make the same bytes.
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                    yield packed  # type: ignore[misc]  # it is a BufferedIOBase
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
