"""Finds the rows that end their session, or fail with a code of the server's, while others go in.

Such a failure looks like an outage, and is retried like one. Only a batch that has failed again and again is searched:
by halving, each part committed by itself, on whatever connection there is. Before each part, a copy of a stored row
must go in, and a row is at fault only after it has failed alone several times. So an outage makes no dead letter, for
nothing goes in then, and neither does a server that loses a session now and then.

How far the search has got is remembered, for a row that crashes its backend takes the whole server down for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.experiment import try_rows
from market_data_store.postgres.failures import (
    CONNECTION_LOST,
    TRIES_ALONE,
    Cause,
    Fault,
    Others,
    is_the_servers,
    may_be_a_rows,
    whose,
)
from market_data_store.postgres.found import Tables
from market_data_store.postgres.memory import Memory, Suspects
from market_data_store.postgres.upsert import RowsDropped, RowsUnfit, upsert

#: Yields an open connection, and replaces it after an error.
Usable = Callable[[], AbstractContextManager[psycopg.Connection[Any]]]


def find_fatal_rows(usable: Usable, tables: Tables, batch: Batch, memory: Memory) -> None:
    """Search the batch, and remember its fatal rows in `memory.refused`; raises `DatabaseUnavailable`."""
    if not memory.tries.suspects:
        memory.tries.suspects.append(Suspects(range(len(batch)), guilty=True))
    while memory.tries.suspects:
        _step(usable, tables, batch, memory, memory.tries.suspects[-1])
    memory.wrote_all()


def _step(usable: Usable, tables: Tables, batch: Batch, memory: Memory, part: Suspects) -> None:
    rest = memory.tries.suspects
    if part.guilty and len(part.rows) > 1:
        middle = len(part.rows) // 2
        rest[-1:] = [Suspects(part.rows[middle:], guilty_if_not_before=True), Suspects(part.rows[:middle])]
        return
    others = what_goes_in(usable, tables, batch, memory)
    cause = _failure(usable, tables, batch, part)
    if cause is None:
        rest.pop()
        if rest and rest[-1].guilty_if_not_before:
            rest[-1].guilty = True
        return
    part.guilty = True
    part.tries += 1
    if len(rest) > 1:
        rest[-2].guilty_if_not_before = False
    if len(part.rows) > 1 or part.tries < TRIES_ALONE:
        return
    rest.pop()
    if whose(cause, batch.dataset, others, 1) is not Fault.ROW:
        raise DatabaseUnavailable(f"Postgres: {cause}")
    (refusal,) = batch.refuse({part.rows[0]: cause}).values()
    memory.refuse({dead_letters.origin_of(refusal.letter): cause})


def what_goes_in(usable: Usable, tables: Tables, batch: Batch, memory: Memory) -> Others:
    """Return what goes in besides; raises `DatabaseUnavailable` if not even a copy of a stored row does."""
    with usable() as connection:
        found = try_rows(connection, tables, batch, ())
    if found.copys_cause is not None:
        raise DatabaseUnavailable(f"Postgres: {found.copys_cause}")
    if found.copy_goes_in:
        return Others.A_COPY
    return Others.ROWS if memory.others_went_in else Others.UNKNOWN


def _failure(usable: Usable, tables: Tables, batch: Batch, part: Suspects) -> Cause | None:
    """Try to commit these rows; returns why that failed like an outage."""
    try:
        with usable() as connection:
            _upsert_fitting(connection, tables, batch, part.rows)
    except DatasetUnavailable:
        raise
    except DatabaseUnavailable as error:
        cause = error.__cause__
        if not isinstance(cause, psycopg.Error):  # psycopg's ValueError for a connection that is lost
            return Cause(CONNECTION_LOST, "the connection was lost")
        if may_be_a_rows(cause):
            return Cause.of(cause)
        if is_the_servers(cause):
            raise
    return None  # whatever else there is, an experiment finds


def _upsert_fitting(connection: psycopg.Connection[Any], tables: Tables, batch: Batch, rows: Sequence[int]) -> None:
    """Commit these rows but those that do not fit, which Postgres never sees, or that a trigger drops."""
    try:
        with tables.transaction(connection, batch.dataset) as table:
            upsert(connection, table.statements, batch, rows, look_first=False)
    except (RowsUnfit, RowsDropped) as left_out:
        if rest := [row for row in rows if row not in left_out.rows]:
            _upsert_fitting(connection, tables, batch, rest)
