"""Writes a batch in portions, each committed by itself, so that a turn that is ended keeps what it has done.

Most batches are one portion. A large message is several. A message that is resumed, because a turn of it was ended,
begins with a small portion; the next ones are larger while they are quick. Its rows that are stored already are only
looked at, and those that have a letter are left out. So it advances however little fits into a turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from market_data_store.errors import DatasetUnavailable, LettersUnavailable
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.failures import TIMELY
from market_data_store.postgres.found import Tables
from market_data_store.postgres.memory import Memory
from market_data_store.postgres.resolving import recall, write_some
from market_data_store.postgres.writing import write_rows

#: The most rows and the most letters of a portion. 20,000 new rows take 0.2 s.
MOST_ROWS = 20_000
_MOST_LETTERS = 5_000
#: The first portion of what a turn did not get to: so few rows that they fit into a turn even if each takes a second,
#: and more than `upsert.FEW_ROWS`, so that those that are stored already are looked at first.
_FIRST_ROWS = 25
#: The most rows of the portions after that.
_MOST_RESUMED = 1_000
#: After a portion that took fewer seconds the next is twice as large, after one that took more it is half as large.
_QUICK_S, _SLOW_S = 2.0, 10.0


def write_portions(
    connection: psycopg.Connection[Any], tables: Tables, batch: Batch, memory: Memory, resumed_at: int | None
) -> Iterator[int]:
    """Commit the batch; yields after each portion how many of its letters and rows are done.

    `resumed_at` is None, or what was yielded last before a turn was ended, as far as that is known. Raises as
    `resolving.write_some`; what was yielded before is done.
    """
    if resumed_at is not None:
        memory.novelty.resumed()
        recall(connection, batch, memory)
    done, refusals = 0, batch.refusals
    while len(refusals) > _MOST_LETTERS:
        write_rows(connection, tables, batch, (), refusals[:_MOST_LETTERS], memory)
        refusals = refusals[_MOST_LETTERS:]
        done += _MOST_LETTERS
        yield done
    done += len(refusals)
    start, size, most = 0, MOST_ROWS, MOST_ROWS
    known = 0 if resumed_at is None else resumed_at - done
    if resumed_at is not None:
        size, most = _FIRST_ROWS, _MOST_RESUMED
    while True:
        rows = range(start, min(start + MOST_ROWS, known) if start < known else start + size)[: len(batch) - start]
        began = time.monotonic()
        try:
            write_some(connection, tables, batch, rows, refusals, memory, recalled=resumed_at is not None)
        except DatasetUnavailable as error:
            if len(rows) == len(batch) or error.sqlstate in TIMELY or isinstance(error, LettersUnavailable):
                raise
            # Perhaps others of the message go in, and the rows are at fault.
            batch.begin_again()
            recall(connection, batch, memory)
            rows = range(len(batch))
            write_some(connection, tables, batch, rows, batch.refusals, memory, recalled=True)
        yield done + rows.stop
        if rows.stop == len(batch):
            return
        took = time.monotonic() - began
        if start < known:
            pass
        elif took < _QUICK_S:
            size = min(2 * size, most)
        elif took > _SLOW_S:
            size = max(size // 2, 1)
        start, refusals = rows.stop, []
