"""Connections to Postgres, and its errors in one line."""

from __future__ import annotations

from typing import Any

import psycopg

from market_data_store.config import without_password
from market_data_store.errors import DatabaseUnavailable


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect for a few statements, each committed by itself; raises `DatabaseUnavailable`, which names the server."""
    try:
        # Nothing is prepared: a pooler may give the next statement to another session.
        return psycopg.connect(url, autocommit=True, connect_timeout=5, client_encoding="utf8", prepare_threshold=None)
    except psycopg.ProgrammingError as error:  # libpq quotes what it cannot parse, including the password
        raise DatabaseUnavailable(f"{without_password(url)} is not a valid postgresql:// URL") from error
    except psycopg.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise DatabaseUnavailable(f"cannot connect to {without_password(url)}: {reason}") from error


def first_line(error: psycopg.Error) -> str:
    """Return Postgres's message in one line."""
    return error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """Convert an error on an open connection to one of ours."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        # psycopg's "COPY cannot be mixed with other operations": a session that was ended before a COPY gives it two
        # answers, its last words and its end.
        return DatabaseUnavailable("Postgres: the connection was lost")
    return DatabaseUnavailable(f"Postgres: {first_line(error)} (SQLSTATE {error.sqlstate or 'none'})")
