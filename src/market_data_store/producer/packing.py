"""The rows of a call, cut into parts that each fit into one message, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from market_data_store.config import settings
from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidRow
from market_data_store.producer.encoding import check_rows, encode
from market_data_store.producer.messages import Part
from market_data_store.wire.arrow import Frame, pack
from market_data_store.wire.arrow_columns import decode_frame
from market_data_store.wire.moments import microseconds

#: Rows in a table's message: a batch of the worker's. All rows are there, so there is nothing to wait for.
_TABLE_ROWS = 5_000


class Packing:
    """Cuts at `max_rows` rows and `max_bytes` bytes, and checks each part by the worker's code if `check` is set.

    Both methods raise `InvalidRow`, also for a row that alone is larger
    than half of MDS_MAX_MESSAGE_BYTES.
    """

    def __init__(self, max_rows: int, max_bytes: int, *, check: bool) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._check = check

    def rows(self, dataset: Dataset, rows: list[Any], defaults: dict[str, Any], room: int) -> Iterator[Part]:
        """Parts of JSON objects joined by commas; the first part has at most `room` rows."""
        start = 0
        while start < len(rows):
            part = rows[start : start + room]
            for fitting, text, first in self._fitting(part, start):
                if self._check:
                    check_rows(dataset, fitting, text, defaults, first)
                yield len(fitting), text[1:-1]
            start += len(part)
            room = self._max_rows

    def _fitting(self, rows: list[Any], start: int) -> Iterator[tuple[list[Any], bytes, int]]:
        """Rows, their JSON list and the first one's index; lists that are too large are halved."""
        text = encode(rows, start)
        if len(text) > self._max_bytes and len(rows) > 1:
            middle = len(rows) // 2
            yield from self._fitting(rows[:middle], start)
            yield from self._fitting(rows[middle:], start + middle)
        elif len(text) > settings().max_message_bytes // 2:
            raise InvalidRow(f"row: {len(text):,} bytes of JSON are too many for a message", position=start)
        else:
            yield rows, text, start

    def table(self, dataset: Dataset, frame: Frame, standard: dict[str, Any], defaults: bytes) -> Iterator[Part]:
        """Parts that are whole bodies; `defaults` is `standard` as JSON."""
        pending = [(start, frame.part(start, _TABLE_ROWS)) for start in range(0, len(frame), _TABLE_ROWS)]
        while pending:
            start, part = pending.pop(0)
            body = pack(dataset.name, defaults, part)
            if len(body) > self._max_bytes and len(part) > 1:
                middle = len(part) // 2
                pending[:0] = [(start, part.part(0, middle)), (start + middle, part.part(middle, len(part)))]
                continue
            if len(body) > settings().max_message_bytes // 2:
                raise InvalidRow(f"row: {len(body):,} bytes are too many for a message", position=start)
            if self._check:
                rejects = decode_frame(dataset, part, standard, microseconds(datetime.now(UTC))).rejects
                if rejects:
                    raise InvalidRow(rejects[0].reason, position=start + rejects[0].position)
            yield len(part), body
