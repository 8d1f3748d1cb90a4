"""Gets columns into a COPY, in the binary form that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pgpq import ArrowToPostgresBinaryEncoder
from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.wire.fields import fields_of

#: jsonb's binary form is this version number followed by the text. pgpq has an encoder for it, but naming the encoders
#: of a block's columns costs 500 us, where letting pgpq infer them costs 20.
_JSONB_VERSION = "\1"


def copy_rows(
    cursor: psycopg.Cursor[Any],
    statement: sql.Composed,
    dataset: Dataset,
    rows: pa.RecordBatch,
    *,
    numbers: Sequence[int] | None = None,
) -> int:
    """Copy the rows, with their numbers as the last column if given; returns how many Postgres kept."""
    with cursor.copy(statement) as copy:
        for block in blocks(dataset, rows, numbers):
            copy.write(block)
    return cursor.rowcount


def blocks(dataset: Dataset, rows: pa.RecordBatch, numbers: Sequence[int] | None = None) -> tuple[bytes, ...]:
    """Return the data for a COPY of the dataset's columns, `ENQUEUED_AT`, and the numbers.

    They are not joined: for 5,000 rows that would cost three times as much as making them.
    """
    fields = fields_of(dataset)
    rows = rows.select([*(f.name for f in fields), ENQUEUED_AT])
    for place, f in enumerate(fields):
        if f.kind.copy_type == "jsonb":
            rows = rows.set_column(place, f.name, pc.binary_join_element_wise(_JSONB_VERSION, rows.column(place), ""))
    if numbers is not None:
        rows = rows.append_column("n", pa.array(numbers, pa.int32()))
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    return encoder.write_header(), encoder.write_batch(rows), encoder.finish()
