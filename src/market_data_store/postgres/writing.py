"""Writes rows of a batch and letters in one transaction: by COPY where they are likely to be new, else by an upsert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg

from market_data_store import dead_letters
from market_data_store.errors import LettersUnavailable
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.copying import copy_rows
from market_data_store.postgres.failures import is_the_servers
from market_data_store.postgres.found import Table, Tables
from market_data_store.postgres.memory import Memory
from market_data_store.postgres.refusals import Refusal
from market_data_store.postgres.transactions import transaction
from market_data_store.postgres.upsert import Outcome, are_new, upsert


class _SomeDropped(Exception):
    """A trigger dropped some of the copied rows; COPY does not say which."""


def write_rows(
    connection: psycopg.Connection[Any],
    tables: Tables,
    batch: Batch,
    rows: Sequence[int],
    refusals: Sequence[Refusal],
    memory: Memory,
    *,
    copies: bool = False,
) -> None:
    """Commit these rows of the batch and these letters, and count them.

    Raises Postgres's error if it refuses the rows, `RowsUnfit` or `RowsDropped`; nothing is committed then. If only the
    letters cannot be kept, the rows are committed, and the batch notes which messages have to wait for their letters.
    `LettersUnavailable` is raised if there are replayed rows, of which the letters would have to go.
    """
    novelty = memory.novelty
    outcome = Outcome(())
    trouble: LettersUnavailable | None = None
    ids: list[int | None] = []
    chosen = batch.letters.chosen(refusals)
    copied = False
    opened: AbstractContextManager[Table | None]
    opened = tables.transaction(connection, batch.dataset) if rows else transaction(connection)
    try:
        with opened as table:
            if table is not None and copies and table.copies and _are_new(connection, table, batch, rows, memory):
                copied = True
                outcome = _copied(connection, table, batch, rows)
            elif table is not None:
                outcome = upsert(connection, table.statements, batch, rows, look_first=not novelty.changing)
            try:
                if refusals and not batch.keeps_letters:
                    raise LettersUnavailable
                if refusals:
                    with letters_kept(connection), connection.transaction():
                        ids = dead_letters.keep(connection, chosen.letters)
                        if chosen.replaced:
                            dead_letters.purge(connection, ids=chosen.replaced, dataset=None)
            except LettersUnavailable as error:
                trouble = error
            else:
                with letters_kept(connection):
                    dead_letters.settle(connection, batch.replayed(rows))
    except _SomeDropped:
        novelty.refuted()
        write_rows(connection, tables, batch, rows, refusals, memory)
        return
    except psycopg.Error as error:
        if copied:
            novelty.refuted()
            if _is_of_copy(error):
                write_rows(connection, tables, batch, rows, refusals, memory)
                return
        raise
    if rows:
        memory.wrote()
    if trouble is None:
        batch.kept(refusals, chosen, ids)
        if memory.refused:
            memory.settled([dead_letters.origin_of(letter) for _, letter in refusals])
    elif batch.replayed(rows):
        raise trouble
    else:
        batch.wait_for_letters(refusals, trouble)
    batch.count(rows, written=outcome.written, stale=outcome.stale)
    if copied:
        novelty.copied()
    elif rows:
        novelty.upserted(every_row=len(outcome.written) == len(rows))


@contextmanager
def letters_kept(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Raise `LettersUnavailable` where the table of dead letters is in trouble, and not the server."""
    try:
        yield
    except psycopg.Error as error:
        if connection.broken or is_the_servers(error):
            raise
        raise LettersUnavailable(error.sqlstate, first_line(error)) from error


def _are_new(
    connection: psycopg.Connection[Any], table: Table, batch: Batch, rows: Sequence[int], memory: Memory
) -> bool:
    if not memory.novelty.doubted:
        return True
    with connection.cursor(binary=True) as cursor:
        new = are_new(cursor, table.statements, batch, rows)
    if not new:
        memory.novelty.seen()
    return new


def _copied(connection: psycopg.Connection[Any], table: Table, batch: Batch, rows: Sequence[int]) -> Outcome:
    """Copy the rows as new ones; raises `_SomeDropped`, or the error of Postgres if a key exists already."""
    with connection.cursor() as cursor:
        kept = copy_rows(cursor, table.statements.copy, batch.dataset, batch.columns(rows))
    if kept != len(rows):
        raise _SomeDropped
    return Outcome(rows)


def _is_of_copy(error: psycopg.Error) -> bool:
    # A key that exists already; on Citus that is XX000. An upsert shows whether something else is wrong.
    return error.sqlstate is not None and (error.sqlstate == "23505" or error.sqlstate.startswith("XX"))
