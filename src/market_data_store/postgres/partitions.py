"""The partitions of a dataset's table, as Postgres's catalogue has them: from when to when, how large, which state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf, isfinite
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset

#: Partitions by one column, `ts`; bounds in epoch seconds, as a datetime has no infinity. Those of sub-partitions, and
#: of a DEFAULT partition, are NULL. The estimate of rows is -1 before the first ANALYZE or VACUUM.
_PARTITIONS = """
    SELECT child.relname::text,
           extract(epoch FROM replace(bounds[1], 'MINVALUE', '''-infinity''')::text::timestamptz)::float8,
           extract(epoch FROM replace(bounds[2], 'MAXVALUE', '''infinity''')::text::timestamptz)::float8,
           child.reltuples::float8, pg_total_relation_size(child.oid), inhdetachpending
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    CROSS JOIN LATERAL (
        SELECT regexp_match(pg_get_expr(child.relpartbound, child.oid), '^FOR VALUES FROM \\((.*)\\) TO \\((.*)\\)$')
    ) AS found (bounds)
    WHERE inhparent = to_regclass({name})
    ORDER BY 2, 3
"""
#: A plain table, a table partitioned by ranges of `ts`, or another relation; NULL for none.
_KIND = """
    SELECT relkind::text, partstrat::text, (
        SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum = ANY (partattrs)
    ), EXISTS (SELECT FROM pg_inherits WHERE inhparent = pg_class.oid AND inhdetachpending),
    coalesce(partdefid, 0) <> 0
    FROM pg_class LEFT JOIN pg_partitioned_table ON partrelid = pg_class.oid
    WHERE pg_class.oid = to_regclass({name})
"""
_SIZE = "SELECT coalesce(pg_total_relation_size(to_regclass({name})), 0)"
_NOW = "SELECT clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, from its first time to the time after its last; None for no bound."""

    name: str
    starts: datetime | None
    ends: datetime | None
    #: Postgres's estimate; None before the first ANALYZE.
    rows: int | None
    #: With indexes.
    size_bytes: int
    #: Whether it is being detached: its rows are no longer seen.
    is_leaving: bool

    @property
    def state(self) -> str:
        """`attached`, or `leaving` while it is detached."""
        return "leaving" if self.is_leaving else "attached"


def is_partitioned(connection: psycopg.Connection[Any], dataset: Dataset) -> bool:
    """Whether the dataset's table is one that is partitioned by ranges of `ts`, whoever made it."""
    found = connection.execute(_composed(_KIND, dataset)).fetchall()
    return bool(found) and found[0][:3] == ("p", "r", ["ts"])


def has_default(connection: psycopg.Connection[Any], dataset: Dataset) -> bool:
    """Whether the table has a DEFAULT partition, which takes what no other takes, and forbids concurrent detaching."""
    found = connection.execute(_composed(_KIND, dataset)).fetchall()
    return bool(found) and bool(found[0][4])


def kind_of(connection: psycopg.Connection[Any], dataset: Dataset) -> str | None:
    """Return `pg_class.relkind` of the dataset's table; None if there is none."""
    found = connection.execute(_composed(_KIND, dataset)).fetchall()
    return found[0][0] if found else None


def partitions_of(connection: psycopg.Connection[Any], dataset: Dataset) -> list[Partition]:
    """Return the partitions of the dataset's table in the order of time; none of a plain table."""
    rows = connection.execute(_composed(_PARTITIONS, dataset)).fetchall()
    return [
        Partition(name, _moment(first), _moment(last), None if tuples < 0 else int(tuples), size, leaving)
        for name, first, last, tuples, size, leaving in rows
        if first is not None and last is not None
    ]


def size_of(connection: psycopg.Connection[Any], dataset: Dataset) -> int:
    """Return the bytes of the dataset's plain table, with indexes; 0 if there is none."""
    ((size,),) = connection.execute(_composed(_SIZE, dataset)).fetchall()
    return int(size)


def ranges_of(partitions: Sequence[Partition]) -> list[tuple[float, float]]:
    """Return from which epoch second to which each partition takes rows, in order."""
    return [
        (-inf if each.starts is None else each.starts.timestamp(), inf if each.ends is None else each.ends.timestamp())
        for each in partitions
        if not each.is_leaving
    ]


def now(connection: psycopg.Connection[Any]) -> datetime:
    """Return the time of Postgres's clock."""
    ((found,),) = connection.execute(_NOW).fetchall()
    assert isinstance(found, datetime)  # noqa: S101  # for mypy
    return found


def _moment(seconds: float) -> datetime | None:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds) if isfinite(seconds) else None


def _composed(query: str, dataset: Dataset) -> sql.Composed:
    name = sql.Literal(sql.Identifier(dataset.table.name).as_string(None))
    return sql.SQL(query).format(name=name)
