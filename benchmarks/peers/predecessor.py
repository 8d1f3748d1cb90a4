"""market-data-store 0.6: WriteCoordinator with BarsSink, AMDS, or StoreClient, in one process and without a broker.

    DATABASE_URL=postgresql://... python -m benchmarks.peers.predecessor coordinator fresh 20000 500 0 0

Before the clock starts, the rows are prepared as the objects that each of them takes, and the connections are open. The
clock stops when the last row is committed. The last line of output has the seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from datastore.writes import StoreClient
from market_data_store.sinks import BarsSink
from mds_client import AMDS
from mds_client.models import Bar

from benchmarks.workloads import Workload
from market_data_store.coordinator import WriteCoordinator

URL = os.environ["DATABASE_URL"]


class CountingSink(BarsSink):
    """Sets `done` when all rows are committed: the coordinator's own `stop` would add its flush interval."""

    def __init__(self, amds: AMDS, rows: int) -> None:
        super().__init__(amds)
        self._left = rows
        self.done = asyncio.Event()

    async def write(self, batch: Sequence[Bar]) -> None:
        """Write as BarsSink does, and count the rows."""
        rows = len(batch)
        await super().write(batch)
        self._left -= rows
        if self._left <= 0:
            self.done.set()


async def coordinator(workload: Workload) -> float:
    """Use its defaults: four workers, 500 rows per batch, 10,000 rows in the queue."""
    bars = [_bar(row) for row in workload.sent()]
    async with AMDS({"dsn": URL}) as amds:
        await amds.health()
        sink = CountingSink(amds, len(bars))
        async with WriteCoordinator(sink=sink) as writes:
            started = time.perf_counter()
            await writes.submit_many(bars)
            await sink.done.wait()
            return time.perf_counter() - started


async def amds(workload: Workload) -> float:
    """Write one message's rows per call."""
    messages = [[_bar(row) for row in message] for message in workload.messages()]
    async with AMDS({"dsn": URL}) as client:
        await client.health()
        started = time.perf_counter()
        for bars in messages:
            await client.upsert_bars(bars)
        return time.perf_counter() - started


async def store_client(workload: Workload) -> float:
    """Write one message's rows per call."""
    messages = [[SimpleNamespace(**row._asdict()) for row in message] for message in workload.messages()]
    with StoreClient(URL) as client:
        started = time.perf_counter()
        for bars in messages:
            client.write_bars(bars)
        return time.perf_counter() - started


def _bar(row: Any) -> Bar:
    return Bar(
        tenant_id="benchmark",
        vendor=row.provider,
        symbol=row.symbol,
        timeframe=row.interval,
        ts=row.ts,
        open_price=row.open,
        high_price=row.high,
        low_price=row.low,
        close_price=row.close,
        volume=int(row.volume),
    )


def main() -> None:
    """Write the rows, and print the seconds."""
    way, kind, *numbers = sys.argv[1:]
    run = {"coordinator": coordinator, "amds": amds, "store_client": store_client}[way]
    print(json.dumps({"seconds": asyncio.run(run(Workload(kind, *map(int, numbers))))}))


if __name__ == "__main__":
    main()
