"""Reads rows one by one that could not be read in columns: those that are wrong, and those that only `reader` can read.

Whatever the rows are, it holds only some of them at a time, and of a message's rejects only the first in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from market_data_store.datasets import Dataset
from market_data_store.wire.moments import UNIX_TO_EPOCH_US
from market_data_store.wire.reader import MOST_REJECTS, Reject, read_row
from market_data_store.wire.rows import SentRows
from market_data_store.wire.seen import Sightings

#: Positions of rows of one message: a range, or an Arrow array.
Positions: TypeAlias = Any
#: How many rows are held at a time.
_PIECE = 5_000
#: A message with so many rejects is broken: its further rows that would have to be read one by one are rejected unread.
#: Reading so many takes 2 s.
_MOST_READ = 100_000


class Alone:
    """Reads rows of messages one by one, as rows of this schema; `enqueued_at` has the moment of each message.

    Notes what it sees of unknown fields in `sightings`.
    """

    def __init__(
        self,
        dataset: Dataset,
        messages: Sequence[SentRows],
        enqueued_at: Sequence[int],
        schema: pa.Schema,
        sightings: Sightings,
    ) -> None:
        self._dataset = dataset
        self._messages = messages
        self._enqueued_at = enqueued_at
        self._schema = schema
        self._sightings = sightings
        self._good: list[list[Any]] = []
        #: The good rows.
        self.batches: list[pa.RecordBatch] = []
        #: For each message the first rejects, at most `MOST_REJECTS`, and the number of all.
        self.rejects: list[list[Reject]] = [[] for _ in messages]
        self.rejected = [0] * len(messages)

    def read(self, positions: Mapping[int, Sequence[Positions]]) -> None:
        """Read the rows at these positions, which are in order, by the index of their message."""
        for index in sorted(positions):
            for piece in _pieces(positions[index]):
                if self.rejected[index] < _MOST_READ:
                    self._read(index, piece)
                else:
                    self.rejected[index] += len(piece)
        self._flush()

    def _read(self, index: int, positions: Sequence[int]) -> None:
        message, moment = self._messages[index], self._enqueued_at[index] + UNIX_TO_EPOCH_US
        for position, raw in zip(positions, message.at(positions), strict=True):
            found = read_row(self._dataset, position, raw, message.standard, moment, sightings=self._sightings)
            if isinstance(found, list):
                self._good.append([*found, moment, index, position])
                continue
            self.rejected[index] += 1
            if len(self.rejects[index]) < MOST_REJECTS:
                self.rejects[index].append(found)
        if len(self._good) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        if self._good:
            types = enumerate(self._schema.types)
            arrays = [pa.array([row[place] for row in self._good], type_) for place, type_ in types]
            self.batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._good = []


def _pieces(every: Sequence[Positions]) -> Iterator[Sequence[int]]:
    for positions in every:
        for start in range(0, len(positions), _PIECE):
            piece = positions[start : start + _PIECE]
            yield piece if isinstance(piece, range) else piece.to_pylist()
