"""Sends a workload's messages with `StoreClient`; the last line of output has the seconds and the CPU seconds.

    BROKER_URL=redis://... python -m benchmarks.produce fresh 100000 500 0 0

The arguments are those of `Workload`: kind, rows, rows per message, first symbol, symbols of a live feed. With
`--table` before them, each message's rows are sent as a table.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pyarrow

from benchmarks.workloads import Bar, Workload

# By its public path: `benchmarks.against` runs this program with other versions as well.
from market_data_store import StoreClient


def main() -> None:
    """Send the messages, and print what that took."""
    as_tables = sys.argv[1] == "--table"
    kind, *numbers = sys.argv[2 if as_tables else 1 :]
    workload = Workload(kind, *map(int, numbers))
    messages: list[Any]
    if as_tables:
        messages = [
            pyarrow.table(dict(zip(Bar._fields, zip(*m, strict=True), strict=True))) for m in workload.messages()
        ]
    else:
        messages = [[bar._asdict() for bar in message] for message in workload.messages()]
    started, cpu_before = time.perf_counter(), time.process_time()
    # Nobody consumes yet, so the queue may look full.
    with StoreClient(max_rows=workload.per_message, on_pressure="ignore") as store:
        write = store.write_table if as_tables else store.write
        for rows in messages:
            write("bars", rows)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_before
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
