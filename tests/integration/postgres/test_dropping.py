"""What a downgrade deletes is counted before: exactly within the time that a count gets, else by an estimate."""

from __future__ import annotations

import psycopg
import pytest
from support.databases import Connection, new_database

from market_data_store.postgres import dropping, schema
from market_data_store.postgres.dropping import Dropped

#: With a value of `trade_id` in every second row.
ROWS = """
    INSERT INTO tick_data (provider, symbol, ts, seq, price, size, enqueued_at, trade_id)
    SELECT 'p', 'S', '2024-01-02'::timestamptz + n * interval '1 hour', n, 1, 1, now(), CASE n % 2 WHEN 0 THEN 't' END
    FROM generate_series(1, 1000) n
"""
PARTITIONED = """
    DROP TABLE tick_data;
    CREATE TABLE tick_data (LIKE other INCLUDING ALL) PARTITION BY RANGE (ts);
    CREATE TABLE ticks_1 PARTITION OF tick_data FOR VALUES FROM (MINVALUE) TO ('2024-01-20');
    CREATE TABLE ticks_2 PARTITION OF tick_data FOR VALUES FROM ('2024-01-20') TO (MAXVALUE);
    DROP TABLE other
"""


def make(database: Connection, *, partitioned: bool) -> None:
    if partitioned:
        database.execute("CREATE TABLE other (LIKE tick_data INCLUDING ALL)")
        database.execute(PARTITIONED)
    database.execute(ROWS)


@pytest.mark.parametrize("partitioned", [False, True])
def test_the_values_of_a_column_are_counted_also_in_partitions(
    database_url: str, database: Connection, partitioned: bool
) -> None:
    make(database, partitioned=partitioned)
    found = list(dropping.dropped(database, {"tick_data": ("trade_id", "side", "no_such"), "first_takes": ()}))
    assert found == [
        Dropped("tick_data", "trade_id", 500),
        Dropped("tick_data", "side", 0),
        Dropped("first_takes", None, 0),
    ]
    assert [str(each) for each in found][::2] == ["tick_data.trade_id: 500 values", "first_takes: 0 rows"]


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_count_that_takes_too_long_is_an_estimate(
    database_url: str, database: Connection, partitioned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropping, "COUNT_MS", 200)
    make(database, partitioned=partitioned)
    tables = ("ticks_1", "ticks_2") if partitioned else ("tick_data",)
    with psycopg.connect(database_url) as other:  # a count waits for this lock until its time is over
        other.execute("LOCK TABLE tick_data IN ACCESS EXCLUSIVE MODE")
        (unknown,) = dropping.dropped(database, {"tick_data": ("trade_id",)})
        other.rollback()
        for table in tables:
            database.execute(f"ANALYZE {table}")
        other.execute("LOCK TABLE tick_data IN ACCESS EXCLUSIVE MODE")
        (column,) = dropping.dropped(database, {"tick_data": ("trade_id",)})
        (whole,) = dropping.dropped(database, {"tick_data": ()})
    assert str(unknown) == "tick_data.trade_id: an unknown number of values (run ANALYZE tick_data)"
    assert str(column) == "tick_data.trade_id: about 500 values"
    assert str(whole) == "tick_data: about 1,000 rows"


@pytest.mark.slow
def test_each_migration_says_what_its_downgrade_deletes(postgres_url: str, migrated_template: str) -> None:
    """By the catalogue before and after."""
    query = """
        SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'public'
    """
    with new_database(postgres_url, migrated_template) as url:
        current = schema.revisions(url).current
        while current is not None:
            with psycopg.connect(url) as connection:
                before = set(connection.execute(query).fetchall())
            said = {(each.table, each.column) for each in schema.to_be_dropped(url)}
            current = schema.downgrade(url)[1].current
            with psycopg.connect(url) as connection:
                after = set(connection.execute(query).fetchall())
            tables = {table for table, _ in after}
            gone = {(table, column if table in tables else None) for table, column in before - after}
            assert said == gone - {("alembic_version", None)}


def test_a_database_without_a_table_loses_nothing(unmigrated_url: str) -> None:
    assert schema.to_be_dropped(unmigrated_url) == []
