"""Writes messages' rows into one table, in one transaction: newest of equal keys, key order, COPY or upsert, counts.

Most rows are new and are copied straight into the table. If that fails, most often because a key exists already, the
batch is upserted (see `upsert`), and so are the dataset's next batches: a replay then does not pay twice, and leaves
few dead rows behind.

When `Writer.write` returns, for each of its messages:

* all valid rows are committed, and each rejected one is a dead letter;
* the letter of a replayed row was deleted in the commit that wrote the row; if the row was refused again, it stays;
* a row changed what is stored only if it differs and its message was not enqueued before the stored row's;
* concurrent writers take their row locks in key order, and so never deadlock (on one server: Citus may end one of them,
  and its rows are written at the next try).

A row that Postgres itself refuses (SQLSTATE classes 22, 23, 54) is found by halving the batch until the row is alone. A
batch that exceeds a limit of the server (53400) is halved too.
A row that does not fit a column of another type than the declared one is found by one statement (see `found`).
Any other error of Postgres is raised as `DatabaseUnavailable`: nothing is acknowledged, and the caller tries again.

The writer keeps no settings, tables or prepared statements in its session, and works behind a pooler that gives each
transaction another session.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.dead_letters import DeadLetter
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import attempts, first_takes
from market_data_store.postgres.batch import Batch, DecodedMessage, Refusal, Written
from market_data_store.postgres.connection import unavailable
from market_data_store.postgres.copying import copy_rows
from market_data_store.postgres.found import Table, Tables
from market_data_store.postgres.parameters import adapt
from market_data_store.postgres.upsert import Outcome, RowsUnfit, upsert
from market_data_store.wire.columns import DecodedRows

#: After a copy has failed, the dataset's next batches are upserted before one is copied again: this many, doubled each
#: time up to the most.
_FIRST_UPSERTS = 4
_MOST_UPSERTS = 64
#: SQLSTATE classes of errors that do not depend on the rows: connection, transaction state, deadlock, resources, locks,
#: shutdown and cancelled statements, I/O. An upsert of the same rows would fail in the same way.
_SERVER_ERRORS = frozenset({"08", "25", "40", "53", "55", "57", "58"})


@dataclass(slots=True)
class _Novelty:
    """What a dataset's next batch is likely to hold."""

    #: Whether the last upsert wrote every row; then the next one is likely to.
    changing: bool = False
    #: Whether a copy failed after an upsert that had written every row: the rows change, they are not new.
    _rewritten: bool = False
    _upserts_left: int = 0
    _penalty: int = _FIRST_UPSERTS

    @property
    def likely(self) -> bool:
        """Whether every row is likely to be new."""
        return self._upserts_left == 0

    def copied(self) -> None:
        self._penalty = _FIRST_UPSERTS
        self._rewritten = False

    def upserted(self, *, every_row: bool) -> None:
        self.changing = every_row
        # If every row was written, all were new or all have changed. A copy shows which.
        self._upserts_left = 0 if every_row and not self._rewritten else max(self._upserts_left - 1, 0)

    def refuted(self) -> None:
        self._rewritten = self.changing
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
        self._novelty: dict[str, _Novelty] = defaultdict(_Novelty)
        self._tables = Tables()
        self._connected_before = False
        self._reconnected = False

    def write(self, decoded: DecodedRows, messages: Sequence[DecodedMessage]) -> Written:
        """Commit the messages' decoded rows; returns the outcome of each message, in the order of `messages`.

        If it raises `DatabaseUnavailable`, some rows may be written, and writing all of them again is safe.
        """
        batch = Batch(decoded, messages)
        with self._usable() as connection:
            copies = self._novelty[decoded.dataset.name].likely
            self._write(connection, batch, range(len(batch)), batch.refusals, copies=copies)
            # Replays of whole messages are settled last: by now each of their refused rows has its own letter.
            whole = [m.replays for m in messages if m.replays is not None and m.replays.whole]
            dead_letters.settle(connection, [(id_, replays.task_id) for replays in whole for id_ in replays.ids])
        return batch.written()

    def keep(self, letters: Sequence[DeadLetter]) -> list[int | None]:
        """Commit dead letters for messages that are unusable as a whole; returns the id of each."""
        with self._usable() as connection, connection.transaction():
            return dead_letters.keep(connection, letters)

    def open_attempt(self, task_id: str) -> int:
        """Record that a message is processed alone; returns how many processes have died of it."""
        with self._usable() as connection:
            return attempts.open_attempt(connection, task_id, reconnected=self._reconnected)

    def close_attempt(self, task_id: str) -> None:
        """Record that the message did its process no harm."""
        with self._usable() as connection:
            attempts.close_attempt(connection, task_id)

    def time(self) -> float:
        """Return Postgres's time, in epoch seconds."""
        with self._usable() as connection:
            ((now,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
        return float(now)

    def first_takes(self, task_ids: Collection[str]) -> dict[str, float]:
        """Return when these messages were first taken, in epoch seconds, as far as that is remembered."""
        with self._usable() as connection:
            return first_takes.read(connection, task_ids)

    def remember_takes(self, takes: Mapping[str, float], done: Collection[str]) -> None:
        """Remember when messages were first taken, by task id, and forget those that are done."""
        with self._usable() as connection:
            first_takes.remember(connection, takes, done)

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._tables.forget()

    @contextmanager
    def _usable(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, and close it after any error: a time limit may strike in the middle of a statement."""
        try:
            yield self._connected()
        except BaseException as error:
            broken = self._connection is not None and self._connection.broken
            self.close()
            if isinstance(error, psycopg.Error):
                raise unavailable(error) from error
            if broken and isinstance(error, ValueError):  # psycopg's, when a pooler ends a COPY
                raise DatabaseUnavailable("Postgres: the connection was lost") from error
            raise

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=self._connect_timeout_s,
                prepare_threshold=None,
                client_encoding="utf8",
                application_name="market-data-store worker",
                # The loss of a host is noticed within 10 + 3 * 5 s, below the task's time limit.
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
            adapt(self._connection.adapters)
            self._reconnected, self._connected_before = self._connected_before, True
        return self._connection

    def _write(
        self,
        connection: psycopg.Connection[Any],
        batch: Batch,
        rows: Sequence[int],
        refusals: Sequence[Refusal],
        *,
        copies: bool,
    ) -> None:
        """Write these rows of the batch, halved until each row that Postgres refuses is alone, and these refusals."""
        novelty = self._novelty[batch.dataset.name]
        outcome = Outcome(())
        copied = False
        try:
            with self._tables.transaction(connection, batch.dataset if rows else None) as table:
                if table is not None and copies and table.copies:
                    copied = True
                    outcome = _copied(connection, table, batch, rows)
                elif table is not None:
                    look_first = not novelty.changing
                    outcome = upsert(connection, table.statements, batch, rows, look_first=look_first)
                ids = dead_letters.keep(connection, [letter for _, letter in refusals])
                dead_letters.settle(connection, batch.replayed(rows))
        except _RowsDropped:
            novelty.refuted()
            self._write(connection, batch, rows, refusals, copies=False)
        except RowsUnfit as unfit:
            refused = batch.refuse_unfit(unfit.rows)
            rest = [row for row in rows if row not in unfit.rows or batch.fall_back(row)]
            self._write(connection, batch, rest, [*refusals, *refused], copies=False)
        except psycopg.Error as error:
            # On Citus a duplicate key is XX000 for COPY: only the upsert shows whether a row is at fault.
            if copied and not _is_the_servers(error):
                self._tables.forget()
                novelty.refuted()
                self._write(connection, batch, rows, refusals, copies=False)
            elif not (_refuses_a_row(error) or (_is_too_much(error) and len(rows) > 1)):
                raise
            elif len(rows) > 1:
                middle = len(rows) // 2
                self._write(connection, batch, rows[:middle], refusals, copies=False)
                self._write(connection, batch, rows[middle:], (), copies=False)
            elif rows:
                refusal = batch.refuse(rows[0], error)
                again = rows if batch.fall_back(rows[0]) else range(0)
                self._write(connection, batch, again, [*refusals, refusal], copies=False)
            else:
                raise
        else:
            batch.kept(refusals, ids)
            batch.count(rows, written=outcome.written, stale=outcome.stale)
            if copied:
                novelty.copied()
            elif rows:
                novelty.upserted(every_row=len(outcome.written) == len(rows))


class _RowsDropped(Exception):
    """A trigger dropped some of the copied rows; COPY does not say which."""


def _copied(connection: psycopg.Connection[Any], table: Table, batch: Batch, rows: Sequence[int]) -> Outcome:
    """Copy the rows as new ones; raises `_RowsDropped`, or the error of Postgres if a key exists already."""
    with connection.cursor() as cursor:
        kept = copy_rows(cursor, table.statements.copy, batch.dataset, batch.columns(rows))
    if kept != len(rows):
        raise _RowsDropped
    return Outcome(rows)


def _is_the_servers(error: psycopg.Error) -> bool:
    return error.sqlstate is None or error.sqlstate[:2] in _SERVER_ERRORS


def _is_too_much(error: psycopg.Error) -> bool:
    # Fewer rows at once may pass: TimescaleDB limits how many compressed rows one statement may decompress.
    return error.sqlstate == "53400"


def _refuses_a_row(error: psycopg.Error) -> bool:
    # 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (a key too long, ...).
    return (error.sqlstate or "")[:2] in ("22", "23", "54")
