"""Room on the pages of tables whose rows are updated, and what that is good for."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from support.databases import Connection, take_down
from support.waiting import wait_until
from support.writing import bars, message, select, write

from market_data_store.postgres import schema
from market_data_store.postgres.writer import Writer

OPTIONS = """
    SELECT relname, reloptions FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL ORDER BY 1
"""
ROOM = ["fillfactor=80"]


def test_tables_whose_rows_are_updated_have_room_on_their_pages(before_0004: str, old: Connection) -> None:
    assert select(old, OPTIONS) == []
    schema.upgrade(before_0004)
    with_room = ["bars_ohlcv", "fundamentals", "news", "options_snap", "signals"]
    assert select(old, OPTIONS) == [(name, ROOM) for name in with_room]
    take_down(before_0004, "0003")
    assert select(old, OPTIONS) == []


def test_the_owners_choice_stays(before_0004: str, old: Connection) -> None:
    old.execute("ALTER TABLE bars_ohlcv SET (fillfactor = 95, autovacuum_enabled = off)")
    old.execute("ALTER TABLE news SET (autovacuum_enabled = off)")
    schema.upgrade(before_0004)
    found = dict(select(old, OPTIONS))
    assert found["bars_ohlcv"] == ["fillfactor=95", "autovacuum_enabled=off"]
    assert found["news"] == ["autovacuum_enabled=off", *ROOM]
    take_down(before_0004, "0003")
    assert select(old, OPTIONS) == [
        ("bars_ohlcv", ["fillfactor=95", "autovacuum_enabled=off"]),
        ("news", ["autovacuum_enabled=off"]),
    ]


PARTITIONED = """
    ALTER TABLE bars_ohlcv RENAME TO "bars of 2024";
    CREATE TABLE bars_ohlcv (LIKE "bars of 2024") PARTITION BY RANGE (ts);
    ALTER TABLE bars_ohlcv ATTACH PARTITION "bars of 2024" FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z');
    CREATE TABLE later PARTITION OF bars_ohlcv FOR VALUES FROM ('2025-01-01Z') TO (MAXVALUE) PARTITION BY LIST (symbol);
    CREATE TABLE "Rest" PARTITION OF later DEFAULT;
    ALTER TABLE news RENAME TO news_table;
    CREATE VIEW news AS SELECT * FROM news_table;
    DROP TABLE signals
"""


def test_what_has_pages_gets_room_and_a_line_names_what_has_none(
    before_0004: str, old: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    old.execute(PARTITIONED)
    with caplog.at_level(logging.WARNING, "market_data_store.migrations"):
        assert schema.upgrade(before_0004)[1].up_to_date
    with_room = ["Rest", "bars of 2024", "fundamentals", "options_snap"]
    assert select(old, OPTIONS) == [(name, ROOM) for name in with_room]
    assert caplog.messages == [
        "bars_ohlcv is a partitioned table: its fillfactor is not set",
        "later is a partitioned table: its fillfactor is not set",
        "news is a view: its fillfactor is not set",
    ]


def test_a_table_that_is_locked_is_tried_again(before_0004: str, old: Connection) -> None:
    # The next try waits from another moment.
    waits = "SELECT waitstart FROM pg_locks WHERE NOT granted AND relation = 'fundamentals'::regclass"
    with psycopg.connect(before_0004) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE fundamentals IN SHARE UPDATE EXCLUSIVE MODE")  # as VACUUM does
        upgrade = pool.submit(schema.upgrade, before_0004)
        first = wait_until(lambda: [since for (since,) in select(old, waits) if since], "the migration waits")
        wait_until(lambda: [since for (since,) in select(old, waits) if since and [since] != first], "it tries again")
        other.rollback()
        assert upgrade.result(timeout=30)[1].up_to_date
    assert dict(select(old, OPTIONS))["fundamentals"] == ROOM


def test_updates_stay_on_their_page(database_url: str, database: Connection) -> None:
    with closing(Writer(database_url)) as writer:
        write(writer, message(bars(3_000)))
        # One row in ten, and each of these again and again: bars that form.
        for at in range(1, 11):
            write(writer, message(bars(3_000, close=float(at))[::10], at=at))
    updated = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'bars_ohlcv'"
    (found,) = wait_until(lambda: [(all_, hot) for all_, hot in select(database, updated) if all_ == 3_000])
    assert found == (3_000, 3_000)
