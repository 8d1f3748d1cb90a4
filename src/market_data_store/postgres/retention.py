"""Retention: deletes rows and dead letters that are older than their limit, on request only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import DATASETS
from market_data_store.errors import LETTERS, ConfigurationError
from market_data_store.postgres.found import check_types

#: Letters go by when they were kept; they have a time of their own.
_TIMES = {LETTERS: "created_at"}
_COUNT = sql.SQL("SELECT count(*) FROM {} WHERE {} < %s")
_DELETE = sql.SQL("DELETE FROM {} WHERE {} < %s")
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


def apply(
    connection: psycopg.Connection[Any],
    days: Mapping[str, int],
    *,
    limits: Mapping[str, datetime] = MappingProxyType({}),
    dry_run: bool = False,
) -> list[Expired]:
    """Delete the rows whose `ts` is older than their dataset's `days`, and older letters; a dry run only counts them.

    `limits` are the times of an earlier dry run, by dataset, so that what was counted then is deleted now.

    Each dataset has its own transaction. Raises `ConfigurationError` for an unknown dataset before anything is deleted,
    and `DatasetUnavailable` for a table whose `ts` is no longer a time with a zone.
    """
    for name in days:
        if name not in (*DATASETS, LETTERS):
            known = ", ".join((*DATASETS, LETTERS))
            raise ConfigurationError(f"MDS_RETENTION_DAYS: {name!r} is not a dataset; use one of {known}")
    now = datetime.now(UTC)
    has_chunks = bool(_number(connection, _TIMESCALE, []))
    until = {name: now - timedelta(days=n) for name, n in days.items()}
    return [
        _expire(connection, name, min(limits.get(name, limit), limit), dry_run, has_chunks)
        for name, limit in until.items()
    ]


def _expire(
    connection: psycopg.Connection[Any], name: str, older_than: datetime, dry_run: bool, has_chunks: bool
) -> Expired:
    dataset = DATASETS.get(name)
    table = name if dataset is None else dataset.table.name
    with connection.transaction():
        if dataset is not None:
            check_types(connection, dataset, ["ts"])  # else the session's time zone would decide what is deleted
        if has_chunks and _number(connection, _HYPERTABLE, [table]):
            found = connection.execute(_SHOW_CHUNKS if dry_run else _DROP_CHUNKS, [table, older_than]).fetchall()
            return Expired(name, older_than, chunks=len(found))
        old = (_COUNT if dry_run else _DELETE).format(sql.Identifier(table), sql.Identifier(_TIMES.get(name, "ts")))
        if dry_run:
            return Expired(name, older_than, rows=_number(connection, old, [older_than]))
        return Expired(name, older_than, rows=connection.execute(old, [older_than]).rowcount)


def _number(connection: psycopg.Connection[Any], query: Any, parameters: list[Any]) -> int:
    return int(connection.execute(query, parameters).fetchall()[0][0])
