"""A large message is written in portions: what is committed stays, and a turn that is resumed goes on behind it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from support.databases import Connection
from support.writing import bars, message, select, write

from market_data_store.errors import DatabaseUnavailable, DatasetUnavailable
from market_data_store.postgres import portions
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.found import Tables
from market_data_store.postgres.memory import Memory
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.postgres.parameters import adapt
from market_data_store.postgres.portions import write_portions
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

#: Refuses one row in fifteen of `mixed`.
RULE = "ALTER TABLE bars_ohlcv ADD CONSTRAINT positive CHECK (close > 0)"
#: Ends the write at the 500th row of `mixed` as a server without space does.
FULL = """
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        IF NEW.volume = 500 THEN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END IF;
        RETURN NEW;
    END$$;
    CREATE TRIGGER t BEFORE INSERT ON bars_ohlcv FOR EACH ROW EXECUTE FUNCTION f()
"""
#: Takes the rows, and counts those that are done, but for the portion in which the turn was ended.
MENDED = """
    CREATE SEQUENCE again;
    CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        IF NEW.volume < 400 THEN PERFORM nextval('again'); END IF;
        RETURN NEW;
    END$$
"""


def mixed(count: int) -> DecodedMessage:
    rows = [{**row, "volume": n, "close": -1.0 if n % 15 == 0 else 1.5} for n, row in enumerate(bars(count))]
    return message(rows, task_id="large")


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "MOST_ROWS", 100)
    monkeypatch.setattr(portions, "_MOST_RESUMED", 100)
    monkeypatch.setattr(portions, "_MOST_LETTERS", 10)


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("known", [True, False], ids=["it is known how far", "killed"])
def test_what_a_turn_has_done_is_not_done_again(
    writer: Writer, database: Connection, database_url: str, known: bool
) -> None:
    database.execute(RULE)
    database.execute(FULL)
    sent = mixed(1_000)
    with pytest.raises(DatabaseUnavailable, match="the disk is full"):
        write(writer, sent)
    assert writer.reached == 500
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(466,)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(34,)]
    database.execute(MENDED)
    rows = decoded(sent.dataset, [sent])
    again = Writer(database_url)
    written = again.write(rows, [sent], resumed_at=500 if known else 0)
    again.close()
    assert written.counts == [Counts(written=467, unchanged=466, rejected=67)]
    assert again.reached == 1_000
    assert select(database, "SELECT count(*), count(DISTINCT position) FROM dead_letters") == [(67, 67)]
    assert select(database, "SELECT is_called FROM again") == [(False,)]


@pytest.mark.usefixtures("small_portions")
def test_rejected_rows_are_kept_in_portions(writer: Writer, database: Connection) -> None:
    assert write(writer, message([*range(25), *bars(5)])) == [Counts(rejected=25, written=5)]
    assert writer.reached == 30
    assert select(database, "SELECT count(*) FROM dead_letters") == [(25,)]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        adapt(connection.adapters)
        yield connection


@pytest.mark.usefixtures("small_portions")
def test_a_table_that_is_altered_between_two_portions_makes_no_letter(
    connection: psycopg.Connection, database: Connection
) -> None:
    sent = message(bars(300))
    batch = Batch(decoded(sent.dataset, [sent]), [sent])
    turn = write_portions(connection, Tables(), batch, Memory(), None)
    assert next(turn) == 100
    database.execute("ALTER TABLE bars_ohlcv RENAME close TO last")
    with pytest.raises(DatasetUnavailable):
        next(turn)
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(100,)]


@pytest.mark.usefixtures("small_portions")
@pytest.mark.parametrize("first", [True, False], ids=["the first", "a later"])
@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        "CREATE TABLE good (close float PRIMARY KEY); INSERT INTO good VALUES (1.5);"
        "ALTER TABLE bars_ohlcv ADD FOREIGN KEY (close) REFERENCES good",
    ],
    ids=["a check", "a foreign key"],
)
def test_a_portion_of_refused_rows_does_not_hold_the_dataset_if_others_go_in(
    writer: Writer, database: Connection, rule: str, first: bool
) -> None:
    database.execute(rule)
    rows = [{**row, "close": -1.0 if (n < 150) is first else 1.5} for n, row in enumerate(bars(300))]
    (counts,) = write(writer, message([*rows, 7]))
    assert counts.written + counts.unchanged == 150
    assert counts.rejected == 151
    assert select(database, "SELECT count(*) FROM dead_letters") == [(151,)]
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(150,)]
