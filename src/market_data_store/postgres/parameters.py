"""A batch's rows as parameters of a statement: one array for each column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import Int4BinaryDumper, Int4BinaryLoader, Int8BinaryDumper, Int8BinaryLoader
from sqlalchemy import Date, DateTime

from market_data_store.datasets import Dataset
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.statements import statements_of


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
    columns = zip(*(batch.rows[row] for row in rows), strict=True)
    named = zip(statements_of(batch.dataset).parameters, _wraps(batch.dataset), columns, strict=True)
    return {name: [value if value is None else wrap(value) for value in column] for name, wrap, column in named} | {
        "n": list(rows)
    }


def _wraps(dataset: Dataset) -> list[Callable[[Any], Any]]:
    wraps: list[Callable[[Any], Any]] = []
    for column in dataset.table.columns:
        if isinstance(column.type, DateTime):
            wraps.append(_Timestamp)
        elif isinstance(column.type, Date):
            wraps.append(_Date)
        else:
            wraps.append(lambda value: value)
    return wraps
