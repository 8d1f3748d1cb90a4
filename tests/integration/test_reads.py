"""Reads for users of the data: the right rows, in UTC, by the primary key of a large table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import market_data_store
from market_data_store import reads
from market_data_store.datasets import DATASETS
from market_data_store.postgres.connection import connect

Connection = psycopg.Connection[tuple[Any, ...]]

START = datetime(2024, 1, 1, tzinfo=UTC)

TICKS = """
    INSERT INTO tick_data
    SELECT (ARRAY['ibkr', 'cme', 'Z'])[i % 3 + 1], 'S' || (i / 3) % 100,
        timestamptz '2024-01-01Z' + (i / 300) * interval '1 second', i, i / 4.0, i, NULL, NULL, now()
    FROM generate_series(0, 199999) AS i
"""
BARS = """
    INSERT INTO bars_ohlcv
    SELECT (ARRAY['ibkr', 'cme'])[i % 2 + 1], 'S' || (i / 2) % 100, '1m',
        timestamptz '2024-01-01Z' + (i / 200) * interval '1 minute', i, i, i, i, NULL, NULL, i, now()
    FROM generate_series(0, 199999) AS i
"""


analyzed = pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "unknown to the planner"])


def fill(connection: Connection, table: str, rows: str, analyzed: bool) -> None:
    """200,000 rows; and the session's time zone is another."""
    connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    connection.execute(rows)
    if analyzed:
        connection.execute(f"ANALYZE {table}")
    connection.execute("SET timezone = 'Asia/Kolkata'")


def touched(connection: Connection, table: str, read: Callable[[], list[reads.Row]]) -> tuple[list[reads.Row], int]:
    """What was read, and how many rows of the table Postgres looked at for it; by no other way than an index."""
    with connection.transaction():
        rows = read()
        query = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"
        ((scans, fetched),) = connection.execute(query, [table]).fetchall()
    assert scans == 0
    return rows, fetched


@analyzed
def test_the_latest_prices_are_the_newest_ticks_of_each_provider(database: Connection, analyzed: bool) -> None:
    fill(database, "tick_data", TICKS, analyzed)
    rows, fetched = touched(database, "tick_data", lambda: reads.latest_prices(database, ["S7", "S3", "s3", "nobody"]))
    assert [(row["symbol"], row["provider"]) for row in rows] == [
        (symbol, provider) for symbol in ("S3", "S7") for provider in ("Z", "cme", "ibkr")
    ]
    expected = database.execute(
        "SELECT DISTINCT ON (symbol, provider) symbol, provider, ts, seq, price FROM tick_data "
        "WHERE symbol IN ('S3', 'S7') ORDER BY symbol, provider, ts DESC"
    ).fetchall()
    assert [tuple(row[name] for name in ("symbol", "provider", "ts", "seq", "price")) for row in rows] == expected
    assert list(rows[0]) == [column.name for column in DATASETS["ticks"].columns]
    assert all(row["ts"].tzinfo is UTC for row in rows)
    assert fetched < 20


def test_where_citus_is_installed_the_latest_prices_are_the_same(database: Connection) -> None:
    """Citus refuses a query for all of them; its catalogue says that it is there."""
    fill(database, "tick_data", TICKS, True)
    expected = reads.latest_prices(database, ["S7", "S3", "nobody"])
    with database.transaction(force_rollback=True):
        database.execute("CREATE TABLE pg_dist_partition ()")
        rows, fetched = touched(database, "tick_data", lambda: reads.latest_prices(database, ["S7", "S3", "nobody"]))
    assert rows == expected
    assert len(rows) == 6
    assert fetched < 20


@analyzed
def test_the_latest_prices_of_one_provider_and_one_symbol(database: Connection, analyzed: bool) -> None:
    fill(database, "tick_data", TICKS, analyzed)
    (row,), fetched = touched(database, "tick_data", lambda: reads.latest_prices(database, "S7", provider="cme"))
    at = START + timedelta(seconds=666)
    assert row == {
        "provider": "cme",
        "symbol": "S7",
        "ts": at,
        "seq": 199_822,
        "price": 199_822 / 4,
        "size": 199_822.0,
        "bid": None,
        "ask": None,
        **dict.fromkeys(("trade_id", "side", "venue", "conditions", "received_at", "nanos", "metadata")),
    }
    assert fetched == 1
    assert reads.latest_prices(database, "S7", provider="CME") == reads.latest_prices(database, []) == []


def test_of_ticks_at_one_instant_the_highest_seq_is_the_latest(database: Connection) -> None:
    tick = "INSERT INTO tick_data VALUES ('p', 'A', '2024-01-01Z', %s, %s, NULL, NULL, NULL, now())"
    for seq, price in ((2, 20.0), (10, 100.0), (-5, 50.0)):
        database.execute(tick, [seq, price])
    assert [row["price"] for row in reads.latest_prices(database, ["A"])] == [100.0]


@analyzed
def test_a_window_of_bars_has_its_start_and_not_its_end(database: Connection, analyzed: bool) -> None:
    fill(database, "bars_ohlcv", BARS, analyzed)
    start, end = START + timedelta(minutes=10), START + timedelta(minutes=15)
    rows, fetched = touched(database, "bars_ohlcv", lambda: reads.bars(database, "S7", "1m", start, end))
    times = [start + timedelta(minutes=i) for i in range(5)]
    assert [(row["ts"], row["provider"]) for row in rows] == [(ts, name) for ts in times for name in ("cme", "ibkr")]
    assert all(row["ts"].tzinfo is UTC for row in rows)
    assert list(rows[0]) == [column.name for column in DATASETS["bars"].columns]
    assert fetched < len(rows) + 10
    assert rows[0]["close"] == rows[0]["trade_count"] == 2_015
    assert rows[0]["volume"] is None


@analyzed
def test_a_window_of_one_provider_with_naive_times(database: Connection, analyzed: bool) -> None:
    fill(database, "bars_ohlcv", BARS, analyzed)
    start, end = datetime(2024, 1, 1, 0, 10), datetime(2024, 1, 1, 0, 15)
    rows, fetched = touched(
        database, "bars_ohlcv", lambda: reads.bars(database, "S7", "1m", start, end, provider="ibkr")
    )
    assert [row["ts"].minute for row in rows] == [10, 11, 12, 13, 14]
    assert {row["provider"] for row in rows} == {"ibkr"}
    assert fetched == 5
    assert reads.bars(database, "S7", "5m", start, end) == reads.bars(database, "S7", "1m", end, start) == []


def test_reads_are_found_at_the_package_and_work_on_an_empty_store(database_url: str) -> None:
    with connect(database_url) as connection:
        assert market_data_store.reads.latest_prices(connection, ["A"]) == []
        assert market_data_store.reads.bars(connection, "A", "1m", START, START) == []
