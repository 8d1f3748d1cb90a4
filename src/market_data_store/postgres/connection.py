"""Connections to Postgres, and its errors in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from market_data_store.connections.names import process_name, refused_for_number
from market_data_store.connections.urls import without_password
from market_data_store.errors import DatabaseUnavailable

#: Seconds between two tries of `wait_for_server`, and between its lines.
_TRY_INTERVAL_S = 1.0
_SAY_INTERVAL_S = 10.0


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect for a few statements, each committed by itself; raises `DatabaseUnavailable`, which names the server."""
    try:
        # Nothing is prepared: a pooler may give the next statement to another session.
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=5,
            client_encoding="utf8",
            prepare_threshold=None,
            fallback_application_name=process_name(),
        )
    except psycopg.ProgrammingError as error:  # libpq quotes what it cannot parse, including the password
        raise DatabaseUnavailable(f"{without_password(url)} is not a valid postgresql:// URL") from error
    except psycopg.Error as error:
        reason = refused_for_number(error) or str(error).strip().partition("\n")[0]
        raise DatabaseUnavailable(f"cannot connect to {without_password(url)}: {reason}") from error


def wait_for_server(url: str, timeout_s: float, say: Callable[[str], None]) -> None:
    """Try to connect until the server answers; raises `DatabaseUnavailable` after the last try.

    `say` gets a line at the first failure, and every 10 s.
    """
    until = time.monotonic() + timeout_s
    say_at = time.monotonic()
    while True:
        try:
            return connect(url).close()
        except DatabaseUnavailable as error:
            left_s = until - time.monotonic()
            if left_s <= 0.0:
                raise
            if time.monotonic() >= say_at:
                say(f"{error}; trying for another {left_s:.0f} s")
                say_at = time.monotonic() + _SAY_INTERVAL_S
            time.sleep(min(_TRY_INTERVAL_S, left_s))


def first_line(error: psycopg.Error) -> str:
    """Return Postgres's message in one line."""
    return error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__


def unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    """Convert an error on an open connection to one of ours."""
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        # psycopg's "COPY cannot be mixed with other operations": a session that was ended before a COPY gives it two
        # answers, its last words and its end.
        return DatabaseUnavailable("Postgres: the connection was lost")
    if (refusal := refused_for_number(error)) is not None:
        return DatabaseUnavailable(refusal)
    return DatabaseUnavailable(f"Postgres: {first_line(error)} (SQLSTATE {error.sqlstate or 'none'})")
