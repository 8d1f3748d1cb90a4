"""Whose fault a failed write is: the row's, the dataset's or the server's. docs/failures.md explains the table.

An SQLSTATE says what Postgres met, and not who is to blame: an owner's trigger refuses one row or all of them with the
same code. So the experiment decides (`postgres.experiment`): does another row go in? This module has no state and asks
no server; it only judges what the experiment showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import psycopg

from market_data_store.datasets import Dataset
from market_data_store.datasets.registry import span_of
from market_data_store.postgres.connection import first_line

#: SQLSTATE classes of errors that come from the server and not from one table. Of these, authorization, transaction
#: state, deadlock, resources, I/O and configuration are an outage whatever else goes in.
_OUTAGES = frozenset({"25", "28", "3D", "40", "53", "58", "F0"})
#: A lost session, shutdown, and internal errors look like an outage, and a single row may cause them: a trigger that
#: ends its session, a fault in an extension that crashes the backend.
_LIKE_OUTAGES = frozenset({"08", "57", "XX"})
SERVERS_CLASSES = _OUTAGES | _LIKE_OUTAGES
#: Codes of these classes that tell nothing of the server as a whole: a lock that was not granted in time, a statement
#: that took too long or was cancelled, and a statement that needs too much at once.
LOCK_NOT_AVAILABLE, QUERY_CANCELED, LIMIT_EXCEEDED = "55P03", "57014", "53400"
#: Fewer rows at once may pass.
TOO_MUCH = frozenset({QUERY_CANCELED, LIMIT_EXCEEDED})
#: Waiting helps, or fewer rows do, so these never make a dead letter.
TIMELY = frozenset({LOCK_NOT_AVAILABLE, QUERY_CANCELED, LIMIT_EXCEEDED})
#: Data exception, integrity constraint violation, program limit exceeded (a key too long for its index, ...).
_ROWS_CLASSES = frozenset({"22", "23", "54"})
#: Unique and exclusion violations: a row is refused for another one, so these never refuse all rows.
UNIQUENESS = frozenset({"23505", "23P01"})
#: A connection that is lost has no code of its own.
CONNECTION_LOST = "08006"
_NOT_NULL, _FOREIGN_KEY, _CHECK = "23502", "23503", "23514"

#: Without anything to compare them with, only this many rows are believed to be at fault at once.
FEW_ROWS = 3
#: A batch of several messages that fails for a reason of the server's, or that ends its session, is taken apart after
#: so many tries.
FEW_TRIES = 3
#: A message that does so alone is looked into after so many tries in so
#: many seconds.
MANY_TRIES = 5
MANY_TRIES_S = 10.0
#: A row that ends its session is a dead letter after so many tries alone.
TRIES_ALONE = 3


class Fault(Enum):
    """Who is to blame."""

    #: The row becomes a dead letter.
    ROW = "row"
    #: Raised as `DatasetUnavailable`: no row of this dataset is written until its table is mended.
    DATASET = "dataset"
    #: Raised as `DatabaseUnavailable`.
    SERVER = "server"


class Others(Enum):
    """What goes in where the refused rows do not."""

    #: Other rows of the batch, or, for what looks like an outage, of another batch since the batch failed first.
    ROWS = "rows"
    #: None of the batch, but a copy of a stored row, which was rolled back.
    A_COPY = "a copy"
    #: Not even a copy of a stored row: it is refused for the same reason.
    NOTHING = "nothing"
    #: No row is stored, or the copy of one is refused for another reason.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why Postgres refused something."""

    sqlstate: str
    #: The first line of Postgres's message.
    reason: str
    #: What the error names, if it does.
    table: str | None = None
    column: str | None = None
    constraint: str | None = None

    @classmethod
    def of(cls, error: psycopg.Error) -> Cause:
        """Return the cause of an error."""
        diag = error.diag
        code = error.sqlstate or CONNECTION_LOST
        return cls(code, first_line(error), diag.table_name, diag.column_name, diag.constraint_name)

    @property
    def kind(self) -> tuple[str | None, ...]:
        """What two errors for the same reason share; `reason` may quote a value."""
        return self.sqlstate, self.table, self.column, self.constraint

    @property
    def is_no_partition(self) -> bool:
        """Whether no partition takes the row."""
        # A CHECK has a name, and what a trigger raises names no table.
        return self.sqlstate == _CHECK and self.table is not None and self.constraint is None

    def __str__(self) -> str:
        return f"{self.reason} (SQLSTATE {self.sqlstate})"


def is_the_servers(error: psycopg.Error) -> bool:
    """Whether an error comes from the server, by its code."""
    return _is_the_servers(error.sqlstate or CONNECTION_LOST)


def may_be_a_rows(error: psycopg.Error) -> bool:
    """Whether a row can cause this error of the server's."""
    return is_the_servers(error) and (error.sqlstate or CONNECTION_LOST)[:2] in _LIKE_OUTAGES


def _is_the_servers(sqlstate: str) -> bool:
    return sqlstate[:2] in SERVERS_CLASSES and sqlstate not in TIMELY


def whose(cause: Cause, dataset: Dataset, others: Others, refused: int) -> Fault:
    """Judge rows that were refused for one reason; `refused` is their number, and nothing else of the batch went in.

    `others` says what did go in. The table, from top to bottom:
    """
    code = cause.sqlstate
    if code in TIMELY:
        return Fault.DATASET
    if code[:2] in _OUTAGES:
        return Fault.SERVER
    if others is Others.ROWS:  # a partition that is made for rows may be on its way
        return Fault.DATASET if cause.is_no_partition and span_of(dataset) is not None else Fault.ROW
    if others is Others.NOTHING:
        return Fault.SERVER if _is_the_servers(code) else Fault.DATASET
    if others is Others.A_COPY:
        # What is missing lies beside the row: a partition, or the row that a foreign key names. A stored row has both.
        is_beside = cause.is_no_partition or (code == _FOREIGN_KEY and refused > FEW_ROWS)
        return Fault.DATASET if is_beside else Fault.ROW
    if _is_the_servers(code):
        return Fault.SERVER
    if code in UNIQUENESS:
        return Fault.ROW
    is_few = refused <= FEW_ROWS and code[:2] in _ROWS_CLASSES
    return Fault.DATASET if not is_few or cause.is_no_partition or _is_foreign(cause, dataset) else Fault.ROW


def _is_foreign(cause: Cause, dataset: Dataset) -> bool:
    """Whether a column that the dataset does not have must not be null."""
    return cause.sqlstate == _NOT_NULL and cause.column not in {column.name for column in dataset.columns}
