"""The rows of a table, cut into parts that each fit into one message, and checked. Imports Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from market_data_store.config import settings
from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, InvalidRow
from market_data_store.producer.messages import Part
from market_data_store.producer.occurrences import Occurrences
from market_data_store.producer.packing import Packing
from market_data_store.wire.arrow import Frame, frame_of, pack, read_table
from market_data_store.wire.columns import POSITION, decode
from market_data_store.wire.fields import names_of
from market_data_store.wire.hashes import OCCURRENCE
from market_data_store.wire.moments import microseconds
from market_data_store.wire.occurrences import Key, hashed_field

__all__ = ["frame_of", "numbered", "table_parts"]

#: Rows in a table's message. All rows are there, so there is nothing to wait for. A message is a batch of the worker's,
#: for which it has a pool process for some 70 ms. With half as many rows a backfill is slower by a fifth.
_TABLE_ROWS = 5_000
#: Rows whose keys are read at once.
_NUMBERED_ROWS = 5_000


def table_parts(
    packing: Packing, dataset: Dataset, frame: Frame, standard: dict[str, Any], defaults: bytes
) -> Iterator[Part]:
    """Yield parts that are whole bodies; `defaults` is `standard` as JSON.

    Cuts at 5,000 rows and at the bytes of `packing`, and checks as it does. Raises `InvalidRow`, also
    for a row that alone is larger than half of MDS_MAX_MESSAGE_BYTES.
    """
    if names_of(dataset).numbered:
        frame = numbered(dataset, frame, standard, Occurrences())
    pending = [(start, frame.part(start, _TABLE_ROWS)) for start in range(0, len(frame), _TABLE_ROWS)]
    while pending:
        start, part = pending.pop(0)
        body = pack(dataset.name, defaults, part)
        if len(body) > packing.max_bytes and len(part) > 1:
            middle = len(part) // 2
            pending[:0] = [(start, part.part(0, middle)), (start + middle, part.part(middle, len(part)))]
            continue
        if len(body) > settings().max_message_bytes // 2:
            raise InvalidRow(f"row: {len(body):,} bytes are too many for a message", position=start)
        if packing.check:
            rows = read_table(dataset, part, standard)
            (rejects,) = decode(dataset, [rows], [microseconds(datetime.now(UTC))]).rejects
            if rejects:
                raise InvalidRow(rejects[0].reason, position=start + rejects[0].position)
        yield len(part), body


def numbered(dataset: Dataset, frame: Frame, standard: dict[str, Any], occurrences: Occurrences) -> Frame:
    """Return the frame with the numbers of rows that equal earlier ones and have no id, as `occurrences` counts them.

    A frame that has the numbers already, or an id in each row, stays as it is.
    """
    _, made = hashed_field(dataset)
    given = set(frame.table.column_names)
    if OCCURRENCE in given or any(not frame.table.column(name).null_count for name in given.intersection(made.names)):
        return frame
    numbers: list[int] = []
    for start in range(0, len(frame), _NUMBERED_ROWS):
        part = frame.part(start, _NUMBERED_ROWS)
        try:
            rows = decode(dataset, [read_table(dataset, part, standard)], [0]).rows
        except InvalidMessage:  # unchecked defaults may be wrong: the worker says so
            return frame
        # A row with an id may be counted too: its number has no effect.
        keys: list[Key | None] = [None] * len(part)
        columns = [rows.column(name).cast("int64") if name == "ts" else rows.column(name) for name in dataset.key]
        for position, *key in zip(rows.column(POSITION).to_pylist(), *(c.to_pylist() for c in columns), strict=True):
            keys[position] = tuple(key)
        numbers += occurrences.numbers(keys)
    if all(number == 1 for number in numbers):
        return frame
    column = pa.array([None if number == 1 else number for number in numbers], pa.int64())
    return Frame(frame.table.append_column(OCCURRENCE, column))
