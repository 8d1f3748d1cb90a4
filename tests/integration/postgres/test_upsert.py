"""Rows whose keys may be there already: what is looked up, what is written, and what each counts as."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until
from support.writing import AT, NO_COPY, Row, bar, bars, closes, message, select, write

from market_data_store.datasets import DATASETS
from market_data_store.postgres.statements import statements_of
from market_data_store.postgres.upsert import FEW_ROWS
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

#: Rows in the statements' parameters, and rows in a temporary table.
SIZES = [FEW_ROWS, FEW_ROWS + 20]
sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def updating(writer: Writer) -> Writer:
    return made_to_upsert(writer)


def made_to_upsert(writer: Writer) -> Writer:
    """It has met a key that was there already."""
    for _ in range(2):
        write(writer, message([bar(symbol="KNOWN")]))
    return writer


def rows_of(name: str, size: int) -> list[Row]:
    """Rows with every column that has no default."""
    texts = {"provider": "p", "interval": "1m", "name": "n", "id": "i", "title": "t", "option_type": "C"}
    numbers = dict.fromkeys(["seq", "strike", "open", "high", "low", "close", "price", "bid", "eps", "value"], 1)
    every_field: Row = {**texts, "expiry": "2024-01-19", **numbers, "sentiment_score": 1, "metadata": {"a": [None]}}
    known = {str(column.name) for column in DATASETS[name].columns}
    row = {field: value for field, value in every_field.items() if field in known}
    return [{**row, "symbol": f"S{i:03d}", "id": f"i{i}", "ts": AT.timestamp() + i} for i in range(size)]


@sizes
@pytest.mark.parametrize("name", DATASETS)
def test_new_changed_unchanged_and_stale_rows_of_a_batch_are_told_apart(
    writer: Writer, database: Connection, name: str, size: int
) -> None:
    changing = next(
        field for field in ("close", "price", "bid", "eps", "value", "sentiment_score") if field in values(name)
    )
    write(writer, message(rows_of(name, size - 5), name=name, at=10), name=name)
    early = rows_of(name, size)
    early[0][changing] = 2
    assert write(writer, message(early, name=name, at=5), name=name) == [Counts(written=5, unchanged=size - 6, stale=1)]
    late = rows_of(name, size)
    for row in late[:3]:
        row[changing] = None if changing in nullable(name) else 3
    assert write(writer, message(late, name=name, at=20), name=name) == [Counts(written=3, unchanged=size - 3)]
    assert write(writer, message(late, name=name, at=20), name=name) == [Counts(unchanged=size)]
    table = DATASETS[name].table.name
    assert select(database, f"SELECT count(*), count(*) FILTER (WHERE {changing} = 1) FROM {table}") == [
        (size, size - 3)
    ]


def values(name: str) -> tuple[str, ...]:
    return DATASETS[name].values


def nullable(name: str) -> set[str]:
    return {str(column.name) for column in DATASETS[name].columns if column.nullable}


def test_rows_that_need_no_writing_are_not_even_locked(updating: Writer, database: Connection) -> None:
    size = FEW_ROWS + 1
    write(updating, message(bars(size)))
    # After a batch that was written as a whole the next one is not looked up first.
    assert write(updating, message(bars(size))) == [Counts(unchanged=size)]
    database.execute("VACUUM FULL bars_ohlcv")
    assert write(updating, message(bars(size))) == [Counts(unchanged=size)]
    assert select(database, "SELECT count(*) FROM bars_ohlcv WHERE xmax::text <> '0'") == [(0,)]


DROP_IBM = """
    CREATE FUNCTION drop_ibm() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF NEW.symbol = ''IBM'' THEN RETURN NULL; END IF; RETURN NEW; END';
    CREATE TRIGGER drop_ibm BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION drop_ibm()
"""


@sizes
@pytest.mark.parametrize("copied", [True, False])
def test_a_row_that_a_trigger_drops_is_rejected(writer: Writer, database: Connection, size: int, copied: bool) -> None:
    if not copied:
        made_to_upsert(writer)
    database.execute(DROP_IBM)
    assert write(writer, message([*bars(size - 1), bar(symbol="IBM")])) == [Counts(written=size - 1, rejected=1)]
    assert select(database, "SELECT count(*) FROM bars_ohlcv WHERE symbol IN ('AAPL', 'IBM')") == [(size - 1,)]


ROUND_CLOSE = """
    CREATE FUNCTION round_close() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.close := round(NEW.close); RETURN NEW; END';
    CREATE TRIGGER round_close BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION round_close()
"""


@sizes
def test_what_a_trigger_makes_of_a_row_is_what_is_compared(writer: Writer, database: Connection, size: int) -> None:
    database.execute(ROUND_CLOSE)
    assert write(writer, message(bars(size, close=1.7))) == [Counts(written=size)]
    for at in (0, 1):
        assert write(writer, message(bars(size, close=1.7), at=at)) == [Counts(unchanged=size)]
    assert closes(database) == [2.0] * size


@sizes
@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param("close = 9, enqueued_at = '2025-01-01Z'", {"stale": 1}, id="newer"),
        pytest.param("close = 9, enqueued_at = '2023-01-01Z'", {"written": 1}, id="older"),
        pytest.param("close = 2, enqueued_at = '2025-01-01Z'", {"unchanged": 1}, id="the same"),
    ],
)
def test_a_row_that_another_writer_was_quicker_with_counts_as_what_it_is(
    updating: Writer,
    database: Connection,
    database_url: str,
    size: int,
    others: str,
    expected: dict[str, int],
) -> None:
    write(updating, message(bars(size)))
    write(updating, message(bars(size)))  # from here on Postgres is asked first
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(f"UPDATE bars_ohlcv SET {others} WHERE symbol = 'AAPL' AND ts = %s", [AT])
        attempt = pool.submit(write, updating, message(bars(size, close=2.0), at=1))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting), "the writer waits for the other's row")
        other.commit()
        counts = {"written": size - 1, "stale": 0, "unchanged": 0}
        for outcome, number in expected.items():
            counts[outcome] += number
        assert attempt.result(timeout=20) == [Counts(**counts)]
    assert closes(database)[1:size] == [2.0] * (size - 1)


@sizes
def test_a_row_that_another_writer_deletes_meanwhile_is_written_anew(
    updating: Writer, database: Connection, database_url: str, size: int
) -> None:
    write(updating, message(bars(size)))
    write(updating, message(bars(size)))
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("DELETE FROM bars_ohlcv WHERE symbol = 'AAPL'")
        attempt = pool.submit(write, updating, message(bars(size, close=2.0), at=1))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting), "the writer waits for the other's rows")
        other.commit()
        assert attempt.result(timeout=20) == [Counts(written=size)]


@sizes
@pytest.mark.parametrize("sqlstate", ["XX000", "0A000", "42501"])
def test_whatever_a_copy_fails_with_the_rows_are_written_another_way(
    writer: Writer, database: Connection, size: int, sqlstate: str
) -> None:
    # On Citus a duplicate key is XX000 for COPY.
    database.execute(NO_COPY.format(sqlstate))
    assert write(writer, message([*bars(size), 7])) == [Counts(written=size, rejected=1)]
    assert len(closes(database)) == size
    assert select(database, "SELECT count(*) FROM dead_letters") == [(1,)]


@sizes
@pytest.mark.parametrize(
    "column",
    [
        "loaded_at timestamptz NOT NULL DEFAULT now()",
        "number bigint GENERATED ALWAYS AS IDENTITY",
        "middle float8 GENERATED ALWAYS AS ((high + low) / 2) STORED",
    ],
)
def test_columns_of_the_owners_are_none_of_our_business(
    writer: Writer, database: Connection, size: int, column: str
) -> None:
    database.execute(f"ALTER TABLE bars_ohlcv ADD COLUMN {column}")
    assert write(writer, message(bars(size))) == [Counts(written=size)]
    assert write(writer, message(bars(size, close=2.0), at=1)) == [Counts(written=size)]
    assert write(writer, message(bars(size, close=2.0), at=1)) == [Counts(unchanged=size)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


STORE_ROWS = """
    INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at)
    SELECT 'ibkr', 'S' || s, '1m', timestamptz '2024-01-01Z' + m * interval '1 minute', 1, 1, 1, 1, '2024-01-01Z'
    FROM generate_series(1, 100) AS s, generate_series(1, 1000) AS m
"""
STAGE_ROWS = """
    INSERT INTO stage_bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at, n)
    SELECT provider, symbol, interval, ts, open, high, low, close, enqueued_at, row_number() OVER ()
    FROM bars_ohlcv ORDER BY provider, symbol, interval, ts LIMIT {}
"""


@pytest.mark.parametrize("size", [300, 5_000, 50_000])
@pytest.mark.parametrize("analyzed", [True, False])
def test_stored_rows_are_looked_up_by_their_keys(database: Connection, size: int, analyzed: bool) -> None:
    statements = statements_of(DATASETS["bars"])
    database.execute(STORE_ROWS)
    if analyzed:
        database.execute("VACUUM ANALYZE bars_ohlcv")
    with database.transaction():
        database.execute(statements.stage)
        database.execute(STAGE_ROWS.format(size))
        ((plan,),) = database.execute(b"EXPLAIN (FORMAT JSON) " + statements.staged.look.as_bytes(database)).fetchall()
    scans = {node["Alias"]: node["Node Type"] for node in nodes(plan[0]["Plan"]) if "Alias" in node}
    assert scans["stored"] in ("Index Scan", "Bitmap Heap Scan")
    # Above this Postgres compiles a statement before it runs it.
    assert plan[0]["Plan"]["Total Cost"] < 100_000


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in nodes(part))]
