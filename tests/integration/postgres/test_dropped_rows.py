"""Rows that the owner's trigger drops, changes or puts elsewhere: none is called stored that is not."""

from __future__ import annotations

from typing import Any

import pytest
from support.databases import Connection
from support.writing import bar, bars, message, select, write, written

from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

TRIGGER = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NEW; END$$;
    CREATE TRIGGER t BEFORE {event} ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()
"""
DROPS = "IF NEW.volume > 5000 THEN RETURN NULL; END IF;"
REASON = "Postgres refuses the row: a trigger of bars_ohlcv drops it"
#: Rows in a temporary table, and rows in parameters.
sizes = pytest.mark.parametrize("size", [10, 100])


def triggered(database: Connection, body: str, event: str = "INSERT OR UPDATE") -> None:
    database.execute(TRIGGER.format(body=body, event=event))


def stored(database: Connection) -> int:
    ((number,),) = select(database, "SELECT count(*) FROM bars_ohlcv")
    return int(number)


def letters(database: Connection) -> list[tuple[Any, ...]]:
    return select(database, "SELECT DISTINCT reason, pattern, sqlstate FROM dead_letters")


@sizes
def test_a_new_row_that_a_trigger_drops_is_a_letter(writer: Writer, database: Connection, size: int) -> None:
    triggered(database, DROPS)
    rows = bars(size)
    rows[3]["volume"] = 9999.0
    for expected in (Counts(written=size - 1, rejected=1), Counts(unchanged=size - 1, rejected=1)):
        outcome = written(writer, message(rows))
        assert outcome.counts == [expected]
        assert [(r.position, r.reason) for r in outcome.rejections[0]] == [(3, REASON)]
    assert stored(database) == size - 1
    assert letters(database) == [(REASON, "Postgres refuses the row (SQLSTATE 02000)", "02000")]


@sizes
def test_an_update_that_a_trigger_drops_is_a_letter(writer: Writer, database: Connection, size: int) -> None:
    write(writer, message(bars(size), at=1))
    triggered(database, "RETURN NULL;", "UPDATE")
    assert write(writer, message(bars(size, close=1.25), at=2)) == [Counts(rejected=size)]
    assert write(writer, message(bars(size), at=2)) == [Counts(unchanged=size)]
    assert select(database, "SELECT count(*) FROM bars_ohlcv WHERE close = 1.25") == [(0,)]


@sizes
def test_a_trigger_that_drops_every_row_does_not_stop_the_dataset(
    writer: Writer, database: Connection, size: int
) -> None:
    triggered(database, "RETURN NULL;")
    assert write(writer, message(bars(size))) == [Counts(rejected=size)]
    database.execute("DROP TRIGGER t ON bars_ohlcv")
    assert write(writer, message(bars(size), task_id="again")) == [Counts(written=size)]


@sizes
def test_rows_that_a_trigger_changes_are_stored(writer: Writer, database: Connection, size: int) -> None:
    triggered(database, "NEW.close := round(NEW.close); NEW.symbol := upper(NEW.symbol);")
    rows = [{**row, "symbol": "aapl"} for row in bars(size, close=1.6)]
    assert write(writer, message(rows, at=1)) == [Counts(written=size)]
    assert write(writer, message(rows, at=2)) == [Counts(unchanged=size)]
    assert stored(database) == size
    assert letters(database) == []


@sizes
def test_of_rows_with_changed_keys_only_the_dropped_ones_are_letters(
    writer: Writer, database: Connection, size: int
) -> None:
    triggered(database, DROPS + " NEW.symbol := upper(NEW.symbol);")
    rows = [{**row, "symbol": "aapl"} for row in bars(size)]
    rows[3]["volume"] = rows[5]["volume"] = 9999.0
    for _ in range(2):
        (counts,) = write(writer, message(rows))
        assert (counts.rejected, counts.written + counts.unchanged) == (2, size - 2)
    assert stored(database) == size - 2


def test_an_older_row_takes_the_place_of_a_dropped_one(writer: Writer, database: Connection) -> None:
    triggered(database, DROPS)
    outcome = write(writer, message([bar(volume=1.0), bar(volume=9999.0)]))
    assert outcome == [Counts(written=1, rejected=1)]
    assert select(database, "SELECT volume FROM bars_ohlcv") == [(1.0,)]


def test_rows_that_a_trigger_puts_into_a_child_are_there(writer: Writer, database: Connection) -> None:
    database.execute("CREATE TABLE child (LIKE bars_ohlcv INCLUDING ALL) INHERITS (bars_ohlcv)")
    triggered(database, "INSERT INTO child VALUES (NEW.*); RETURN NULL;", "INSERT")
    (counts,) = write(writer, message(bars(100)))
    assert (counts.rejected, counts.stale, stored(database)) == (0, 0, 100)


def test_a_table_with_a_rule_and_a_view_take_no_rows(writer: Writer, database: Connection) -> None:
    write(writer, message(bars(30), at=1))
    database.execute("CREATE RULE r AS ON INSERT TO bars_ohlcv DO INSTEAD NOTHING")
    with pytest.raises(DatasetUnavailable, match="cannot perform INSERT"):
        write(writer, message(bars(30, close=1.25), at=2))
    database.execute("DROP RULE r ON bars_ohlcv; ALTER TABLE bars_ohlcv RENAME TO old")
    database.execute("CREATE VIEW bars_ohlcv AS SELECT * FROM old UNION ALL SELECT * FROM old")
    database.execute("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$")
    database.execute("CREATE TRIGGER t INSTEAD OF INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()")
    with pytest.raises(DatasetUnavailable, match="a view that takes no rows"):
        write(writer, message(bars(30, close=1.25), at=2))
