"""Converts a dataset's plain table to a partitioned one, in one transaction: what ends it leaves the old table whole.

The rows are copied, so the disk holds them twice until the end. Meanwhile nobody writes: workers hold the dataset's
messages and write them afterwards. Everybody reads, except for the moment at the end in which the new table gets the
old one's name. It has the old one's columns, constraints, indexes, triggers, rights, owner and comment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.datasets.spans import Span
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres import partitioning
from market_data_store.postgres.partitioning import options_of, starts_ahead
from market_data_store.postgres.partitions import Partition, kind_of, now
from market_data_store.postgres.tables import ADVISORY_LOCK
from market_data_store.postgres.transactions import transaction

#: More partitions than this make every statement slow that touches all of them.
MOST_PARTITIONS = 4_500
#: What would be lost, or goes wrong at the end: a view stays with the table that it was made of.
_OBSTACLES = """
    SELECT 'the view ' || view.oid::regclass || ' reads it; drop the view, and make it again afterwards'
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class AS view ON view.oid = ev_class
    WHERE refobjid = {table}::regclass AND classid = 'pg_rewrite'::regclass AND view.oid <> refobjid
    UNION SELECT 'the foreign key ' || conname || ' of ' || conrelid::regclass || ' refers to it; drop it first'
    FROM pg_constraint WHERE confrelid = {table}::regclass AND contype = 'f'
    UNION SELECT 'the table inherits from another or has heirs; convert it by hand'
    FROM pg_inherits WHERE {table}::regclass IN (inhrelid, inhparent)
    UNION SELECT 'it has row security; drop its policies, and make them again afterwards'
    FROM pg_class WHERE oid = {table}::regclass AND relrowsecurity
    UNION SELECT 'the publication ' || pubname || ' has it; take it out, and add it again afterwards'
    FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid WHERE prrelid = {table}::regclass
    UNION SELECT 'the unique index ' || indexrelid::regclass || ' is without ts, as none of partitions can be; drop it'
    FROM pg_index WHERE indrelid = {table}::regclass AND indisunique AND NOT (
        SELECT attnum FROM pg_attribute WHERE attrelid = indrelid AND attname = 'ts'
    ) = ANY (indkey::int2[])
    UNION SELECT 'the exclusion constraint ' || conname || ' stands in the way; drop it'
    FROM pg_constraint WHERE conrelid = {table}::regclass AND contype = 'x'
"""
#: What LIKE does not copy, as statements for the table that has the name at the end.
_EXTRAS = """
    SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = {table}::regclass AND NOT tgisinternal
    UNION ALL
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = {table}::regclass AND contype = 'f'
    UNION ALL SELECT format('COMMENT ON TABLE %s IS %L', {table}::regclass, description)
    FROM obj_description({table}::regclass, 'pg_class') AS description WHERE description IS NOT NULL
    UNION ALL SELECT format(
        'GRANT %s ON %s TO %s%s', privilege_type, oid::regclass,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    )
    FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) WHERE oid = {table}::regclass AND grantee <> relowner
    UNION ALL SELECT format(
        'GRANT %s (%I) ON %s TO %s', privilege_type, attname, attrelid::regclass,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    )
    FROM pg_attribute CROSS JOIN LATERAL aclexplode(attacl) WHERE attrelid = {table}::regclass
    UNION ALL SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, pg_get_userbyid(relowner))
    FROM pg_class WHERE oid = {table}::regclass AND pg_get_userbyid(relowner) <> current_user
"""
#: `date_trunc` of a time in UTC; spans without a row get no partition.
_STARTS = "SELECT DISTINCT date_trunc({span}, ts AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' FROM {table} ORDER BY 1"
_ENDLESS = "SELECT count(*) FROM {table} WHERE NOT isfinite(ts)"
_HAS_ROWS = "SELECT EXISTS (SELECT FROM {table})"
_LOCK = "LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"
_PARENT = "CREATE TABLE {new} (LIKE {table} INCLUDING ALL) PARTITION BY RANGE (ts)"
_COPY = "INSERT INTO {new} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {table}"
_COLUMNS = """
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = {table}::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
_KEY_NAME = "SELECT conname::text FROM pg_constraint WHERE conrelid = {table}::regclass AND contype = 'p'"
_PUT = """
    SET LOCAL lock_timeout = 0; DROP TABLE {table}; ALTER TABLE {new} RENAME TO {name}
"""
_RENAME_KEY = "ALTER TABLE {table} RENAME CONSTRAINT {old} TO {key}"


def convert(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    span: Span,
    say: Callable[[str], None] = lambda line: None,
    *,
    only_empty: bool = False,
) -> int | None:
    """Convert the table; returns the number of its rows. With `only_empty`, None for one that has rows, which stays.

    `say` gets a line for each step. Raises `DatasetUnavailable` with what stands in the way, and psycopg's errors,
    `LockNotAvailable` if somebody uses the table for long; nothing has changed then.
    """
    query = _Composer(dataset)
    with transaction(connection):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        _require(connection, dataset)
        connection.execute(query(_LOCK))
        _require(connection, dataset)  # another process may have converted it meanwhile
        has_rows = connection.execute(query(_HAS_ROWS)).fetchall() == [(True,)]
        if has_rows and only_empty:
            return None
        obstacles = [line for (line,) in connection.execute(query(_OBSTACLES)).fetchall()]
        if obstacles:
            raise DatasetUnavailable(dataset.name, None, f"{dataset.table.name} cannot be converted: {obstacles[0]}")
        starts = _starts(connection, dataset, span, query) if has_rows else []
        extras = [statement for (statement,) in connection.execute(query(_EXTRAS)).fetchall()]
        columns = [name for (name,) in connection.execute(query(_COLUMNS)).fetchall()]
        keys = connection.execute(query(_KEY_NAME)).fetchall()
        options = options_of(connection, dataset.table.name)
        connection.execute(query(_PARENT))
        say(f"{len(starts)} partitions by {span.value} for rows that are there")
        partitions = list(_made(connection, dataset, span, starts, query.new, options))
        copied = connection.execute(query(_COPY, columns=_names(columns))).rowcount
        say(f"{copied:,} rows are copied; the new table takes the place of the old one")
        connection.execute(query(_PUT))
        for (name,) in keys:
            _rename_key(connection, query, name)
        for statement in extras:
            connection.execute(statement)
    say(f"{dataset.table.name} has {len(partitions)} partitions")
    return copied


class _Composer:
    """Composes statements about the table and the one that takes its place."""

    def __init__(self, dataset: Dataset) -> None:
        self.new = partitioning.name_of(dataset, "new")
        self._name = dataset.table.name

    def __call__(self, query: str, **parts: sql.Composable) -> sql.Composed:
        table: sql.Composable = sql.Identifier(self._name)
        if "::regclass" in query:
            table = sql.Literal(table.as_string(None))
        names = {"table": table, "name": sql.Identifier(self._name), "new": sql.Identifier(self.new)}
        return sql.SQL(query).format(**names, **parts)


def _require(connection: psycopg.Connection[Any], dataset: Dataset) -> None:
    reason = partitioning.refusal(connection, dataset)
    if reason is None and kind_of(connection, dataset) == "p":
        reason = f"{dataset.table.name} is partitioned already; `mds partitions {dataset.name}` lists its partitions"
    if reason is not None:
        raise DatasetUnavailable(dataset.name, None, reason)


def _starts(connection: psycopg.Connection[Any], dataset: Dataset, span: Span, query: _Composer) -> list[datetime]:
    table = dataset.table.name
    ((endless,),) = connection.execute(query(_ENDLESS)).fetchall()
    if endless:
        raise DatasetUnavailable(
            dataset.name, None, f"{endless} rows of {table} have an infinite ts; delete them first"
        )
    found = connection.execute(query(_STARTS, span=sql.Literal(span.value))).fetchall()
    if len(found) > MOST_PARTITIONS:
        number = f"{len(found):,} partitions by {span.value}, at most {MOST_PARTITIONS:,}"
        reason = f"{table} would get {number}; use a longer span"
        raise DatasetUnavailable(dataset.name, None, reason)
    return [start.astimezone(UTC) for (start,) in found]


def _made(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    span: Span,
    starts: list[datetime],
    parent: str,
    options: str,
) -> Iterator[str]:
    """Make the partitions of the rows, and those that are made ahead."""
    made: list[Partition] = []
    for start in sorted({*starts, *starts_ahead(span, now(connection))}):
        yield from partitioning.made(connection, dataset, span, start, made, parent=parent, options=options)
        made.append(Partition("", start, span.after(start), 0, 0, is_leaving=False))


def _rename_key(connection: psycopg.Connection[Any], query: _Composer, name: str) -> None:
    ((own,),) = connection.execute(query(_KEY_NAME)).fetchall()
    if own != name:
        connection.execute(query(_RENAME_KEY, old=sql.Identifier(own), key=sql.Identifier(name)))


def _names(columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
