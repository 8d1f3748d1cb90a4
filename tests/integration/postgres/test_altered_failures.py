"""Failed writes to a table whose columns have other types: what does not fit and what is refused are told apart."""

from __future__ import annotations

import logging

import psycopg
import pytest
from support.databases import Connection
from support.writing import Row, bar, bars, message, select, write

from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.failures import FEW_ROWS
from market_data_store.postgres.upsert import FEW_ROWS as FEW_TO_SEND
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

BIGINT = "ALTER TABLE bars_ohlcv ALTER volume TYPE bigint"
REFUSES_ALL = "ALTER TABLE bars_ohlcv ADD CONSTRAINT refuses CHECK (close < 0) NOT VALID"
LETTERS = "SELECT split_part(reason, ':', 1), sqlstate, count(*) FROM dead_letters GROUP BY 1, 2 ORDER BY 1"
SIZES = [FEW_TO_SEND - 5, FEW_TO_SEND + 20]
sizes = pytest.mark.parametrize("size", SIZES)


@sizes
def test_rows_that_do_not_fit_and_rows_that_are_refused_are_letters_each(
    writer: Writer, database: Connection, size: int
) -> None:
    database.execute(f"{BIGINT}, ADD CHECK (volume < 10000)")
    rows: list[Row] = [*bars(size, volume=1000.0), bar(symbol="A", volume=0.5), bar(symbol="B", volume=20_000.0)]
    for again in (False, True):
        assert write(writer, message(rows, task_id="t")) == [
            Counts(unchanged=size, rejected=2) if again else Counts(written=size, rejected=2)
        ]
    assert select(database, LETTERS) == [("Postgres refuses the row", "23514", 1), ("volume", "22003", 1)]
    assert select(database, "SELECT DISTINCT volume FROM bars_ohlcv") == [(1000,)]


@sizes
def test_of_a_key_whose_newest_rows_are_refused_and_do_not_fit_the_third_is_written(
    writer: Writer, database: Connection, size: int
) -> None:
    database.execute(f"{BIGINT}, ADD CHECK (volume < 10000)")
    write(writer, message([bar(symbol="BEFORE")]))
    sent = [message(bars(size, volume=volume), at=at) for at, volume in enumerate((7.0, 0.5, 20_000.0))]
    assert write(writer, *sent) == [Counts(written=size), Counts(rejected=size), Counts(rejected=size)]
    assert select(database, "SELECT DISTINCT volume FROM bars_ohlcv WHERE symbol = 'AAPL'") == [(7,)]


@pytest.mark.parametrize("type_", ["bigint", "numeric(10,2)", "real"])
def test_an_experiment_casts_rows_and_the_copy_of_a_stored_one(
    writer: Writer, database: Connection, type_: str
) -> None:
    database.execute(f"ALTER TABLE bars_ohlcv ALTER volume TYPE {type_}, ALTER ts TYPE timestamptz(0)")
    write(writer, message([bar(symbol="BEFORE", volume=7.0)]))
    database.execute("ALTER TABLE bars_ohlcv ADD CHECK (volume < 10000)")
    # Every row is refused, and the copy goes in: the rows are at fault.
    assert write(writer, message(bars(50, volume=16_384.0))) == [Counts(rejected=50)]
    database.execute(REFUSES_ALL)
    with pytest.raises(DatasetUnavailable, match="refuses"):
        write(writer, message([bar(volume=1.0)]))


@sizes
def test_while_a_dataset_is_in_trouble_what_does_not_fit_makes_no_letter(
    writer: Writer, database: Connection, size: int
) -> None:
    write(writer, message([bar(symbol="BEFORE", volume=7.0)]))
    database.execute(BIGINT)
    database.execute(REFUSES_ALL)
    sent = message([*bars(size, volume=1000.0), bar(symbol="A", volume=0.5)])
    for _ in range(2):
        with pytest.raises(DatasetUnavailable, match="refuses"):
            write(writer, sent)
    assert select(database, LETTERS) == []
    database.execute("ALTER TABLE bars_ohlcv DROP CONSTRAINT refuses")
    assert write(writer, sent) == [Counts(written=size, rejected=1)]
    assert select(database, LETTERS) == [("volume", "22003", 1)]


@sizes
def test_a_type_that_no_row_of_a_batch_fits_holds_the_dataset(
    writer: Writer, database: Connection, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    database.execute(BIGINT)
    few = message(bars(FEW_ROWS, volume=0.5))
    assert write(writer, few) == [Counts(rejected=FEW_ROWS)]
    caplog.clear()
    reason = r"^bars: bars_ohlcv\.volume is bigint; the store needs double precision \(SQLSTATE 22003\)$"
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(DatasetUnavailable, match=reason):
                write(writer, message(bars(size, volume=0.5), at=1))
    assert len(caplog.records) == 1
    assert select(database, LETTERS) == [("volume", "22003", FEW_ROWS)]
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE float8")
    assert write(writer, message(bars(size, volume=0.5), at=1)) == [Counts(written=size)]


def test_a_type_that_was_renamed_is_looked_up_again(writer: Writer, database: Connection) -> None:
    database.execute(
        "CREATE TYPE period AS ENUM ('1m', '5m'); ALTER TABLE bars_ohlcv ALTER interval TYPE period USING '1m'"
    )
    assert write(writer, message(bars(30))) == [Counts(written=30)]
    database.execute("ALTER TYPE period RENAME TO span")
    assert write(writer, message(bars(30, close=2.5), at=1)) == [Counts(written=30)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 50])
def test_a_table_that_is_locked_holds_its_dataset_before_it_is_looked_at(
    writer: Writer, database_url: str, database: Connection, size: int
) -> None:
    database.execute(BIGINT)
    with psycopg.connect(database_url) as owner:
        owner.execute("LOCK TABLE bars_ohlcv")
        with pytest.raises(DatasetUnavailable) as held:
            write(writer, message(bars(size, volume=1.0)))
        assert held.value.sqlstate == "55P03"
    assert write(writer, message(bars(size, volume=1.0))) == [Counts(written=size)]
