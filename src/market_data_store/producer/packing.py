"""The rows of a call, cut into parts that each fit into one message, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from market_data_store.config import settings
from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidRow
from market_data_store.producer.encoding import check_rows, encode, numbered
from market_data_store.producer.messages import Part
from market_data_store.producer.occurrences import Occurrences
from market_data_store.wire.hashes import OCCURRENCE


class Packing:
    """Cuts at `max_rows` rows and `max_bytes` bytes, and checks each part by the worker's code if `check` is set.

    Raises `InvalidRow`, also for a row that alone is larger than half of MDS_MAX_MESSAGE_BYTES.
    """

    def __init__(self, max_rows: int, max_bytes: int, *, check: bool) -> None:
        self._max_rows = max_rows
        self.max_bytes = max_bytes
        self.check = check

    def rows(
        self, dataset: Dataset, rows: list[Any], defaults: dict[str, Any], room: int, occurrences: Occurrences | None
    ) -> Iterator[Part]:
        """Parts of JSON objects joined by commas; the first part has at most `room` rows.

        In a numbered dataset, equal rows without an id get their numbers: in this call, or as `occurrences` says.
        """
        if occurrences is None and OCCURRENCE in defaults and len(rows) > 1:
            occurrences = Occurrences()
        start = 0
        while start < len(rows):
            part = rows[start : start + room]
            for fitting, text, first in self._fitting(part, start):
                if self.check:
                    check_rows(dataset, fitting, text, defaults, first)
                if occurrences is not None:
                    text = numbered(dataset, fitting, text, defaults, occurrences)
                yield len(fitting), text[1:-1]
            start += len(part)
            room = self._max_rows

    def _fitting(self, rows: list[Any], start: int) -> Iterator[tuple[list[Any], bytes, int]]:
        """Rows, their JSON list and the first one's index; lists that are too large are halved."""
        text = encode(rows, start)
        if len(text) > self.max_bytes and len(rows) > 1:
            middle = len(rows) // 2
            yield from self._fitting(rows[:middle], start)
            yield from self._fitting(rows[middle:], start + middle)
        elif len(text) > settings().max_message_bytes // 2:
            raise InvalidRow(f"row: {len(text):,} bytes of JSON are too many for a message", position=start)
        else:
            yield rows, text, start
