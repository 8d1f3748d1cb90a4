"""The machine's limit: binary COPY blocks that are made beforehand, on as many connections as there are cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder

from benchmarks.contender import LIMIT, LIMIT_CONNECTIONS, LIMIT_ROWS, Timing, fill
from benchmarks.database import COPY, LONG_AGO, Database
from benchmarks.workloads import Bar, Workload


class Limit:
    """What Postgres takes on this machine from clients that do nothing but send."""

    def __init__(self, database: Database, workload: Workload) -> None:
        self.label = LIMIT
        self._database, self._workload = database, workload
        self._blocks: list[bytes] = []

    def prepare(self) -> None:
        """Make the blocks, and empty the table."""
        self._blocks = list(map(_block, _chunks(self._workload.sent())))
        fill(self._database, self._workload)

    def run(self) -> Timing:
        """COPY; each connection has its share of the blocks."""
        shares = [self._blocks[first::LIMIT_CONNECTIONS] for first in range(LIMIT_CONNECTIONS)]
        with ThreadPoolExecutor(LIMIT_CONNECTIONS) as pool:
            started = time.perf_counter()
            list(pool.map(self._copy, shares))
            return Timing(self._workload.rows, time.perf_counter() - started)

    def _copy(self, blocks: Sequence[bytes]) -> None:
        with self._database.connect() as connection:
            for block in blocks:
                with connection.cursor() as cursor, cursor.copy(COPY) as copy:
                    copy.write(block)


def _chunks(bars: Iterator[Bar]) -> Iterator[list[Bar]]:
    while chunk := list(islice(bars, LIMIT_ROWS)):
        yield chunk


def _block(bars: list[Bar]) -> bytes:
    columns = dict(zip(Bar._fields, map(pa.array, zip(*bars, strict=True)), strict=True))
    columns["enqueued_at"] = pa.array([LONG_AGO] * len(bars))
    rows = pa.RecordBatch.from_pydict(columns)
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    return b"".join((encoder.write_header(), encoder.write_batch(rows), encoder.finish()))
