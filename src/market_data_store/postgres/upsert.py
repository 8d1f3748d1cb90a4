"""Upserts rows: looks which of them need writing, writes those, and says what became of each.

The rows are where Postgres can join them: in a temporary table that the transaction creates and drops, or, if there are
only a few, in the statements' parameters. Nothing outlives the transaction.

The look takes no locks, so another writer may be quicker. What the write returns was written, because its conditions
are checked under the rows' locks. A second look then classifies the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from market_data_store.postgres.batch import Batch
from market_data_store.postgres.casts import Cast
from market_data_store.postgres.copying import copy_rows
from market_data_store.postgres.parameters import keys_of, parameters_of
from market_data_store.postgres.statements import Statements, Upsert

#: Up to this many rows are sent as parameters: creating and dropping a table would cost more than it saves.
FEW_ROWS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of rows, by their numbers in the batch; the others are unchanged."""

    written: Collection[int]
    #: They differ from a stored row that is newer, by so many seconds.
    stale: Mapping[int, float] = field(default_factory=dict)


class RowsUnfit(Exception):
    """Rows have values that their columns cannot store; nothing was written.

    `rows` has for each of them the first such column and the cast to its type.
    """

    def __init__(self, rows: Mapping[int, tuple[str, Cast]]) -> None:
        super().__init__(f"{len(rows)} rows")
        self.rows = rows


def upsert(
    connection: psycopg.Connection[Any],
    statements: Statements,
    batch: Batch,
    rows: Sequence[int],
    *,
    look_first: bool,
) -> Outcome:
    """Write those of these rows that differ from the stored row and are not older; the caller has a transaction open.

    Raises `RowsUnfit` if a column is stored in another type than the declared one, which does not hold all values.

    With `look_first`, rows that need no writing are not even locked. Without it, and for a few rows, the look comes
    only after rows were not written: that is cheaper if most are.
    """
    with connection.cursor(binary=True) as cursor:
        if len(rows) <= FEW_ROWS:
            found = _Found(cursor, statements.listed, parameters_of(batch, rows))
            look_first = False
        else:
            cursor.execute(statements.stage)
            copy_rows(cursor, statements.copy_to_stage, batch.dataset, batch.columns(rows), numbers=rows)
            found = _Found(cursor, statements.staged, {})
        if unfit := unfit_rows(cursor, statements, found.statements, found.parameters):
            raise RowsUnfit(unfit)
        return _upserted(found, batch, rows, look_first=look_first)


def unfit_rows(
    cursor: psycopg.Cursor[Any], statements: Statements, where: Upsert, parameters: Mapping[str, Any]
) -> dict[int, tuple[str, Cast]]:
    """Return the rows in this place that do not fit, as `RowsUnfit` has them."""
    if where.unfit is None:
        return {}
    return {row: statements.casts[place] for row, place in cursor.execute(where.unfit, parameters).fetchall()}


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows in a place where Postgres finds them."""

    cursor: psycopg.Cursor[Any]
    statements: Upsert
    parameters: dict[str, Any]

    def look(self) -> tuple[set[int], dict[int, float]]:
        """Return the rows that equal the stored row, and those that differ from a newer one, by so many seconds."""
        self.cursor.execute(self.statements.look, self.parameters)
        unchanged: set[int] = set()
        stale: dict[int, float] = {}
        for differs, numbers, late in self.cursor.fetchall():
            if differs:
                stale = dict(zip(numbers, late, strict=True))
            else:
                unchanged = set(numbers)
        return unchanged, stale

    def write(self, only: list[int] | None) -> int:
        """Write these rows, or all; returns how many were written, and leaves their keys in the cursor."""
        self.cursor.execute(self.statements.write, {**self.parameters, "only": only})
        return self.cursor.rowcount


def _upserted(found: _Found, batch: Batch, rows: Sequence[int], *, look_first: bool) -> Outcome:
    unchanged, stale = found.look() if look_first else (set(), {})
    needed = [row for row in rows if row not in unchanged and row not in stale]
    if not needed or found.write(needed if len(needed) < len(rows) else None) == len(needed):
        return Outcome(needed, stale)
    numbers = dict(zip(keys_of(batch, needed), needed, strict=True))
    written = {numbers[key] for key in found.cursor.fetchall() if key in numbers}  # a trigger may change a key
    _, late = found.look()
    found_late = {row: late[row] for row in late.keys() & set(needed) - written}
    return Outcome(written, {**stale, **found_late})
