"""A backfill in its own process: sends fresh bars by the lane of history, and waits until all are committed.

    BROKER_URL=redis://... python -m benchmarks.history tables 10000000

The arguments are `tables` or `json` (500 rows a message), and the number of rows. The last line of output has the
seconds. The rows repeat under other symbols, so that they cost the producer little to make.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta

import pyarrow

from market_data_store.producer.client import StoreClient

_ROWS, _PER_MESSAGE = 50_000, 500


def main() -> None:
    """Send the rows."""
    kind, rows = sys.argv[1], int(sys.argv[2])
    began = datetime(2000, 1, 1, tzinfo=UTC)
    prices = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5}
    bars = [{"ts": began + timedelta(minutes=n), **prices, "volume": float(n)} for n in range(_ROWS)]
    table = pyarrow.Table.from_pylist(bars)
    started = time.perf_counter()
    with StoreClient(
        lane="backfill",
        confirm=True,
        confirm_timeout_s=600.0,
        pressure_timeout_s=600.0,
        defaults={"provider": "history", "interval": "1m"},
    ) as store:
        for first in range(0, rows, _ROWS):
            size, symbol = min(_ROWS, rows - first), {"symbol": f"H{first // _ROWS}"}
            if kind == "tables":
                store.write_table("bars", table.slice(0, size), defaults=symbol)
                continue
            for start in range(0, size, _PER_MESSAGE):
                store.write("bars", bars[start : min(start + _PER_MESSAGE, size)], defaults=symbol)
        store.flush()
        while not store.confirm(1.0):
            pass
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
