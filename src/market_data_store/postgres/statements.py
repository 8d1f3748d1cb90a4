"""The SQL statements of a dataset, composed only of its declared names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.wire.fields import fields_of

_STAGE = "CREATE TEMPORARY TABLE {stage} (LIKE {table}, message integer NOT NULL) ON COMMIT DELETE ROWS"
_COPY = "COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
_COPY_TO_STAGE = "COPY {stage} ({columns}, message) FROM STDIN (FORMAT BINARY)"
#: IS DISTINCT FROM: a replayed row equals the stored one, and changes nothing.
_UPSERT = """
    INSERT INTO {table} AS stored ({columns})
    SELECT {columns} FROM {stage}
    ON CONFLICT ({key}) DO UPDATE SET {assignments}
    WHERE stored.enqueued_at <= excluded.enqueued_at AND ({stored}) IS DISTINCT FROM ({excluded})
"""
#: Runs after the upsert. Rows that this transaction wrote have its id. A staged row that differs from the stored row
#: is stale.
_OUTCOMES = """
    SELECT message,
           count(*) FILTER (WHERE stored.xmin = pg_current_xact_id()::xid),
           count(*) FILTER (WHERE ({stored}) IS DISTINCT FROM ({staged}))
    FROM {stage} AS staged JOIN {table} AS stored USING ({key})
    GROUP BY message
"""


@dataclass(frozen=True, slots=True)
class Statements:
    """A dataset's statements, and the types as which COPY sends its columns."""

    stage: sql.Composed
    copy: sql.Composed
    copy_to_stage: sql.Composed
    types: list[str]
    upsert: sql.Composed
    outcomes: sql.Composed


@cache
def statements_of(dataset: Dataset) -> Statements:
    """Return the dataset's statements, composed once."""

    def names(columns: Sequence[str], alias: str = "") -> sql.Composed:
        qualify = (alias,) if alias else ()
        return sql.SQL(", ").join(sql.Identifier(*qualify, name) for name in columns)

    values = dataset.values
    parts = {
        "table": sql.Identifier(dataset.table.name),
        "stage": sql.Identifier(f"stage_{dataset.table.name}"),
        "columns": names([*(c.name for c in dataset.columns), ENQUEUED_AT]),
        "key": names(dataset.key),
        "stored": names(values, "stored"),
        "staged": names(values, "staged"),
        "excluded": names(values, "excluded"),
        "assignments": sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in (*values, ENQUEUED_AT)
        ),
    }
    return Statements(
        stage=sql.SQL(_STAGE).format(**parts),
        copy=sql.SQL(_COPY).format(**parts),
        copy_to_stage=sql.SQL(_COPY_TO_STAGE).format(**parts),
        types=[*(f.kind.copy_type for f in fields_of(dataset)), "int8", "int4"],
        upsert=sql.SQL(_UPSERT).format(**parts),
        outcomes=sql.SQL(_OUTCOMES).format(**parts),
    )
