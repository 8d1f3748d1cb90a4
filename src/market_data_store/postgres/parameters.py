"""A batch's rows as parameters of a statement: one array for each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int4BinaryDumper, Int4BinaryLoader, Int8BinaryDumper, Int8BinaryLoader

from market_data_store.postgres.batch import Batch
from market_data_store.postgres.statements import statements_of
from market_data_store.wire.moments import UNIX_TO_EPOCH_DAYS, UNIX_TO_EPOCH_US


class _Timestamp(int):
    """Microseconds since 2000-01-01 UTC, as a batch holds it and Postgres stores it."""


class _Date(int):
    """Days since 2000-01-01, as a batch holds it and Postgres stores it."""


class _TimestampDumper(Int8BinaryDumper):
    oid = psycopg.adapters.types["timestamptz"].oid


class _DateDumper(Int4BinaryDumper):
    oid = psycopg.adapters.types["date"].oid


def adapt(adapters: AdaptersMap) -> None:
    """Make a connection send and read binary times and dates as a batch holds them: any year, and no time zone."""
    adapters.register_dumper(_Timestamp, _TimestampDumper)
    adapters.register_dumper(_Date, _DateDumper)
    adapters.register_loader("timestamptz", Int8BinaryLoader)
    adapters.register_loader("date", Int4BinaryLoader)


def parameters_of(batch: Batch, rows: Sequence[int]) -> dict[str, Any]:
    """Return these rows of the batch and their numbers as the parameters of `Statements.listed`."""
    columns = batch.columns(rows)
    names = statements_of(batch.dataset).parameters
    named = {name: _values(columns.column(place), adapted=True) for place, name in enumerate(names)}
    return named | {"n": list(rows)}


def keys_of(batch: Batch, rows: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return the keys of these rows as an adapted connection reads them."""
    columns = batch.columns(rows)
    return list(zip(*(_values(columns.column(name)) for name in batch.dataset.key), strict=True))


def _values(column: pa.Array, *, adapted: bool = False) -> list[Any]:
    """Return a column's values: times and dates as numbers, which are `adapted` if they are to be sent."""
    wrap: type[int]
    if pa.types.is_timestamp(column.type):
        ticks, since, wrap = column.cast(pa.int64()), UNIX_TO_EPOCH_US, _Timestamp
    elif pa.types.is_date(column.type):
        ticks, since, wrap = column.cast(pa.int32()), UNIX_TO_EPOCH_DAYS, _Date
    elif pa.types.is_list(column.type):
        return [None if items is None else _array_text(items) for items in column.to_pylist()]
    else:
        return list(column.to_pylist())
    numbers: list[Any] = pc.subtract(ticks, pa.scalar(since, ticks.type)).to_pylist()
    return [value if value is None else wrap(value) for value in numbers] if adapted else numbers


def _array_text(items: list[Any]) -> str:
    """Return an array of texts or numbers in Postgres's form."""
    return "{" + ",".join(map(_item_text, items)) + "}"


def _item_text(item: Any) -> str:
    if isinstance(item, str):
        escaped = item.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return "NULL" if item is None else repr(item)
