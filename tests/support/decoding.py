"""A message decoded by itself, as Python values: what tests compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from market_data_store.datasets import Dataset
from market_data_store.wire.arrow import Frame, read_table
from market_data_store.wire.columns import POSITION, decode
from market_data_store.wire.fields import fields_of
from market_data_store.wire.moments import UNIX_TO_EPOCH_US
from market_data_store.wire.reader import Reject
from market_data_store.wire.rows import SentRows, read_rows

_UNIX_TO_EPOCH_DAYS = 10_957


@dataclass(slots=True)
class DecodedRows:
    """A message's valid rows by column, in the dataset's order, and its rejects.

    Timestamps are microseconds and dates days since 2000-01-01 UTC, JSON is bytes.
    """

    dataset: Dataset
    columns: list[list[Any]]
    positions: list[int]
    rejects: list[Reject] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many rows the message held."""
        return len(self.positions) + len(self.rejects)


def decode_rows(
    dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any], enqueued_at: int
) -> DecodedRows:
    """Of JSON."""
    return _decoded(dataset, read_rows(dataset, rows, defaults), enqueued_at)


def decode_frame(dataset: Dataset, frame: Frame, defaults: Mapping[str, Any], enqueued_at: int) -> DecodedRows:
    """Of a table."""
    return _decoded(dataset, read_table(dataset, frame, defaults), enqueued_at)


def _decoded(dataset: Dataset, rows: SentRows, enqueued_at: int) -> DecodedRows:
    found = decode(dataset, [rows], [enqueued_at])
    found.rows.validate(full=True)
    batch = found.rows.sort_by(POSITION)
    columns = [
        _python(column, f.kind.copy_type == "jsonb")
        for column, f in zip(batch.columns, fields_of(dataset), strict=False)
    ]
    return DecodedRows(dataset, columns, batch.column(POSITION).to_pylist(), found.rejects[0])


def _python(column: pa.Array, is_json: bool) -> list[Any]:
    shift = 0
    if pa.types.is_timestamp(column.type):
        column, shift = column.cast(pa.int64()), UNIX_TO_EPOCH_US
    elif pa.types.is_date32(column.type):
        column, shift = column.cast(pa.int32()), _UNIX_TO_EPOCH_DAYS
    values = column.to_pylist()
    if is_json:
        return [value and value.encode() for value in values]
    return [None if value is None else value - shift for value in values] if shift else values
