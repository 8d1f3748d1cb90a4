"""Send a workload's messages with `StoreClient`; the last line of output says what that took: seconds, and CPU.

    BROKER_URL=redis://... python -m benchmarks.produce fresh 100000 500 0 0

The arguments are those of `Workload`: kind, rows, rows a message, first symbol, symbols of a live feed.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.workloads import Workload
from market_data_store.client import StoreClient


def main() -> None:
    """Send, and say so."""
    kind, *numbers = sys.argv[1:]
    workload = Workload(kind, *map(int, numbers))
    messages = [[bar._asdict() for bar in message] for message in workload.messages()]
    started, cpu_before = time.perf_counter(), time.process_time()
    # Nobody takes them yet, so the queue may well look full.
    with StoreClient(max_rows=workload.per_message, on_pressure="ignore") as store:
        for rows in messages:
            store.write("bars", rows)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
