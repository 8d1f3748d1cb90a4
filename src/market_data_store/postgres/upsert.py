"""Upserts rows: looks which of them need writing, writes those, and says what became of each.

The rows are where Postgres can join them: in a temporary table that the transaction creates and drops, or, if there are
only a few, in the statements' parameters. Nothing outlives the transaction.

The look takes no locks, so another writer may be quicker. What the write returns was written, because its conditions
are checked under the rows' locks. A second look then classifies the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.postgres.batch import Batch
from market_data_store.postgres.casts import TYPE_NAMES, Cast
from market_data_store.postgres.copying import copy_rows
from market_data_store.postgres.failures import Cause
from market_data_store.postgres.parameters import keys_of, parameters_of
from market_data_store.postgres.statements import Statements, Upsert

#: Up to this many rows are sent as parameters: creating and dropping a table would cost more than it saves.
FEW_ROWS = 20
#: So many keys are looked for to tell rows that are new from others. It takes 0.4 ms.
_SAMPLE = 8
#: The code for a statement that writes no row.
_NO_DATA = "02000"


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

    def cause_in(self, table: str) -> Cause:
        """Return why they do not fit this table: its columns with their types and the declared ones."""
        casts = dict(self.rows.values())
        reason = ", ".join(
            f"{table}.{name} is {cast.stored.name}; the store needs {TYPE_NAMES[cast.declared]}"
            for name, cast in casts.items()
        )
        column, cast = next(iter(casts.items()))
        return Cause(cast.sqlstate, reason, table, column)


class RowsDropped(Exception):
    """Triggers dropped rows; nothing was written. `rows` has for each of them why it is not stored."""

    def __init__(self, rows: Collection[int], table: str) -> None:
        super().__init__(f"{len(rows)} rows")
        self.rows = dict.fromkeys(rows, Cause(_NO_DATA, f"a trigger of {table} drops it", table))


def upsert(
    connection: psycopg.Connection[Any],
    statements: Statements,
    batch: Batch,
    rows: Sequence[int],
    *,
    look_first: bool,
) -> Outcome:
    """Write those of these rows that differ from the stored row and are not older; the caller has a transaction open.

    Raises `RowsUnfit` if a column is stored in another type than the declared one, which does not hold all values, and
    `RowsDropped` if a trigger of the table's dropped rows.

    With `look_first`, rows that need no writing are not even locked. Without it, and for a few rows, the look comes
    only after rows were not written: that is cheaper if most are.
    """
    with connection.cursor(binary=True) as cursor:
        if len(rows) <= FEW_ROWS:
            window = _window(batch.columns(rows))
            found = _Found(cursor, statements.listed, {**parameters_of(batch, rows), **window})
            look_first = False
        else:
            columns = batch.columns(rows)
            cursor.execute(statements.stage)
            copy_rows(cursor, statements.copy_to_stage, batch.dataset, columns, numbers=rows)
            found = _Found(cursor, statements.staged, _window(columns))
        if unfit := unfit_rows(cursor, statements, found.statements, found.parameters):
            raise RowsUnfit(unfit)
        return _upserted(found, batch, rows, look_first=look_first)


def are_new(cursor: psycopg.Cursor[Any], statements: Statements, batch: Batch, rows: Sequence[int]) -> bool:
    """Whether none of a few of these rows, spread over all of them, is stored."""
    sample = sorted({rows[place * (len(rows) - 1) // (_SAMPLE - 1)] for place in range(_SAMPLE)})
    parameters = {**parameters_of(batch, sample), **_window(batch.columns(sample))}
    ((stored,),) = cursor.execute(statements.count_listed, parameters).fetchall()
    return not stored


def _window(columns: pa.RecordBatch) -> dict[str, Any]:
    """Return the first and the last time of these rows."""
    extremes = pc.min_max(columns.column("ts"))
    return {
        name: None if (found := extremes[bound].as_py()) is None else found.replace(tzinfo=UTC)
        for name, bound in (("earliest", "min"), ("latest", "max"))
    }


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

    def dropped(self, rows: Collection[int], numbers: Mapping[Any, int]) -> set[int]:
        """Return those of these rows that a trigger drops; `numbers` has rows by their keys.

        A row whose key or values a trigger changes is not dropped, although what is stored is not what was sent.
        """
        if not rows:
            return set()
        with self.cursor.connection.transaction(force_rollback=True):
            keys = self._touched(rows)
            unsure = set(rows) - {numbers[key] for key in keys if key in numbers}
            changed = sum(key not in numbers for key in keys)
            if changed and changed < len(unsure):
                return {row for row in unsure if not self._touched([row])}
        return set() if changed else unsure

    def _touched(self, rows: Collection[int]) -> list[Any]:
        self.cursor.execute(self.statements.touch, {**self.parameters, "only": sorted(rows)})
        return self.cursor.fetchall()


def _upserted(found: _Found, batch: Batch, rows: Sequence[int], *, look_first: bool) -> Outcome:
    unchanged, stale = found.look() if look_first else (set(), {})
    needed = [row for row in rows if row not in unchanged and row not in stale]
    if not needed or found.write(needed if len(needed) < len(rows) else None) == len(needed):
        return Outcome(needed, stale)
    numbers = dict(zip(keys_of(batch, needed), needed, strict=True))
    written = {numbers[key] for key in found.cursor.fetchall() if key in numbers}  # a trigger may change a key
    equal, late = found.look()
    rest = set(needed) - written
    if dropped := found.dropped(rest - equal - late.keys(), numbers):
        raise RowsDropped(dropped, batch.dataset.table.name)
    return Outcome(written, {**stale, **{row: late[row] for row in late.keys() & rest}})
