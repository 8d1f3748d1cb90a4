"""What is too old is counted and deleted by the key's index, some at a time, and nothing else is."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support.databases import Connection
from support.waiting import wait_until

from market_data_store.postgres import aging, retention
from market_data_store.postgres.key_index import BY_INDEX

LIMIT = datetime(2024, 1, 1, 0, 50, tzinfo=UTC)
#: 100 minutes of bars of 30 series: 1,500 are older than the limit.
BARS = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at)
    SELECT (ARRAY['ibkr', 'cme', 'Z'])[i % 3 + 1], 'S''' || (i / 3) % 10, '1m',
        timestamptz '2024-01-01Z' + (i / 30) * interval '1 minute', i, i, i, i, now()
    FROM generate_series(0, 2999) AS i
"""
OPTIONS = """
    INSERT INTO options_snap (provider, symbol, expiry, strike, option_type, ts, enqueued_at)
    SELECT 'p', 'S', date '2024-02-02' + i % 2, 0.1 + i % 7, 'C', timestamptz '2024-01-01Z' + i * interval '1 minute',
        now() FROM generate_series(0, 99) AS i
"""
PARTITIONED = """
    ALTER TABLE bars_ohlcv RENAME TO plain;
    CREATE TABLE bars_ohlcv (LIKE plain INCLUDING DEFAULTS, PRIMARY KEY (provider, symbol, interval, ts))
        PARTITION BY RANGE (ts);
    CREATE TABLE early PARTITION OF bars_ohlcv FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:30Z');
    CREATE TABLE late PARTITION OF bars_ohlcv FOR VALUES FROM ('2024-01-01 00:30Z') TO (MAXVALUE)
"""
VIEW = "ALTER TABLE bars_ohlcv RENAME TO kept; CREATE VIEW bars_ohlcv AS SELECT * FROM kept"


def deleted(database: Connection, name: str, **options: Any) -> list[int | None]:
    return [part.rows for part in retention.delete(database, name, LIMIT, **options)]


@pytest.mark.parametrize("change", ["", PARTITIONED, VIEW], ids=["plain", "partitioned", "view"])
def test_only_old_rows_go(database: Connection, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(aging, "BATCH_ROWS", 20)
    database.execute(change.encode())
    database.execute(BARS)
    assert retention.count(database, "bars", LIMIT).rows == 1_500
    # Each of the 30 series in batches of 20, 20 and 10; a view in one.
    assert deleted(database, "bars") == ([1_500] if change == VIEW else [20, 20, 10] * 30)
    assert retention.count(database, "bars", LIMIT).rows == 0
    left = "SELECT count(*), min(ts) FROM bars_ohlcv"
    assert database.execute(left.encode()).fetchall() == [(1_500, LIMIT)]
    assert deleted(database, "bars") in ([], [0])


def test_a_key_of_dates_and_numbers_is_found_again(database: Connection) -> None:
    database.execute(OPTIONS)
    assert retention.count(database, "options", LIMIT).rows == 50
    assert sum(rows or 0 for rows in deleted(database, "options")) == 50
    assert database.execute("SELECT min(ts) FROM options_snap").fetchall() == [(LIMIT,)]


def test_letters_go_by_when_they_were_kept_and_runs_by_their_end(database: Connection) -> None:
    letters = """
        INSERT INTO dead_letters (created_at, task_id, position, content_hash, reason, enqueued_at)
        SELECT timestamptz '2024-01-01Z' + i * interval '1 minute', 't', i, 0, 'r', now()
        FROM generate_series(0, 249) AS i
    """
    runs = """
        INSERT INTO job_runs (job_name, status, started_at, updated_at)
        SELECT 'j', status, '2023-01-01Z', updated_at FROM unnest(ARRAY['running', 'success', 'failure']) AS status,
        unnest(ARRAY['2024-01-01Z', '2024-02-01Z']::timestamptz[]) AS updated_at
    """
    database.execute(letters)
    database.execute(runs)
    assert [retention.count(database, name, LIMIT).rows for name in ("dead_letters", "job_runs")] == [50, 2]
    assert deleted(database, "dead_letters") == [50]
    assert deleted(database, "job_runs") == [2]
    left = "SELECT count(*) FILTER (WHERE status = 'running'), count(*) FROM job_runs"
    assert database.execute(left).fetchall() == [(2, 4)]


def test_what_is_kept_is_not_read(database: Connection) -> None:
    database.execute(BARS)
    database.execute("ANALYZE bars_ohlcv")
    for template, series in ((aging._COUNT_BY_INDEX, ()), (aging._NEXT, ()), (aging._DELETE, ("cme", "S'1", "1m"))):
        query = aging._composed(template, "bars", LIMIT, series)
        with database.transaction():
            database.execute(BY_INDEX)
            ((plan,),) = database.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(query)).fetchall()
        assert "Seq Scan" not in json.dumps(plan), template


def test_a_locked_row_does_not_stop_the_writer_that_has_it(
    database: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aging, "_LOCK_WAIT_S", 0.1)
    monkeypatch.setattr(aging, "_TRIES", 2)
    database.execute(BARS)
    one = "UPDATE bars_ohlcv SET close = -7 WHERE provider = 'cme' AND symbol = 'S''1' AND ts = '2024-01-01Z'"
    with psycopg.connect(database_url) as writer:
        writer.execute(one)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            deleted(database, "bars")
    assert database.execute("SELECT close FROM bars_ohlcv WHERE close = -7").rowcount == 1
    with psycopg.connect(database_url) as writer:
        writer.execute(one)
        waiting = threading.Thread(target=deleted, args=(database, "bars"))
        monkeypatch.setattr(aging, "_LOCK_WAIT_S", 20.0)
        waiting.start()
        wait_until(lambda: writer.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount == 1)
    waiting.join()
    assert retention.count(database, "bars", LIMIT).rows == 0


def test_a_number_that_takes_too_long_is_unknown(database: Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE bars_ohlcv")
        found = retention.count(database, "bars", LIMIT, timeout_s=0.1)
    assert (found.rows, str(found)) == (None, "too many rows of bars to count")


def test_the_guard_ends_the_work_before_its_batch(database: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aging, "BATCH_ROWS", 20)
    database.execute(BARS)
    calls = iter([None, None])

    def guard() -> None:
        if next(calls, StopIteration) is StopIteration:
            raise KeyError("guard")

    with pytest.raises(KeyError):
        deleted(database, "bars", guard=guard)
    assert retention.count(database, "bars", LIMIT).rows == 1_460
