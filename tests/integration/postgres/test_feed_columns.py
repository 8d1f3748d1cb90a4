"""The columns that feeds carry: added to tables of any size and form, taken away, and added again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from support.databases import Connection, take_down
from support.waiting import wait_until
from support.writing import bar, message, select, write

from market_data_store.errors import MigrationFailed
from market_data_store.postgres import schema
from market_data_store.postgres.writer import Writer

ADDED = {
    "bars_ohlcv": ["final", "metadata"],
    "options_snap": ["metadata"],
    "quotes": ["venue", "received_at", "nanos", "metadata"],
    "tick_data": ["trade_id", "side", "venue", "conditions", "received_at", "nanos", "metadata"],
}
TICK = {
    **{"provider": "p", "symbol": "AMpB", "ts": "2024-01-02T14:30:00Z", "price": 1.5, "trade_id": "a", "side": "buy"},
    **{"venue": "XNAS", "conditions": ["@", "T"], "received_at": "2024-01-02T14:30:01Z", "nanos": 7, "x": [1]},
}
FILES = (
    "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname IN ('bars_ohlcv', 'tick_data') ORDER BY 1"
)


@pytest.fixture
def old(before_0005: str) -> Iterator[Connection]:
    """A connection to that database; each statement is committed."""
    with psycopg.connect(before_0005, autocommit=True) as connection:
        yield connection


def columns(connection: Connection, table: str) -> list[str]:
    names = "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position"
    return [name for (name,) in connection.execute(names, [table]).fetchall()]


def fill(connection: Connection) -> None:
    connection.execute("INSERT INTO bars_ohlcv VALUES ('p', 'S', '1m', '2024-01-02Z', 1, 2, 3, 4, 5, 6, 7, now())")
    connection.execute("INSERT INTO tick_data VALUES ('p', 'S', '2024-01-02Z', 1, 1.5, 2, 3, 4, now())")


def test_rows_stay_as_they_are_and_are_not_written_again(before_0005: str, old: Connection) -> None:
    fill(old)
    before = {table: columns(old, table) for table in ADDED}
    files, rows = select(old, FILES), select(old, "SELECT * FROM tick_data")
    for _ in range(2):
        schema.upgrade(before_0005)
        assert {table: columns(old, table) for table in ADDED} == {
            table: [*names, *ADDED[table]] for table, names in before.items()
        }
        assert select(old, FILES) == files
        assert select(old, "SELECT * FROM tick_data") == [(*row, *[None] * 7) for row in rows]
        with closing(Writer(before_0005)) as writer:
            write(writer, message([TICK], name="ticks"), name="ticks")
            write(writer, message([bar(final=True, x=1)]))
        take_down(before_0005, "0004")
        assert {table: columns(old, table) for table in ADDED} == before
        assert select(old, "SELECT count(*) FROM tick_data") == [(2,)]
        old.execute("DELETE FROM tick_data WHERE symbol = 'AMpB'")


def test_partitions_get_the_columns_from_their_table(before_0005: str, old: Connection) -> None:
    old.execute("""
        ALTER TABLE tick_data RENAME TO "ticks of 2024";
        CREATE TABLE tick_data (LIKE "ticks of 2024" INCLUDING ALL) PARTITION BY RANGE (ts);
        ALTER TABLE tick_data ATTACH PARTITION "ticks of 2024" FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z');
        CREATE TABLE later PARTITION OF tick_data FOR VALUES FROM ('2025-01-01Z') TO (MAXVALUE);
    """)
    fill(old)
    schema.upgrade(before_0005)
    assert columns(old, "ticks of 2024") == columns(old, "later") == columns(old, "tick_data")
    with closing(Writer(before_0005)) as writer:
        counts = write(writer, message([TICK, {**TICK, "ts": "2025-01-02"}], name="ticks"), name="ticks")
    assert [count.written for count in counts] == [2]
    assert select(old, "SELECT DISTINCT conditions, metadata FROM tick_data WHERE symbol = 'AMpB'") == [
        (["@", "T"], {"x": [1]})
    ]
    take_down(before_0005, "0004")
    assert "venue" not in columns(old, "later")


def test_a_table_in_use_is_tried_again(before_0005: str, old: Connection) -> None:
    waits = "SELECT waitstart FROM pg_locks WHERE NOT granted AND relation = 'quotes'::regclass"
    with psycopg.connect(before_0005) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM quotes")  # as a backup does
        upgrade = pool.submit(schema.upgrade, before_0005)
        first = wait_until(lambda: [since for (since,) in select(old, waits) if since], "the migration waits")
        wait_until(lambda: [since for (since,) in select(old, waits) if since and [since] != first], "it tries again")
        other.rollback()
        assert upgrade.result(timeout=30)[1].up_to_date


def test_columns_that_the_owner_has_added_are_taken_if_they_have_the_type(before_0005: str, old: Connection) -> None:
    old.execute("ALTER TABLE bars_ohlcv ADD COLUMN metadata jsonb")
    old.execute("ALTER TABLE tick_data ADD COLUMN venue text")
    schema.upgrade(before_0005)
    assert columns(old, "bars_ohlcv")[-2:] == ["metadata", "final"]
    take_down(before_0005, "0004")
    old.execute("ALTER TABLE quotes ADD COLUMN venue integer")
    with pytest.raises(MigrationFailed, match=r"quotes\.venue exists with the type integer; rename it"):
        schema.upgrade(before_0005)
    assert schema.revisions(before_0005).current == "0004"
    assert "side" not in columns(old, "tick_data")
