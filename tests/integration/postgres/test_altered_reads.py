"""Reads, exports, retention and replays of a table with columns of other types: right, or one line that names one."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from support.databases import Connection
from support.writing import AT, bar, bars, message, select, write

from market_data_store import reads
from market_data_store.datasets import DATASETS
from market_data_store.errors import DatasetUnavailable
from market_data_store.files.exporting import export
from market_data_store.postgres import retention
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

ALTERED = "ALTER TABLE bars_ohlcv ALTER close TYPE numeric(18,8), ALTER volume TYPE bigint, ALTER trade_count TYPE int"


def test_reads_return_the_declared_types(writer: Writer, database: Connection) -> None:
    database.execute(ALTERED)
    write(writer, message([bar(close=1.75, volume=1000.0, trade_count=5)]))
    (row,) = reads.bars(database, "AAPL", "1m", AT, AT + timedelta(minutes=1))
    assert (row["ts"], row["close"], row["volume"], row["trade_count"]) == (AT, 1.75, 1000.0, 5)
    assert (type(row["close"]), type(row["volume"])) == (float, float)


@pytest.mark.parametrize("name", ["bars.ndjson", "bars.csv"])
def test_an_export_is_the_same_as_before(writer: Writer, database: Connection, tmp_path: Path, name: str) -> None:
    write(writer, message([bar(close=1.75, volume=1000.0, trade_count=5)]))
    contents = []
    for change in ("", ALTERED):
        database.execute(change)
        export(database, DATASETS["bars"], tmp_path / name, {})
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_an_export_of_a_column_without_the_datasets_values_names_it(
    writer: Writer, database: Connection, tmp_path: Path
) -> None:
    write(writer, message([bar()]))
    database.execute("ALTER TABLE bars_ohlcv ALTER ts TYPE timestamp")
    with pytest.raises(DatasetUnavailable, match=r"^bars: bars_ohlcv\.ts is timestamp without time zone; "):
        export(database, DATASETS["bars"], tmp_path / "bars.csv", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("type_", ["timestamp", "date", "text"])
def test_retention_deletes_nothing_by_times_without_a_zone(writer: Writer, database: Connection, type_: str) -> None:
    write(writer, message([bar()]))
    database.execute(f"ALTER TABLE bars_ohlcv ALTER ts TYPE {type_}")
    with pytest.raises(DatasetUnavailable, match=r"^bars: bars_ohlcv\.ts is .*; the store needs timestamp with"):
        retention.apply(database, {"bars": 1})
    assert select(database, "SELECT count(*) FROM bars_ohlcv") == [(1,)]


def test_retention_deletes_from_a_table_whose_values_have_other_types(writer: Writer, database: Connection) -> None:
    database.execute(f"{ALTERED}; ALTER TABLE bars_ohlcv DROP vwap, ALTER ts TYPE timestamptz(0)")
    database.execute(
        "INSERT INTO bars_ohlcv (provider, symbol, interval, ts, open, high, low, close, enqueued_at) "
        "VALUES ('p', 's', '1m', '2000-01-01Z', 1, 1, 1, 1, now()), ('p', 's', '1m', now(), 1, 1, 1, 1, now())"
    )
    assert [expired.rows for expired in retention.apply(database, {"bars": 1})] == [1]


def test_a_letter_of_a_value_that_did_not_fit_is_written_once_the_type_is_mended(
    writer: Writer, database: Connection
) -> None:
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE bigint")
    sent = [*bars(30, volume=1000.0), bar(symbol="IBM", volume=0.5)]
    assert write(writer, message(sent)) == [Counts(written=30, rejected=1)]
    ((row,),) = select(database, "SELECT row::text FROM dead_letters")
    database.execute("ALTER TABLE bars_ohlcv ALTER volume TYPE double precision")
    assert write(writer, message([json.loads(row)], at=1)) == [Counts(written=1)]
    assert select(database, "SELECT volume FROM bars_ohlcv WHERE symbol = 'IBM'") == [(0.5,)]
