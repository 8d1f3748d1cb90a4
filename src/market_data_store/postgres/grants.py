"""The least rights in Postgres: what each kind of process may do, as a file of GRANTs.

The role of ADMIN_DATABASE_URL owns the tables and migrates them; no other role may change what a table is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from market_data_store.datasets import DATASETS
from market_data_store.postgres.tables import (
    attempts,
    dead_letters,
    first_takes,
    job_runs,
    leases,
    replay_keys,
    upkeep_runs,
)

_VERSION = "alembic_version"


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The names of the roles: of worker, web, monitor, of people's commands, and of programs that only read."""

    worker: str
    web: str
    monitor: str
    operator: str
    reader: str


def grants(database: str, roles: Roles) -> Iterator[str]:
    """Yield the statements; all can be run again, which is needed when a migration has made a table."""
    rows = [dataset.table.name for dataset in DATASETS.values()]
    own = [table.name for table in (dead_letters, attempts, first_takes)]
    for role in (roles.worker, roles.web, roles.monitor, roles.operator, roles.reader):
        # The worker stages rows in temporary tables.
        connect = "CONNECT, TEMPORARY" if role == roles.worker else "CONNECT"
        yield _text("GRANT {} ON DATABASE {} TO {}", sql.SQL(connect), sql.Identifier(database), sql.Identifier(role))
        yield _text("GRANT USAGE ON SCHEMA public TO {}", sql.Identifier(role))
        yield _on("SELECT", [*rows, _VERSION], role)
    yield _on("INSERT, UPDATE", rows, roles.worker)
    yield _on("SELECT, INSERT, UPDATE, DELETE", own, roles.worker)
    yield _on("SELECT", [replay_keys.name], roles.worker)
    # Retention deletes rows, and a purge letters.
    yield _on("DELETE", rows, roles.web)
    for role in (roles.web, roles.operator):
        yield _on("SELECT, DELETE", [dead_letters.name], role)
        yield _on("SELECT", [job_runs.name, upkeep_runs.name], role)
        yield _on("SELECT, INSERT", [replay_keys.name], role)  # the first replay makes the key
    # The upkeep deletes what is too old.
    yield _on("DELETE", rows, roles.monitor)
    yield _on("SELECT, DELETE", [dead_letters.name, job_runs.name], roles.monitor)
    yield _on("SELECT, INSERT, UPDATE, DELETE", [leases.name, upkeep_runs.name], roles.monitor)
    yield _on("INSERT, UPDATE", [job_runs.name], roles.operator)
    # A load says in which file and line it found what was rejected.
    yield _on("UPDATE (job, file, line)", [dead_letters.name], roles.operator)
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    yield _text("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", sql.Identifier(database))


def _on(rights: str, tables: list[str], role: str) -> str:
    names = sql.SQL(", ").join(map(sql.Identifier, tables))
    return _text("GRANT {} ON {} TO {}", sql.SQL(rights), names, sql.Identifier(role))


def _text(statement: str, *parts: sql.Composable) -> str:
    return sql.SQL(statement).format(*parts).as_string(None) + ";"
