"""Counts and deletes the rows of one table that are older than a time, some at a time.

Each batch is a transaction of its own that waits for no lock longer than `_LOCK_WAIT_S`: a writer that wants one of its
rows waits for some milliseconds. The old rows of a dataset are found by the key's index, one series after the other, so
that what is kept is not read. Without that index (a view, Citus) one statement deletes all of them. Of a TimescaleDB
hypertable whole chunks go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import JOB_RUNS, LETTERS
from market_data_store.postgres.found import check_types
from market_data_store.postgres.key_index import BY_INDEX, KEYS, has_index, prefix
from market_data_store.postgres.transactions import begin, ended

#: Rows of one batch: some 10 ms. A letter may hold 16 MiB.
BATCH_ROWS = 2_000
_BATCH_LETTERS = 100
_LOCK_WAIT_S = 2.0
#: How often a batch is tried that meets a lock or a deadlock with a writer.
_TRIES = 3

#: Called in each transaction before something is deleted; what it raises ends the work.
Guard = Callable[[], None]

#: Postgres makes no more of the list of series than the first that is old.
_NEXT = "{keys} SELECT {texts} FROM keys WHERE first < {limit} LIMIT 1"
_COUNT_BY_INDEX = """
    {keys} SELECT coalesce(sum(rows), 0)::bigint FROM keys CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM {table} AS each WHERE ({names_of_each}) = ({names_of_keys}) AND each.ts < {limit}
    ) AS counted WHERE first < {limit}
"""
_COUNT = "SELECT count(*) FROM {table} WHERE {time} < {limit} AND {condition}"
_DELETE_ALL = "DELETE FROM {table} WHERE {time} < {limit} AND {condition}"
_DELETE = """
    WITH old AS (
        SELECT {key} FROM {table} AS each WHERE {series} AND {time} < {limit} AND {condition}
        ORDER BY {key} LIMIT {most}
    )
    DELETE FROM {table} AS stored USING old WHERE {same}
"""
# TimescaleDB's; the first says whether it is installed.
_TIMESCALE = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"
_HYPERTABLE = "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = %s"
_SHOW_CHUNKS = "SELECT show_chunks(%s::regclass, older_than => %s)"
_DROP_CHUNKS = "SELECT drop_chunks(%s::regclass, older_than => %s)"


@dataclass(frozen=True, slots=True)
class _Own:
    """A table of the store's own, and the time that its rows go by; there are few of them."""

    time: str
    condition: str = "true"
    batch: int = BATCH_ROWS


#: Letters go by when they were kept. A run that has not ended stays: `mds jobs --stuck` shows it.
_OWN = {LETTERS: _Own("created_at", batch=_BATCH_LETTERS), JOB_RUNS: _Own("updated_at", "status <> 'running'")}


def names() -> tuple[str, ...]:
    """What can be kept for a time: the datasets, and tables of the store's own."""
    return (*DATASETS, *_OWN)


def has_chunks(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether what is old in this table goes by chunks of TimescaleDB."""
    if name in _OWN or not _number(connection, _TIMESCALE):
        return False
    return bool(_number(connection, _HYPERTABLE, [DATASETS[name].table.name]))


def old_chunks(connection: psycopg.Connection[Any], name: str, limit: datetime, timeout_s: float = 0.0) -> int:
    """Count the chunks of a hypertable whose rows are all older; Postgres cancels what takes longer."""
    with _transaction(connection, DATASETS[name], timeout_s):
        return connection.execute(_SHOW_CHUNKS, [DATASETS[name].table.name, limit]).rowcount


def drop_chunks(connection: psycopg.Connection[Any], name: str, limit: datetime, guard: Guard) -> int:
    """Drop these chunks; returns their number."""
    with _transaction(connection, DATASETS[name]):
        guard()
        return connection.execute(_DROP_CHUNKS, [DATASETS[name].table.name, limit]).rowcount


def old_rows(
    connection: psycopg.Connection[Any], name: str, limit: datetime, timeout_s: float = 0.0, *, part: str | None = None
) -> int:
    """Count the rows of a table, or of this partition, that are older; Postgres cancels what takes longer."""
    dataset = DATASETS.get(name)
    with _transaction(connection, dataset, timeout_s):
        by_index = dataset is not None and has_index(connection, dataset) and prefix(dataset) != []
        if by_index:
            connection.execute(BY_INDEX)
        query = _COUNT_BY_INDEX if by_index else _COUNT
        return _number(connection, _composed(query, name, limit, part=part))


def delete(
    connection: psycopg.Connection[Any], name: str, limit: datetime, guard: Guard, *, part: str | None = None
) -> Iterator[int]:
    """Delete the rows of a table, or of this partition, that are older.

    Yields the number of each batch, which is committed then.
    """
    dataset = DATASETS.get(name)
    if dataset is not None and not has_index(connection, dataset):
        with _transaction(connection, dataset):
            guard()
            deleted = connection.execute(_composed(_DELETE_ALL, name, limit, part=part)).rowcount
        yield deleted
        return
    for series in _old_series(connection, name, limit, part):
        query = _composed(_DELETE, name, limit, series, part=part)
        most = deleted = _OWN[name].batch if name in _OWN else BATCH_ROWS
        while deleted == most:
            deleted = _batch(connection, dataset, query, guard)
            yield deleted


def _old_series(
    connection: psycopg.Connection[Any], name: str, limit: datetime, part: str | None
) -> Iterator[Sequence[str]]:
    """Yield the series that have old rows, one at a time: what is deleted meanwhile is not there any more."""
    dataset = DATASETS.get(name)
    if dataset is None or not prefix(dataset):
        yield ()
        return
    found: Sequence[str] = ()
    while True:
        with _transaction(connection, dataset):
            connection.execute(BY_INDEX)
            rows = connection.execute(_composed(_NEXT, name, limit, found, part=part)).fetchall()
        if not rows:
            return
        found = rows[0]
        yield found


def _batch(connection: psycopg.Connection[Any], dataset: Dataset | None, query: sql.Composed, guard: Guard) -> int:
    for tries_left in reversed(range(_TRIES)):
        try:
            with _transaction(connection, dataset):
                guard()
                connection.execute(BY_INDEX)
                return connection.execute(query).rowcount
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if not tries_left:
                raise
    raise AssertionError


@contextmanager
def _transaction(
    connection: psycopg.Connection[Any], dataset: Dataset | None, timeout_s: float = 0.0
) -> Iterator[None]:
    with ended(connection):
        connection.execute(begin(_LOCK_WAIT_S))
        if timeout_s:
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(int(timeout_s * 1_000))))
        if dataset is not None:
            check_types(connection, dataset, ["ts"])  # else the session's time zone would decide what is deleted
        yield


def _composed(
    template: str, name: str, limit: datetime, series: Sequence[str] = (), *, part: str | None = None
) -> sql.Composed:
    """Compose a statement; `series` are the names of one series as texts: after it, or of it."""
    dataset, own = DATASETS.get(name), _OWN.get(name)
    key = ("id",) if dataset is None else dataset.key
    names = [] if dataset is None else prefix(dataset)

    def joined(columns: Sequence[str], alias: str = "", suffix: str = "") -> sql.Composed:
        of = (alias,) if alias else ()
        return sql.SQL(", ").join(sql.Identifier(*of, column) + sql.SQL(suffix) for column in columns)

    given = sql.SQL(", ").join(map(sql.Literal, series))
    of_each = joined(names, "each")
    parts = {
        "table": sql.Identifier(part or (name if dataset is None else dataset.table.name)),
        "names": joined(names),
        "names_of_each": of_each,
        "names_of_keys": joined(names, "keys"),
        "texts": joined(names, suffix="::text"),
        "after": sql.SQL("WHERE ({}, each.ts) > ({}, 'infinity')").format(of_each, given) if series else sql.SQL(""),
        "series": sql.SQL("({}) = ({})").format(of_each, given) if series else sql.SQL("true"),
        "key": joined(key),
        "same": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("stored", column), sql.Identifier("old", column)) for column in key
        ),
        "time": sql.Identifier("ts" if own is None else own.time),
        "condition": sql.SQL("true" if own is None else own.condition),
        "limit": sql.Literal(limit),
        "most": sql.Literal(BATCH_ROWS if own is None else own.batch),
    }
    return sql.SQL(template).format(**parts, keys=sql.SQL(KEYS).format(**parts))


def _number(connection: psycopg.Connection[Any], query: Any, parameters: Sequence[Any] | None = None) -> int:
    return int(connection.execute(query, parameters).fetchall()[0][0])
