"""Transactions that wait for no lock longer than `LOCK_WAIT_S`, and the end of statements that are given up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

#: A statement that waits longer for a lock fails with 55P03. It must be shorter than the time in which an operator
#: should see that a table is locked, and than a task's time limits.
LOCK_WAIT_S = 5
#: How long the server may take to accept that a statement is cancelled.
_CANCEL_S = 2.0

#: One round trip, as BEGIN alone would be, and 3 us more. The setting ends with the transaction, so a pooler may lend
#: the session on.
BEGIN = f"BEGIN; SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'"


@contextmanager
def transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Commit what the block does, or undo it after any exception, which is raised again.

    The connection must be in autocommit mode; `Connection.transaction` within the block makes a savepoint.
    """
    with ended(connection):
        connection.execute(BEGIN)
        yield


@contextmanager
def ended(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Do what `transaction` does for a block that itself begins with `BEGIN`, and with more in its round trip."""
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
