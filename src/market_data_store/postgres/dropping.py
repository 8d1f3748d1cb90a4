"""How many values a downgrade deletes, found out before it does.

A migration declares in `DROPS` what its downgrade deletes. Counting reads the whole table, so it gets `COUNT_MS`
milliseconds a table; after that the number is Postgres's own estimate, which ANALYZE keeps up to date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable, QueryCanceled

#: Milliseconds for the count of one table.
COUNT_MS = 5_000
#: The columns of a table; none of a view.
_COLUMNS: LiteralString = """
    SELECT attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND relkind NOT IN ('v', 'm')
"""
#: Of the table's parts (partitions or chunks), or of the table itself if it has none. The rows of one that was never
#: analyzed are unknown, and make the sum unknown.
_ESTIMATE: LiteralString = """
    WITH RECURSIVE parts (oid) AS (
        SELECT to_regclass(%(table)s)::oid
        UNION ALL SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = parts.oid
    )
    SELECT CASE WHEN coalesce(bool_and(reltuples >= 0), true) THEN
        coalesce(sum(reltuples * (1 - coalesce(null_frac, 0))), 0)::bigint
    END
    FROM parts JOIN pg_class ON pg_class.oid = parts.oid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    LEFT JOIN pg_stats ON schemaname = nspname AND tablename = relname AND attname = %(column)s AND NOT inherited
    WHERE relkind IN ('r', 'f')
        AND (reltuples > 0 OR (reltuples < 0 AND (relkind = 'f' OR pg_relation_size(pg_class.oid) > 0)))
"""


class Dropped(NamedTuple):
    """What a downgrade deletes: a table, or one of its columns."""

    table: str
    column: str | None
    #: How many rows, or values that are not null; None if that is unknown.
    values: int | None
    is_estimate: bool = False

    def __str__(self) -> str:
        of, what = (self.table, "rows") if self.column is None else (f"{self.table}.{self.column}", "values")
        if self.values is None:
            return f"{of}: an unknown number of {what} (run ANALYZE {self.table})"
        return f"{of}: {'about ' if self.is_estimate else ''}{self.values:,} {what}"


def dropped(connection: psycopg.Connection[Any], drops: Mapping[str, Sequence[str]]) -> Iterator[Dropped]:
    """Count what is deleted with these tables, or with these columns of them; what is not there is left out."""
    for table, columns in drops.items():
        present = {name for (name,) in connection.execute(_COLUMNS, [table]).fetchall()}
        chosen: list[str | None] = [name for name in columns if name in present]
        if not columns and present:
            chosen = [None]
        if not chosen:
            continue
        counts = _counted(connection, table, chosen)
        for index, column in enumerate(chosen):
            if counts is None:
                yield Dropped(table, column, _estimated(connection, table, column), is_estimate=True)
            else:
                yield Dropped(table, column, counts[index])


def _counted(connection: psycopg.Connection[Any], table: str, columns: Sequence[str | None]) -> list[int] | None:
    counts = [
        sql.SQL("count(*)") if name is None else sql.SQL("count({})").format(sql.Identifier(name)) for name in columns
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(counts), sql.Identifier(table))
    return _in_time(connection, query)


def _estimated(connection: psycopg.Connection[Any], table: str, column: str | None) -> int | None:
    found = _in_time(connection, sql.SQL(_ESTIMATE), {"table": table, "column": column})
    return None if found is None else found[0]


def _in_time(
    connection: psycopg.Connection[Any], query: sql.SQL | sql.Composed, parameters: dict[str, str | None] | None = None
) -> list[Any] | None:
    """Return the one row of a query; None if it takes too long, perhaps because it waits for a lock."""
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(COUNT_MS)))
            return list(connection.execute(query, parameters).fetchall()[0])
    except (QueryCanceled, LockNotAvailable):
        return None
