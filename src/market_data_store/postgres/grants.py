"""The least rights in Postgres: what each kind of process may do, as a file of GRANTs.

The role of ADMIN_DATABASE_URL owns the tables and migrates them; no other role may change what a table is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from market_data_store.datasets import DATASETS
from market_data_store.postgres.tables import (
    added_columns,
    attempts,
    dead_letters,
    first_takes,
    job_runs,
    leases,
    metadata,
    partitions_leaving,
    partitions_wanted,
    replay_keys,
    unknown_fields,
    upkeep_runs,
)

_VERSION = "alembic_version"
#: Of a table or column that is missing, no right is.
_LACKING = """
    SELECT needed.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS needed (privilege, relation, attribute)
    WHERE CASE
        WHEN attribute IS NULL THEN NOT has_table_privilege(to_regclass(quote_ident(relation)), privilege)
        ELSE NOT has_column_privilege(to_regclass(quote_ident(relation)), (
            SELECT attnum FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(relation)) AND attname = attribute
        ), privilege)
    END
"""
_OF_DATABASE = """
    SELECT has_schema_privilege(to_regnamespace('public'), 'USAGE'),
           has_database_privilege(current_database(), 'TEMPORARY')
"""
_MAY_MIGRATE = """
    SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), ARRAY(
        SELECT relname::text FROM pg_class
        WHERE oid IN (SELECT to_regclass(quote_ident(each)) FROM unnest(%s::text[]) AS each)
          AND NOT pg_has_role(relowner, 'USAGE')
        ORDER BY relname
    )
"""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The names of the roles: of worker, web, monitor, of people's commands, and of programs that only read."""

    worker: str
    web: str
    monitor: str
    operator: str
    reader: str


class Right(NamedTuple):
    """What a kind of process may do with a table, or with one of its columns."""

    right: str
    table: str
    column: str | None = None


def rights(kind: str) -> Iterator[Right]:
    """Yield what a kind of process needs of the tables; `kind` is the name of a field of `Roles`."""
    rows = [dataset.table.name for dataset in DATASETS.values()]
    own = [table.name for table in (dead_letters, attempts, first_takes)]
    yield from _each("SELECT", [*rows, _VERSION, added_columns.name])
    if kind == "worker":
        yield from _each("INSERT, UPDATE", rows)
        yield from _each("SELECT, INSERT, UPDATE, DELETE", own)
        yield from _each("SELECT", [replay_keys.name])
        yield from _each("SELECT, INSERT, UPDATE", [unknown_fields.name])
        yield from _each("SELECT, INSERT, UPDATE", [partitions_wanted.name])
    if kind == "web":  # retention deletes rows, and a purge letters
        yield from _each("DELETE", rows)
    if kind in ("web", "operator"):
        yield from _each("SELECT, DELETE", [dead_letters.name])
        yield from _each("SELECT", [job_runs.name, unknown_fields.name, upkeep_runs.name, partitions_wanted.name])
        yield from _each("SELECT, INSERT", [replay_keys.name])  # the first replay makes the key
    if kind == "monitor":  # the upkeep deletes what is too old
        yield from _each("DELETE", rows)
        yield from _each("SELECT, DELETE", [dead_letters.name, job_runs.name])
        yield from _each("SELECT, INSERT, UPDATE, DELETE", [leases.name, upkeep_runs.name])
        # It asks for what is wanted, although only the tables' owner can make it.
        yield from _each("SELECT, UPDATE, DELETE", [partitions_wanted.name])
        yield from _each("SELECT", [partitions_leaving.name])
    if kind == "operator":
        yield from _each("INSERT, UPDATE", [job_runs.name])
        # A load says in which file and line it found what was rejected.
        yield from (Right("UPDATE", dead_letters.name, column) for column in ("job", "file", "line"))


def grants(database: str, roles: Roles) -> Iterator[str]:
    """Yield the statements; all can be run again, which is needed when a migration has made a table."""
    for kind in (field.name for field in fields(Roles)):
        role = getattr(roles, kind)
        # The worker stages rows in temporary tables.
        connect = "CONNECT, TEMPORARY" if kind == "worker" else "CONNECT"
        yield _text("GRANT {} ON DATABASE {} TO {}", sql.SQL(connect), sql.Identifier(database), sql.Identifier(role))
        yield _text("GRANT USAGE ON SCHEMA public TO {}", sql.Identifier(role))
        by_table: dict[tuple[str, str | None], list[str]] = {}
        for right, table, column in rights(kind):
            by_table.setdefault((right, column), []).append(table)
        for (right, column), tables in by_table.items():
            yield _on(f"{right} ({column})" if column else right, tables, role)
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    yield _text("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", sql.Identifier(database))


def missing(connection: psycopg.Connection[Any], kind: str) -> list[Right]:
    """Return which of its rights a kind of process would not have as this connection's role, on tables that exist."""
    needed = [*rights(kind)]
    columns = [list(each) for each in zip(*needed, strict=True)]
    lacking = connection.execute(_LACKING, columns).fetchall()
    found = [Right(*each) for each in lacking]
    ((may_look, may_stage),) = connection.execute(_OF_DATABASE).fetchall()
    if not may_look:
        found.append(Right("USAGE", "schema public"))
    if kind == "worker" and not may_stage:
        found.append(Right("TEMPORARY", "the database"))
    return found


def what_stops_migrations(connection: psycopg.Connection[Any]) -> str | None:
    """Say why this connection's role cannot migrate; None if it can."""
    ((may_create, foreign),) = connection.execute(_MAY_MIGRATE, [[*metadata.tables, _VERSION]]).fetchall()
    if not may_create:
        return "may not create tables"
    return f"does not own {', '.join(foreign)}" if foreign else None


def _each(rights: str, tables: list[str]) -> Iterator[Right]:
    return (Right(right, table) for right in rights.split(", ") for table in tables)


def _on(rights: str, tables: list[str], role: str) -> str:
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    return _text("GRANT {} ON {} TO {}", sql.SQL(rights), names, sql.Identifier(role))


def _text(statement: str, *parts: sql.Composable) -> str:
    return sql.SQL(statement).format(*parts).as_string(None) + ";"
