"""Connections to Postgres, and what its errors say in one line."""

from __future__ import annotations

from typing import Any

import psycopg

from market_data_store.config import without_password
from market_data_store.errors import DatabaseUnavailable


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection for a few statements, each committed; raises `DatabaseUnavailable` that names the server."""
    try:
        return psycopg.connect(url, autocommit=True, connect_timeout=5, client_encoding="utf8")
    except psycopg.ProgrammingError as error:  # libpq repeats what it cannot parse, password and all
        raise DatabaseUnavailable(f"{without_password(url)} is no URL of Postgres that can be read") from error
    except psycopg.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise DatabaseUnavailable(f"cannot connect to {without_password(url)}: {reason}") from error


def first_line(error: psycopg.Error) -> str:
    """What Postgres said, in a line."""
    return error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """Postgres's error as one of ours, without a URL that may hold a password."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        # libpq repeats what it cannot parse, password and all.
        return DatabaseUnavailable("DATABASE_URL is no URL of Postgres that can be read")
    return DatabaseUnavailable(f"Postgres: {first_line(error)} (SQLSTATE {error.sqlstate or 'none'})")
