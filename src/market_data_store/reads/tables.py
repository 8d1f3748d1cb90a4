"""Windows of a dataset as a `pyarrow.Table`: every value exact, at the speed of a copy.

Columns have one Arrow type each, whatever their owner has made of them in Postgres: `timestamp[us, tz=UTC]`, `double`,
`int64`, `int32`, `bool`, `date32`, `string` (JSON too), `list<string>`, and for users' own datasets `decimal128` and
`list<double>`. What is null in Postgres is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa

from market_data_store.config import settings
from market_data_store.datasets import DATASETS, ENQUEUED_AT, Dataset, dataset_named
from market_data_store.errors import InvalidMessage, InvalidRead
from market_data_store.postgres.added_columns import as_stored
from market_data_store.postgres.connection import connect
from market_data_store.postgres.selection import NAMES, check_columns, listed, names_in, selection
from market_data_store.postgres.streaming import streamed
from market_data_store.wire.arrow_types import arrow_type
from market_data_store.wire.bounds import Bound, moment_of
from market_data_store.wire.fields import fields_of

#: Where to read: a URL, or an open connection of psycopg, whose server, database and user are taken. By default the
#: setting DATABASE_URL.
Database = str | psycopg.Connection[Any]

#: The name of the type of times, as the kinds of columns have it: without a zone.
_TIME = "timestamp[us]"
_TYPES = {_TIME: pa.timestamp("us", tz="UTC")}


def table(
    dataset: str,
    *,
    symbols: str | Iterable[str] | None = None,
    start: Bound | None = None,
    end: Bound | None = None,
    columns: Sequence[str] | None = None,
    provider: str | Iterable[str] | None = None,
    interval: str | Iterable[str] | None = None,
    database: Database | None = None,
) -> pa.Table:
    """Return a dataset's rows from `start` (inclusive) to `end` (exclusive), in the order of its key.

    A bound is a text (ISO 8601), a date or a datetime; without a zone it is UTC. `symbols`, `provider` and `interval`
    take one name or several, and their case counts; None is all. `columns` chooses and orders the columns; the default
    is all of the dataset's, and `enqueued_at` can be had by its name. The database is that of DATABASE_URL, unless
    `database` is a URL or an open connection of psycopg; what that has not committed is not seen.

    Raises `InvalidRead` for a name or a bound that does not exist, and `DatabaseUnavailable`.
    """
    try:
        found = dataset_named(dataset)
    except InvalidMessage as error:
        raise InvalidRead(str(error)) from None
    criteria = {"symbol": symbols, "provider": provider, "interval": interval}
    return _table(found, {**criteria, **_window(start, end)}, columns, found.key, database)


def bars_table(
    symbol: str,
    interval: str,
    start: Bound | None = None,
    end: Bound | None = None,
    *,
    provider: str | None = None,
    columns: Sequence[str] | None = None,
    database: Database | None = None,
) -> pa.Table:
    """Return a symbol's bars from `start` (inclusive) to `end` (exclusive), ordered by time and provider.

    The same rows as `bars`, with the bounds, columns and database of `table`. Without `provider`, all providers are
    read.
    """
    criteria = {"symbol": symbol, "provider": provider, "interval": interval}
    return _table(DATASETS["bars"], {**criteria, **_window(start, end)}, columns, ("ts", "provider"), database)


def _window(start: Bound | None, end: Bound | None) -> dict[str, Any]:
    return {"start": moment_of(start, "start"), "end": moment_of(end, "end")}


def _table(
    dataset: Dataset,
    criteria: Mapping[str, Any],
    columns: Sequence[str] | None,
    order: Sequence[str],
    database: Database | None,
) -> pa.Table:
    with _connected(database) as connection:
        dataset = as_stored(connection, dataset)
        with batches(connection, dataset, criteria, columns, order) as found:
            return pa.Table.from_batches(found.rows, found.schema)


class Batches(NamedTuple):
    """Rows as they come, and the schema of all of them."""

    schema: pa.Schema
    rows: Iterator[pa.RecordBatch]


@contextmanager
def batches(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    criteria: Mapping[str, Any],
    columns: Sequence[str] | None = None,
    order: Sequence[str] = (),
) -> Iterator[Batches]:
    """Yield the rows in batches of the types above; the criteria are those of `postgres.selection`."""
    names = names_in(dataset) if columns is None else listed(columns)
    if not names:
        raise InvalidRead("columns: the list is empty")
    altered = check_columns(connection, dataset, names)
    schema = _schema_of(dataset, names)
    # What every row has need not be sent: that takes a fifth off the time for one series of bars.
    known = {name: value for name, value in _single(criteria).items() if name in names and name not in altered}
    sent = [name for name in names if name not in known] or names[:1]
    with streamed(connection, selection(dataset, "arrow", criteria, columns=sent, order=order)) as found:
        yield Batches(schema, (_complete(batch, known, schema) for batch in found))


def _single(criteria: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns for which one name is given."""
    given = {name: listed(criteria.get(name)) for name in NAMES}
    return {name: names[0] for name, names in given.items() if len(names) == 1}


def _complete(batch: pa.RecordBatch, known: Mapping[str, str], schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with the known columns, and without the notes that the driver makes in its schema."""
    columns = [
        pa.repeat(known[field.name], len(batch)) if field.name in known else _typed(batch.column(field.name), field)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _typed(column: pa.Array, field: pa.Field) -> pa.Array:
    """Return a column; the driver has exact numbers as texts. Raises `InvalidRead` for one that is too wide."""
    if not pa.types.is_decimal(field.type):
        return column
    try:
        return column.cast(pa.string()).cast(field.type)
    except pa.ArrowInvalid as error:
        reason = f"{field.name}: a stored number does not fit {field.type}; declare it as wide as the table has it"
        raise InvalidRead(reason) from error


def _schema_of(dataset: Dataset, names: Sequence[str]) -> pa.Schema:
    types = {f.name: f.kind.arrow_type for f in fields_of(dataset)} | {ENQUEUED_AT: _TIME}
    return pa.schema([(name, _TYPES.get(types[name]) or arrow_type(types[name])) for name in names])


@contextmanager
def _connected(database: Database | None) -> Iterator[psycopg.Connection[Any]]:
    if isinstance(database, psycopg.Connection):
        yield database
        return
    with connect(settings().require_database_url() if database is None else database) as connection:
        yield connection
