"""Databases of the session's Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from market_data_store.postgres import schema

Connection = psycopg.Connection[tuple[Any, ...]]

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"


def database_at(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


@contextmanager
def new_database(postgres_url: str, template: str = "template1") -> Iterator[str]:
    """The URL of a database for the length of a block; without a template it is empty and not migrated."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        # Copied as files, since fsync is off; by way of the log takes longer.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield database_at(postgres_url, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def take_down(url: str, revision: str) -> None:
    """Undo migrations down to a revision."""
    while schema.downgrade(url)[1].current != revision:
        pass


def empty(database: Connection) -> None:
    """Delete every row of a migrated database; ids begin at 1 again."""
    # Not TRUNCATE, which makes new files and takes fifty times as long for a few rows.
    for (name,) in database.execute(_TABLES).fetchall():
        database.execute(f"DELETE FROM {name}")
    database.execute("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'")
