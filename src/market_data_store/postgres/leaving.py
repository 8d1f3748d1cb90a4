"""Drops the partitions that are too old: kept in an archive if that is asked for, detached concurrently, then dropped.

What has begun is in the table `partitions_leaving`, so that whoever goes on after a kill finds a table that is detached
and not yet dropped. Nobody waits: detaching concurrently takes no lock that a writer needs, and the table that is
dropped is nobody's any more. A partition that was archived is dropped only if it still has the rows that were archived.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from sqlalchemy import MetaData

from market_data_store.datasets import Dataset
from market_data_store.errors import ArchiveFailed, DatasetUnavailable
from market_data_store.postgres.found import stored_types
from market_data_store.postgres.partitions import Partition, has_default, partitions_of
from market_data_store.postgres.statements import types_of
from market_data_store.postgres.transactions import begin, ended

#: How long a lock is waited for, and how long detaching waits for transactions that still see the partition.
_LOCK_WAIT_S = 0.1
_DETACH_S = 30.0
#: How often a lock is asked for that somebody else has.
_TRIES = 20
#: Independent of the order of rows. A value's text is exact with these settings.
_TEXTS = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1"
_CHECKSUM = (
    "SELECT count(*), coalesce(sum(hashtextextended(stored::text, 0)::numeric), 0)::text FROM {partition} AS stored"
)
_BEGIN = """
    INSERT INTO partitions_leaving (partition, dataset, starts, ends, began_at)
    VALUES (%s, %s, %s, %s, clock_timestamp()) ON CONFLICT (partition) DO NOTHING
"""
_BEGUN = """
    SELECT partition, starts, ends, to_regclass(quote_ident(partition)) IS NOT NULL, EXISTS (
        SELECT FROM pg_inherits WHERE inhrelid = to_regclass(quote_ident(partition))
    )
    FROM partitions_leaving WHERE dataset = %s ORDER BY starts
"""
_FORGET = "DELETE FROM partitions_leaving WHERE partition = %s"
_DETACH = "ALTER TABLE {table} DETACH PARTITION {partition} {how}"
_ATTACH = "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({last})"
_LOCK = "LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE"
_DROP = "DROP TABLE {partition}"

#: Keeps the rows of a table, given as a dataset with that table, which has so many of them; raises `ArchiveFailed`.
Archive = Callable[[psycopg.Connection[Any], Dataset, int], None]
#: Called in each transaction before something is deleted; what it raises ends the work.
Guard = Callable[[], None]


class Checksum(NamedTuple):
    """What tells whether a table still has the same rows."""

    rows: int
    hashes: str


class Begun(NamedTuple):
    """A partition that was begun to be dropped."""

    name: str
    starts: datetime
    ends: datetime
    exists: bool
    #: Or half detached.
    is_attached: bool


def is_old(partition: Partition, limit: datetime) -> bool:
    """Whether all its rows are older, so that it goes as a whole; one without a start is its owner's."""
    return partition.starts is not None and partition.ends is not None and partition.ends <= limit


def begun(connection: psycopg.Connection[Any], dataset: Dataset) -> list[Begun]:
    """Return the partitions of a dataset that were begun to be dropped, in the order of time."""
    return [Begun(*row) for row in connection.execute(_BEGUN, [dataset.name]).fetchall()]


def drop_old(
    connection: psycopg.Connection[Any], dataset: Dataset, limit: datetime, guard: Guard, archive: Archive | None
) -> Iterator[str]:
    """Drop the partitions whose rows are all older; yields the name of each when it is dropped.

    First what was begun is finished, or attached again if it is no longer too old. Raises `ArchiveFailed` if rows
    cannot be archived, `DatasetUnavailable` while others hold a partition, and psycopg's errors; what was yielded is
    done.
    """
    yield from _finished(connection, dataset, limit, guard, archive)
    for partition in partitions_of(connection, dataset):
        if not is_old(partition, limit):
            continue
        kept = None if archive is None else _archived(connection, dataset, partition.name, archive)
        given = [partition.name, dataset.name, partition.starts, partition.ends]
        with _guarded(connection, guard):
            connection.execute(_BEGIN, given)
        _detach(connection, dataset, partition.name)
        _drop(connection, partition.name, guard, kept)
        yield partition.name


def _finished(
    connection: psycopg.Connection[Any], dataset: Dataset, limit: datetime, guard: Guard, archive: Archive | None
) -> Iterator[str]:
    leaving = {each.name for each in partitions_of(connection, dataset) if each.is_leaving}
    for each in begun(connection, dataset):
        if each.name in leaving:
            _detach(connection, dataset, each.name, is_half_done=True)
        elif not each.exists or each.is_attached:  # dropped, or never detached
            connection.execute(_FORGET, [each.name])
            continue
        if each.ends > limit:
            with _guarded(connection, guard):
                connection.execute(_about(_ATTACH, dataset, each.name, first=each.starts, last=each.ends))
                connection.execute(_FORGET, [each.name])
            continue
        kept = None if archive is None else _archived(connection, dataset, each.name, archive)
        _drop(connection, each.name, guard, kept)
        yield each.name


def checksum(connection: psycopg.Connection[Any], partition: str) -> Checksum:
    """Count a table's rows, and sum their hashes; the caller has a transaction open."""
    connection.execute(_TEXTS)
    query = sql.SQL(_CHECKSUM).format(partition=sql.Identifier(partition))
    return Checksum(*connection.execute(query).fetchall()[0])


def _archived(connection: psycopg.Connection[Any], dataset: Dataset, name: str, archive: Archive) -> Checksum:
    """Have the rows of a partition archived; returns what they are."""
    foreign = [column for column in stored_types(connection, name) if column not in types_of(dataset)]
    if foreign:
        reason = f"{dataset.table.name}.{foreign[0]} is not declared, and so would not be in it; drop the column"
        raise ArchiveFailed(f"{name} cannot be archived: {reason}, or unset MDS_ARCHIVE_DIR")
    with connection.transaction():
        before = checksum(connection, name)
    table = dataset.table.to_metadata(MetaData(), name=name)
    archive(connection, replace(dataset, table=table), before.rows)
    with connection.transaction():
        if checksum(connection, name) != before:
            raise ArchiveFailed(f"{name}: rows were written while it was archived; it is tried again")
    return before


def _detach(connection: psycopg.Connection[Any], dataset: Dataset, name: str, *, is_half_done: bool = False) -> None:
    how = "FINALIZE" if is_half_done else "CONCURRENTLY"
    if not is_half_done and has_default(connection, dataset):
        # Postgres detaches concurrently only where there is no DEFAULT partition.
        _with_lock(connection, lambda: _execute(connection, _about(_DETACH, dataset, name, how="")))
        return
    timer = threading.Timer(_DETACH_S, connection.cancel)
    timer.start()
    try:
        connection.execute(_about(_DETACH, dataset, name, how=how))
    except psycopg.errors.QueryCanceled as error:
        reason = f"{name} is still read by a transaction that began {_DETACH_S:.0f} s ago or before; it is tried again"
        raise DatasetUnavailable(dataset.name, error.sqlstate, reason) from error
    finally:
        timer.cancel()


def _drop(connection: psycopg.Connection[Any], name: str, guard: Guard, kept: Checksum | None) -> None:
    def drop() -> None:
        with _guarded(connection, guard):
            connection.execute(sql.SQL(_LOCK).format(partition=sql.Identifier(name)))
            if kept is not None and checksum(connection, name) != kept:
                raise ArchiveFailed(f"{name}: rows were written after it was archived; it is archived again")
            connection.execute(sql.SQL(_DROP).format(partition=sql.Identifier(name)))
            connection.execute(_FORGET, [name])

    _with_lock(connection, drop)


def _execute(connection: psycopg.Connection[Any], statement: sql.Composed) -> None:
    with ended(connection):
        connection.execute(begin(_LOCK_WAIT_S))
        connection.execute(statement)


def _with_lock(connection: psycopg.Connection[Any], act: Callable[[], None]) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            act()
        except psycopg.errors.LockNotAvailable:
            if not tries_left:
                raise
        else:
            return


@contextmanager
def _guarded(connection: psycopg.Connection[Any], guard: Guard) -> Iterator[None]:
    with ended(connection):
        connection.execute(begin(_LOCK_WAIT_S))
        guard()
        yield


def _about(
    query: str,
    dataset: Dataset,
    name: str,
    *,
    how: str = "",
    first: datetime | None = None,
    last: datetime | None = None,
) -> sql.Composed:
    words = {"": sql.SQL(""), "CONCURRENTLY": sql.SQL("CONCURRENTLY"), "FINALIZE": sql.SQL("FINALIZE")}
    return sql.SQL(query).format(
        table=sql.Identifier(dataset.table.name),
        partition=sql.Identifier(name),
        how=words[how],
        first=sql.Literal(first),
        last=sql.Literal(last),
    )
