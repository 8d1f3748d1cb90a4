"""Writes messages' rows into one table, in one transaction: newest of equal keys, key order, COPY, upsert, counts.

Most rows are new and are copied straight into the table. If a key exists already (SQLSTATE 23505), the batch is copied
to a staging table and upserted from there, and so are the dataset's next batches: a replay then does not pay twice, and
leaves few dead rows behind.

When `Writer.write` returns, for each of its messages:

* all valid rows are committed, and each rejected one is a dead letter;
* the letter of a replayed row was deleted in the commit that wrote the row; if the row was refused again, it stays;
* a row changed what is stored only if it differs and its message was not enqueued before the stored row's;
* concurrent writers take their row locks in key order, and so never deadlock.

A row that Postgres itself refuses (SQLSTATE classes 22, 23, 54) is found by halving the batch until the row is alone.
Any other error of Postgres is raised as `DatabaseUnavailable`: nothing is acknowledged, and the caller tries again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.errors import UniqueViolation

from market_data_store import dead_letters
from market_data_store.datasets import Dataset
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import Reason
from market_data_store.postgres import attempts
from market_data_store.postgres.batch import Batch, DecodedMessage
from market_data_store.postgres.connection import unavailable
from market_data_store.postgres.statements import Statements, statements_of
from market_data_store.protocol import Counts

#: For a writer's session. The staging table has no statistics, and against a guess a hash join can look cheap that
#: reads the whole of a large table. Compiling a statement costs more than running it.
_SESSION = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; SET timezone = 'UTC'"

#: After a copy has met an existing key, the dataset's next batches are upserted before one is copied again: this many,
#: doubled each time up to the most.
_FIRST_UPSERTS = 4
_MOST_UPSERTS = 64

_Outcomes = list[tuple[int, int, int]] | None


@dataclass(slots=True)
class _Novelty:
    """Whether a dataset's next batch is likely to have only new rows."""

    _upserts_left: int = 0
    _penalty: int = _FIRST_UPSERTS

    @property
    def likely(self) -> bool:
        return self._upserts_left == 0

    def copied(self) -> None:
        self._penalty = _FIRST_UPSERTS

    def upserted(self) -> None:
        self._upserts_left -= 1

    def refuted(self) -> None:
        self._upserts_left = self._penalty
        self._penalty = min(self._penalty * 2, _MOST_UPSERTS)


class Writer:
    """Writes batches over one connection, which it opens when needed and reopens after a loss.

    Not thread-safe. Each public method raises `DatabaseUnavailable` when Postgres cannot do it now.
    """

    def __init__(self, url: str, *, connect_timeout_s: int = 5) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._connection: psycopg.Connection[Any] | None = None
        self._staged: set[str] = set()
        self._novelty: dict[str, _Novelty] = defaultdict(_Novelty)
        self._connected_before = False
        self._reconnected = False

    def write(self, dataset: Dataset, messages: Sequence[DecodedMessage]) -> list[Counts]:
        """Commit the messages' rows; returns the outcome of each message, in the order of `messages`.

        If it raises `DatabaseUnavailable`, some rows may be written, and writing all of them again is safe.
        """
        counts = [Counts(rejected=len(m.decoded.rejects)) for m in messages]
        letters = [
            m.refuse(reject.position, Reason(reject.reason, reject.pattern), reject.row)
            for m in messages
            for reject in m.decoded.rejects
        ]
        batch = Batch(dataset, messages, counts)
        with self._usable() as connection:
            self._write(connection, batch, range(len(batch.rows)), letters)
            # Replays of whole messages are settled last: by now each of their refused rows has its own letter.
            whole = [m.replays for m in messages if m.replays is not None and m.replays.whole]
            dead_letters.settle(connection, [(id_, replays.task_id) for replays in whole for id_ in replays.ids])
        return counts

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Commit dead letters for messages that are unusable as a whole."""
        with self._usable() as connection, connection.transaction():
            dead_letters.keep(connection, letters)

    def open_attempt(self, task_id: str) -> int:
        """Record that a message is processed alone; returns how many processes have died of it."""
        with self._usable() as connection:
            return attempts.open_attempt(connection, task_id, reconnected=self._reconnected)

    def close_attempt(self, task_id: str) -> None:
        """Record that the message did its process no harm."""
        with self._usable() as connection:
            attempts.close_attempt(connection, task_id)

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._staged.clear()

    @contextmanager
    def _usable(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, and close it after any error: a time limit may strike in the middle of a statement."""
        try:
            yield self._connected()
        except BaseException as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise unavailable(error) from error
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._staged.clear()
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=self._connect_timeout_s,
                client_encoding="utf8",
                application_name="market-data-store worker",
                # The loss of a host is noticed within 10 + 3 * 5 s, below the task's time limit.
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
            self._connection.execute(_SESSION)
            self._reconnected, self._connected_before = self._connected_before, True
        return self._connection

    def _stage(self, connection: psycopg.Connection[Any], dataset: Dataset) -> None:
        # Outside of the batch's transaction: the table must survive a rollback of the batch.
        if dataset.name not in self._staged:
            connection.execute(statements_of(dataset).stage)
            self._staged.add(dataset.name)

    def _write(
        self, connection: psycopg.Connection[Any], batch: Batch, rows: Sequence[int], letters: Sequence[DeadLetter]
    ) -> None:
        """Write these rows of the batch and the letters; halve the rows until each one that is refused is alone."""
        statements = statements_of(batch.dataset)
        novelty = self._novelty[batch.dataset.name]
        copies = novelty.likely
        if not copies:
            self._stage(connection, batch.dataset)
        try:
            with connection.transaction():
                outcome = None
                if rows:
                    outcome = (_copy if copies else _upsert)(connection, statements, batch, rows)
                dead_letters.keep(connection, letters)
                dead_letters.settle(connection, batch.replayed(rows))
        except psycopg.Error as error:
            if not _refuses_a_row(error):
                raise
            if copies and isinstance(error, UniqueViolation):
                novelty.refuted()
                self._write(connection, batch, rows, letters)
            elif len(rows) > 1:
                middle = len(rows) // 2
                self._write(connection, batch, rows[:middle], letters)
                self._write(connection, batch, rows[middle:], ())
            elif rows:
                refused = batch.refuse(rows[0], error)
                again = rows if batch.fall_back(rows[0]) else ()
                self._write(connection, batch, again, [*letters, refused])
            else:
                raise
        else:
            batch.count(rows, outcome)
            if copies:
                novelty.copied()
            else:
                novelty.upserted()


def _copy(connection: psycopg.Connection[Any], statements: Statements, batch: Batch, rows: Sequence[int]) -> _Outcomes:
    """Copy the rows; raises `UniqueViolation` if a key exists already, else returns None: every row was written."""
    with connection.cursor() as cursor, cursor.copy(statements.copy) as copy:
        copy.set_types(statements.types[:-1])
        for row in rows:
            copy.write_row(batch.rows[row])
    return None


def _upsert(
    connection: psycopg.Connection[Any], statements: Statements, batch: Batch, rows: Sequence[int]
) -> _Outcomes:
    """Upsert the rows; returns the outcomes by message (index, written, stale), or None if every row was written."""
    with connection.cursor() as cursor:
        with cursor.copy(statements.copy_to_stage) as copy:
            copy.set_types(statements.types)
            for row in rows:
                copy.write_row(batch.staged(row))
        cursor.execute(statements.upsert, prepare=True)
        if cursor.rowcount == len(rows):
            return None
        return cursor.execute(statements.outcomes, prepare=True).fetchall()


def _refuses_a_row(error: psycopg.Error) -> bool:
    # 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (a key too long, ...).
    return (error.sqlstate or "")[:2] in ("22", "23", "54")
