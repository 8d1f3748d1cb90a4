"""The demo's data, and whether Postgres holds them as they are."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg

from market_data_store.config import resource

#: One-minute bars of the CME Euro FX future, January 2024; see the README beside it.
FILE = resource("data") / "6EH4-1min-bars-2024-01.csv.gz"
DEFAULTS = {"provider": "CME", "symbol": "6EH4", "interval": "1m"}

_ROWS = """
    SELECT ts, open, high, low, close, volume FROM bars_ohlcv
    WHERE provider = %(provider)s AND symbol = %(symbol)s AND interval = %(interval)s
"""


def differences(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Rows of the file that Postgres does not hold as they are, and rows that the file does not have."""
    stored = {row[0]: row[1:] for row in connection.execute(_ROWS, DEFAULTS)}
    with gzip.open(FILE, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            ts = datetime.fromisoformat(f"{row['timestamp_utc']}+00:00")
            values = tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume"))
            held = stored.pop(ts, None)
            if held != values:
                yield f"{ts:%Y-%m-%d %H:%M}: the file has {values}, Postgres {held or 'nothing'}"
    for ts, values in stored.items():
        yield f"{ts:%Y-%m-%d %H:%M}: the file has nothing, Postgres {values}"
