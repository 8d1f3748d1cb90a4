"""Writes messages' rows into one table, in one transaction: newest of equal keys, key order, COPY or upsert, counts.

A large message takes several transactions (see `portions`).

Most rows are new and are copied straight into the table. If that fails, most often because a key exists already, the
batch is upserted (see `upsert`), and so are the dataset's next batches: a replay then does not pay twice, and leaves
few dead rows behind.

When `Writer.write` returns, for each of its messages:

* all valid rows are committed, and each rejected one is a dead letter, unless `Written.waiting` says otherwise;
* the letter of a replayed row was deleted in the commit that wrote the row; if the row was refused again, it stays;
* a row changed what is stored only if it differs and its message was not enqueued before the stored row's;
* concurrent writers take their row locks in key order, and so never deadlock (on one server: Citus may end one of them,
  and its rows are written at the next try).

Whose fault a failure is, `resolving` and `fatal_rows` find out by experiment (docs/failures.md); a row that does not
fit a column of another type than the declared one is found by one statement (see `found`). The dataset's is raised as
`DatasetUnavailable`, the server's as `DatabaseUnavailable`: the caller acknowledges nothing and tries again.

The writer keeps no settings, tables or prepared statements in its session, and works behind a pooler that gives each
transaction another session.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.dead_letters import DeadLetter, signing
from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable, MessagesSuspected, PartitionsMissing
from market_data_store.postgres import added_columns, first_takes
from market_data_store.postgres.batch import Batch, Written
from market_data_store.postgres.connection import unavailable
from market_data_store.postgres.failures import FEW_TRIES, Cause, is_the_servers, may_be_a_rows
from market_data_store.postgres.fatal_rows import find_fatal_rows, what_goes_in
from market_data_store.postgres.found import Tables
from market_data_store.postgres.gaps import NO_PARTITION, Gaps
from market_data_store.postgres.memory import Memory
from market_data_store.postgres.messages import DecodedMessage
from market_data_store.postgres.parameters import adapt
from market_data_store.postgres.portions import write_portions
from market_data_store.postgres.transactions import close, transaction
from market_data_store.postgres.writing import letters_kept
from market_data_store.wire.columns import DecodedRows

logger = logging.getLogger(__name__)


class Writer:
    """Writes batches over one connection, which it opens when needed and reopens after a loss.

    Not thread-safe. Each public method raises `DatabaseUnavailable` when Postgres cannot do it now.
    """

    def __init__(self, url: str, *, connect_timeout_s: int = 5) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._connection: psycopg.Connection[Any] | None = None
        self._memories: dict[str, Memory] = defaultdict(Memory)
        self._tables = Tables()
        self._gaps = Gaps()
        self._said: set[str] = set()
        #: How many letters and rows of the last batch are done. If it is written again, they come first again.
        self.reached = 0

    def write(
        self,
        decoded: DecodedRows,
        messages: Sequence[DecodedMessage],
        *,
        keeps_letters: bool = True,
        resumed_at: int | None = None,
    ) -> Written:
        """Commit the messages' decoded rows; returns the outcome of each message, in the order of `messages`.

        Without `keeps_letters`, the messages that need a letter wait for it, see `Written.waiting`. `resumed_at` is
        the `reached` of the turn before that was ended in the middle, 0 if unknown.

        If it raises `DatabaseUnavailable`, some rows may be written, and writing all of them again is safe.
        """
        self.reached = 0
        batch = Batch(decoded, messages, keeps_letters=keeps_letters)
        memory = self._memories[decoded.dataset.name]
        memory.begin(message.task_id for message in messages)
        if len(messages) > 1 and memory.tries.failures >= FEW_TRIES:
            what_goes_in(self._usable, self._tables, batch, memory)
            raise MessagesSuspected(
                f"{batch.dataset.name}: {len(messages)} messages fail together; each is tried alone"
            )
        if memory.tries.are_many:
            find_fatal_rows(self._usable, self._tables, batch, memory)
        with self._usable() as connection:
            if far := self._gaps.check(connection, batch):
                batch.leave_out(far, NO_PARTITION)
            try:
                for count in write_portions(connection, self._tables, batch, memory, resumed_at):
                    self.reached = count
            except PartitionsMissing as error:
                self._gaps.forget(batch.dataset.name)
                self._gaps.check(connection, batch)
                raise PartitionsMissing(  # it is there again
                    error.dataset, error.sqlstate, error.reason, frozenset(range(len(messages)))
                ) from error
            except (psycopg.Error, ValueError) as error:
                if not isinstance(error, psycopg.Error) or may_be_a_rows(error):
                    memory.failed()
                raise
            # Replays of whole messages are settled last: by now each of their refused rows has its own letter, unless
            # the letter of the message stays.
            written = batch.written()
            left = written.waiting.keys() | batch.letters.wholes.keys()
            done = [message for index, message in enumerate(messages) if index not in left]
            whole = [m.replays for m in done if m.replays is not None and m.replays.whole]
            with letters_kept(connection):
                dead_letters.settle(connection, [(id_, replays.task_id) for replays in whole for id_ in replays.ids])
        memory.wrote_all()
        return written

    def keep(self, letters: Sequence[DeadLetter]) -> list[int | None]:
        """Commit dead letters for messages that are unusable as a whole; returns the id of each."""
        with self._usable() as connection, letters_kept(connection), transaction(connection):
            return dead_letters.keep(connection, letters)

    def time(self) -> float:
        """Return Postgres's time, in epoch seconds."""
        with self._usable() as connection:
            ((now,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
        return float(now)

    def first_takes(self, task_ids: Collection[str]) -> dict[str, float]:
        """Return when these messages were first taken, in epoch seconds, as far as that is remembered."""
        with self._usable() as connection, transaction(connection):
            return first_takes.read(connection, task_ids)

    def remember_takes(self, takes: Mapping[str, float], done: Collection[str]) -> None:
        """Remember when messages were first taken, by task id, and forget those that are done."""
        with self._usable() as connection, self._without("first_takes", connection), transaction(connection):
            first_takes.remember(connection, takes, done)

    def replay_keys(self) -> list[str]:
        """Return the keys that sign replays; none, which is logged once, where they cannot be read."""
        with self._usable() as connection, self._without("replay_keys", connection), transaction(connection):
            return signing.keys(connection)
        return []

    def added_columns(self) -> added_columns.Added:
        """Return the columns that were added for unknown fields; none, which is logged once, if they cannot be read."""
        with self._usable() as connection, self._without("added_columns", connection), transaction(connection):
            return added_columns.read(connection)
        return {}

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        if self._connection is not None:
            close(self._connection)
        self._connection = None
        self._tables.forget()
        self._gaps.forget()

    @contextmanager
    def _usable(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, and close it after an error: a time limit may strike in the middle of a statement."""
        try:
            yield self._connected()
        except DatasetUnavailable:
            raise  # the transaction was undone or committed before
        except BaseException as error:
            broken = self._connection is not None and self._connection.broken
            self.close()
            if isinstance(error, psycopg.Error):
                raise unavailable(error) from error
            if broken and isinstance(error, ValueError):  # psycopg's, when a pooler ends a COPY
                raise DatabaseUnavailable("Postgres: the connection was lost") from error
            raise

    @contextmanager
    def _without(self, table: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Go on without a table that only helps, where it is in trouble and not the server; log that once."""
        try:
            yield
        except psycopg.Error as error:
            if connection.broken or is_the_servers(error):
                raise
            if table not in self._said:
                logger.warning("%s: going on without this table: %s", table, Cause.of(error))
            self._said.add(table)
        else:
            self._said.discard(table)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._new_connection()
            adapt(self._connection.adapters)
        return self._connection

    def _new_connection(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=self._connect_timeout_s,
                prepare_threshold=None,
                client_encoding="utf8",
                application_name="mds-worker",
                # The loss of a host is noticed within 10 + 3 * 5 s, below the task's time limit.
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
        except psycopg.ProgrammingError as error:  # libpq quotes what it cannot parse, including the password
            raise DatabaseUnavailable("DATABASE_URL is not a valid postgresql:// URL") from error
