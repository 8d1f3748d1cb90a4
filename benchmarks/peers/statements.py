"""The upsert of the peers without an ORM, over a connection that each process keeps open."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import psycopg

UPSERT = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, volume)
    VALUES (%(provider)s, %(symbol)s, %(interval)s, %(ts)s, %(open)s, %(high)s, %(low)s, %(close)s, %(volume)s)
    ON CONFLICT (provider, symbol, interval, ts) DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume
"""


@cache
def _connection(pid: int) -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


def upsert(rows: list[dict[str, Any]]) -> None:
    """Write all rows in one transaction, in key order, so that two processes do not deadlock."""
    rows = sorted(rows, key=lambda row: (row["provider"], row["symbol"], row["interval"], row["ts"]))
    connection = _connection(os.getpid())
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(UPSERT, rows)
