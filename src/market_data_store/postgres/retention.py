"""Retention: deletes rows that are older than their dataset's limit, on request only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import ConfigurationError
from market_data_store.postgres.found import check_types

_COUNT = sql.SQL("SELECT count(*) FROM {} WHERE ts < %s")
_DELETE = sql.SQL("DELETE FROM {} WHERE ts < %s")
# TimescaleDB's; the first says whether it is installed.
_TIMESCALE = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"
_HYPERTABLE = "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = %s"
_SHOW_CHUNKS = "SELECT show_chunks(%s::regclass, older_than => %s)"
_DROP_CHUNKS = "SELECT drop_chunks(%s::regclass, older_than => %s)"


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted from one dataset, or would be: rows of a plain table, whole chunks of a hypertable."""

    dataset: str
    older_than: datetime
    rows: int | None = None
    chunks: int | None = None


def apply(connection: psycopg.Connection[Any], days: Mapping[str, int], *, dry_run: bool = False) -> list[Expired]:
    """Delete the rows whose `ts` is older than their dataset's `days`; a dry run only counts them.

    Each dataset has its own transaction. Raises `ConfigurationError` for an unknown dataset before anything is deleted,
    and `DatasetUnavailable` for a table whose `ts` is no longer a time with a zone.
    """
    for name in days:
        if name not in DATASETS:
            raise ConfigurationError(f"MDS_RETENTION_DAYS: {name!r} is not a dataset; use one of {', '.join(DATASETS)}")
    now = datetime.now(UTC)
    has_chunks = bool(_number(connection, _TIMESCALE, []))
    return [
        _expire(connection, DATASETS[name], now - timedelta(days=n), dry_run, has_chunks) for name, n in days.items()
    ]


def _expire(
    connection: psycopg.Connection[Any], dataset: Dataset, older_than: datetime, dry_run: bool, has_chunks: bool
) -> Expired:
    table = dataset.table.name
    with connection.transaction():
        check_types(connection, dataset, ["ts"])  # else the session's time zone would decide what is deleted
        if has_chunks and _number(connection, _HYPERTABLE, [table]):
            found = connection.execute(_SHOW_CHUNKS if dry_run else _DROP_CHUNKS, [table, older_than]).fetchall()
            return Expired(dataset.name, older_than, chunks=len(found))
        name = sql.Identifier(table)
        if dry_run:
            return Expired(dataset.name, older_than, rows=_number(connection, _COUNT.format(name), [older_than]))
        return Expired(dataset.name, older_than, rows=connection.execute(_DELETE.format(name), [older_than]).rowcount)


def _number(connection: psycopg.Connection[Any], query: Any, parameters: list[Any]) -> int:
    return int(connection.execute(query, parameters).fetchall()[0][0])
