"""Writes record batches as Parquet, in row groups of one size, however the batches are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

#: Rows per row group: 10 MB of bars in memory.
_ROWS = 65_536


def write_parquet(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], stream: IO[bytes], wrote: Callable[[int], None]
) -> None:
    """Write all batches; `wrote` is called with the rows of each group that was written."""
    # Version 2.6 has microseconds. The schema of Arrow is kept, and with it the zone.
    with pq.ParquetWriter(pa.PythonFile(stream, mode="w"), schema, compression="zstd", version="2.6") as writer:
        for group in _groups(batches):
            writer.write_table(group, row_group_size=_ROWS)
            wrote(group.num_rows)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + batch.num_rows >= _ROWS:
            head = batch.slice(0, _ROWS - rows)
            yield pa.Table.from_batches([*waiting, head])
            batch = batch.slice(head.num_rows)
            waiting, rows = [], 0
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)
