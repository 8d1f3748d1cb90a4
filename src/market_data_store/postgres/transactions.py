"""Transactions that wait for no lock longer than `LOCK_WAIT_S`, and the end of statements that are given up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

#: A statement that waits longer for a lock fails with 55P03. It must be shorter than the time in which an operator
#: should see that a table is locked, and than a task's time limits.
LOCK_WAIT_S = 5.0
#: The same where the last try found the table locked: whoever tries again occupies a process meanwhile.
LOCK_WAIT_AGAIN_S = 0.25
#: How long the server may take to accept that a statement is cancelled.
_CANCEL_S = 2.0


def begin(lock_wait_s: float = LOCK_WAIT_S) -> str:
    """Return the statements that begin a transaction.

    It is one round trip, as BEGIN alone would be, and 3 us more. The setting ends with the transaction, so a pooler may
    lend the session on.
    """
    return f"BEGIN; SET LOCAL lock_timeout = '{lock_wait_s * 1_000:.0f}ms'"


_BEGIN = begin()


@contextmanager
def transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Commit what the block does, or undo it after any exception, which is raised again.

    The connection must be in autocommit mode; `Connection.transaction` within the block makes a savepoint.
    """
    with ended(connection):
        connection.execute(_BEGIN)
        yield


@contextmanager
def ended(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Do what `transaction` does for a block that itself executes `begin`, and more in its round trip."""
    try:
        yield
        if connection.info.transaction_status is TransactionStatus.INERROR:
            raise RuntimeError("an error of Postgres was caught within the transaction")
    except BaseException:
        # In the middle of a statement there is nothing to send; whoever catches closes the connection.
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def close(connection: psycopg.Connection[Any]) -> None:
    """Close a connection, and cancel the statement that it may be running.

    A backend that waits for a lock does not look whether its client is still there.
    """
    if connection.info.transaction_status is TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_S)
    connection.close()
