"""Makes the partitions of a dataset's table: those that rows wait for, and some ahead of time.

A partition is made as a table of its own and then attached, which takes no lock that a writer or a reader waits for. It
waits for no lock itself longer than `_LOCK_WAIT_S`; whoever calls tries again. What lies between partitions that
somebody else made, or that were made by another span, gets partitions that fill the gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import md5
from itertools import islice
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.datasets.spans import Span
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.partitions import Partition, kind_of, partitions_of
from market_data_store.postgres.transactions import begin, ended

_LOCK_WAIT_S = 0.1
#: The longest name in Postgres, and what is kept of a table's for `_p2016_03_07`.
_MAX_NAME = 63
_KEPT_NAME = 50
_DIGITS = 8
#: Storage options, such as a fillfactor, are a partition's: a new one has those of the newest.
_OPTIONS = "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass({name})"
_CREATE = "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY)"
_ATTACH = "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({last})"
_EXISTS = "SELECT to_regclass({name}) IS NOT NULL"
_HYPERTABLE = """
    SELECT to_regclass('timescaledb_information.hypertables') IS NOT NULL
"""
_IS_HYPERTABLE = "SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = %s"


def name_of(dataset: Dataset, label: str) -> str:
    """Return the name of a partition's table, such as `tick_data_p2016_03`; that of a long table is cut."""
    table = dataset.table.name
    if len(table) > _KEPT_NAME:
        digest = md5(table.encode(), usedforsecurity=False).hexdigest()[:_DIGITS]
        table = f"{table[: _KEPT_NAME - _DIGITS - 1]}_{digest}"
    return f"{table}_p{label}"


def refusal(connection: psycopg.Connection[Any], dataset: Dataset) -> str | None:
    """Say in one line why the dataset's table cannot have partitions; None if it can, or has some."""
    name = dataset.table.name
    kind = kind_of(connection, dataset)
    if kind is None:
        return f"{name} is missing; run `mds migrate`"
    if kind not in ("r", "p"):
        return f"{name} is not a table; take {dataset.name} out of MDS_PARTITIONS"
    ((has_timescale,),) = connection.execute(_HYPERTABLE).fetchall()
    if has_timescale and connection.execute(_IS_HYPERTABLE, [name]).rowcount:
        return (
            f"{name} is a hypertable, which TimescaleDB keeps in chunks; take {dataset.name} out of MDS_PARTITIONS "
            "or remove `partition` from its declaration"
        )
    return None


def starts_ahead(span: Span, moment: datetime) -> Iterator[datetime]:
    """Yield the starts of the present span and of those that are made ahead."""
    start = span.start_of(moment)
    for _ in range(span.made_ahead + 1):
        yield start
        start = span.after(start)


def make(connection: psycopg.Connection[Any], dataset: Dataset, span: Span, start: datetime) -> list[str]:
    """Make what is missing of the span that begins then; returns the names of the new partitions.

    Raises psycopg's errors, `LockNotAvailable` among them, and `DatasetUnavailable` if a table of that name is there.
    """
    with ended(connection):
        connection.execute(begin(_LOCK_WAIT_S))
        return made(connection, dataset, span, start, partitions_of(connection, dataset))


def made(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    span: Span,
    start: datetime,
    partitions: Sequence[Partition],
    *,
    parent: str | None = None,
    options: str | None = None,
) -> list[str]:
    """Do what `make` does in the open transaction, beside these partitions; `parent` may be another table's name."""
    end = span.after(start)
    names = []
    for first, last in gaps(partitions, start, end):
        whole = (first, last) == (start, end)
        name = name_of(dataset, span.label(first) if whole else Span.DAY.label(first))
        _add(connection, dataset, name, first, last, partitions, parent or dataset.table.name, options)
        names.append(name)
    return names


def gaps(partitions: Sequence[Partition], start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of this time that no partition covers, in order; the partitions are in order, too."""
    at = start
    for each in partitions:
        if each.is_leaving or (each.ends is not None and each.ends <= at):
            continue
        if each.starts is not None and each.starts >= end:
            break
        if each.starts is not None and each.starts > at:
            yield at, each.starts
        if each.ends is None:
            return
        at = each.ends
    if at < end:
        yield at, end


def _add(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    name: str,
    first: datetime,
    last: datetime,
    partitions: Sequence[Partition],
    parent: str,
    options: str | None,
) -> None:
    ((exists,),) = connection.execute(_named(_EXISTS, name)).fetchall()
    if exists:
        reason = f"a table {name} is there, and is not attached; it is being dropped, or drop or attach it"
        raise DatasetUnavailable(dataset.name, "42P07", reason)
    if options is None and partitions:
        ((options,),) = connection.execute(_named(_OPTIONS, partitions[-1].name)).fetchall()
    parts = {
        "partition": sql.Identifier(name),
        "table": sql.Identifier(parent),
        "first": sql.Literal(first.isoformat()),
        "last": sql.Literal(last.isoformat()),
    }
    # The options are Postgres's own text of them.
    create = sql.SQL(_CREATE).format(**parts) + sql.SQL(f" WITH ({options})" if options else "")
    connection.execute(create)
    connection.execute(sql.SQL(_ATTACH).format(**parts))


def options_of(connection: psycopg.Connection[Any], table: str) -> str:
    """Return a table's storage options as a list for WITH; empty for none."""
    ((options,),) = connection.execute(_named(_OPTIONS, table)).fetchall()
    return options or ""


def make_ahead(
    connection: psycopg.Connection[Any], dataset: Dataset, span: Span, moment: datetime, *, most: int | None = None
) -> list[str]:
    """Make the partitions of the present span and of the next ones, as far as they are missing; raises as `make`."""
    partitions = partitions_of(connection, dataset)
    missing = (start for start in starts_ahead(span, moment) if next(gaps(partitions, start, span.after(start)), None))
    return [name for start in islice(missing, most) for name in make(connection, dataset, span, start)]


def _named(query: str, name: str) -> sql.Composed:
    return sql.SQL(query).format(name=sql.Literal(sql.Identifier(name).as_string(None)))
