"""A producer in its own process: sends rows at a steady rate, or as fast as possible, with an ordinary `StoreClient`.

    BROKER_URL=redis://... python -m benchmarks.feed 50000 10000

The arguments are the number of rows, and rows per second (0 for as fast as possible). Each row carries in `trade_count`
the microsecond at which it was due. With a rate, that is the planned time even if `write` was called late, so a stall
counts for all the rows that it holds up.
"""

from __future__ import annotations

import sys
import time
from itertools import islice

from benchmarks.workloads import Workload
from market_data_store.producer.client import StoreClient

#: With a rate, `write` is called this often; without a rate, each call has 500 rows.
_TICK_S = 0.01


def main() -> None:
    """Send the rows; the last line of output is "done"."""
    rows, rate = map(int, sys.argv[1:])
    bars = Workload("fresh", rows, 500).sent()
    size = max(1, round(rate * _TICK_S)) if rate else 500
    with StoreClient() as store:
        started = time.time()
        sent = 0
        while chunk := list(islice(bars, size)):
            due = started + sent / rate if rate else time.time()
            time.sleep(max(0.0, due - time.time()))
            moment = round(due * 1e6)
            store.write("bars", [{**bar._asdict(), "trade_count": moment} for bar in chunk])
            sent += len(chunk)
    print("done", flush=True)


if __name__ == "__main__":
    main()
