"""Reading a million bars as an Arrow table: `reads.table` beside ADBC's own driver with the same query.

    python -m benchmarks.reading [--rows N] [--rounds N]

Each round runs both, in alternating order, and ends with the ratio of their times: above 1, `reads.table` is faster.
Both open their connections anew. The driver's query is the one that `reads.table` stands for, with the same columns,
condition and order.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from adbc_driver_postgresql import dbapi

from market_data_store import reads
from market_data_store.datasets import DATASETS
from market_data_store.local import start_postgres
from market_data_store.postgres import schema

#: 100 symbols of two providers, in order of time, as a feed writes them; and one series of as many bars.
_FILL = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume, trade_count, enqueued_at)
    SELECT (ARRAY['cme', 'ibkr'])[i % 2 + 1], 'S' || i % 100, '1m', timestamptz '2024-01-01Z' + (i / 100) *
        interval '1 minute', i / 7.0, i / 3.0, i / 11.0, i / 9.0, i % 1000, i % 50, now()
    FROM generate_series(1, {rows}) AS i
    UNION ALL
    SELECT 'truefx', 'LONG', '1s', timestamptz '2024-01-01Z' + i * interval '1 second', i / 7.0, i / 3.0, i / 11.0,
        i / 9.0, i % 1000, i % 50, now()
    FROM generate_series(1, {rows}) AS i
"""
_COLUMNS = ", ".join(column.name for column in DATASETS["bars"].columns)
_ORDER = "ORDER BY provider, symbol, interval, ts"

#: By name: the options of `reads.table`, and the driver's condition.
_SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "one series": (
        {"symbols": "LONG", "provider": "truefx", "interval": "1s"},
        "symbol = 'LONG' AND provider = 'truefx' AND interval = '1s'",
    ),
    "one symbol": ({"symbols": ["LONG"]}, "symbol = 'LONG'"),
    "200 series": ({"interval": "1m"}, "interval = '1m'"),
}


def main() -> None:
    """Fill a database, and print each shape's times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, start_postgres(Path(directory)) as server:
        schema.upgrade(server.url)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(_FILL.format(rows=options.rows))
            connection.execute("VACUUM ANALYZE bars_ohlcv")
        for name, (chosen, condition) in _SHAPES.items():
            query = f"SELECT {_COLUMNS} FROM bars_ohlcv WHERE {condition} {_ORDER}"  # noqa: S608
            _compare(name, options.rounds, partial(_ours, server.url, chosen), partial(_drivers, server.url, query))


def _compare(name: str, rounds: int, ours: Callable[[], int], drivers: Callable[[], int]) -> None:
    if ours() != drivers():  # and the pages are in memory
        raise SystemExit(f"{name}: not the same rows")
    times: dict[Callable[[], int], list[float]] = {ours: [], drivers: []}
    for number in range(rounds):
        for read in (ours, drivers) if number % 2 else (drivers, ours):
            started = time.perf_counter()
            rows = read()
            times[read].append(time.perf_counter() - started)
    ratios = [theirs / own for own, theirs in zip(times[ours], times[drivers], strict=True)]
    print(
        f"{name}: {rows:,} rows; reads.table {statistics.median(times[ours]):.3f} s "
        f"(best {min(times[ours]):.3f}), ADBC {statistics.median(times[drivers]):.3f} s "
        f"(best {min(times[drivers]):.3f}); ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def _ours(url: str, chosen: dict[str, Any]) -> int:
    return int(reads.table("bars", database=url, **chosen).num_rows)


def _drivers(url: str, query: str) -> int:
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetch_arrow_table().num_rows)


if __name__ == "__main__":
    main()
