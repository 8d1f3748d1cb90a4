"""Whole tables as Arrow, polars and pandas: every value as it is stored, by whatever bounds and connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from sqlalchemy.dialects.postgresql import JSONB
from support.awkward import awkward
from support.databases import Connection, database_at
from support.writing import AT, Row, bar, bars, message, write

from market_data_store import InvalidRead, MarketDataStoreError, reads
from market_data_store.config import settings
from market_data_store.datasets import DATASETS
from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import schema
from market_data_store.postgres.writer import Writer

TIME = pa.timestamp("us", tz="UTC")


@pytest.fixture
def writer(database_url: str) -> Iterator[Writer]:
    writer = Writer(database_url)
    yield writer
    writer.close()


@pytest.mark.usefixtures("any_year")
@pytest.mark.parametrize("name", DATASETS)
def test_every_value_is_as_it_is_stored(name: str, writer: Writer, database: Connection, database_url: str) -> None:
    dataset = DATASETS[name]
    write(writer, message(awkward(dataset), name=name), name=name)
    found = reads.table(name, database=database_url)
    names = [column.name for column in dataset.columns]
    query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
        sql.SQL(", ").join(
            sql.Identifier(n) + sql.SQL("::text" if isinstance(dataset.table.columns[n].type, JSONB) else "")
            for n in names
        ),
        sql.Identifier(dataset.table.name),
        sql.SQL(", ").join(map(sql.Identifier, dataset.key)),
    )
    database.execute("SET timezone = 'UTC'")
    stored = database.execute(query).fetchall()
    assert found.column_names == names
    assert len(stored) > 100
    # Their texts: -0.0 equals 0.0.
    assert [[shown(value) for value in row.values()] for row in found.to_pylist()] == [
        [shown(value) for value in row] for row in stored
    ]


def shown(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else repr(value)


def test_the_types_are_exact_whatever_the_owner_made_of_the_columns(
    writer: Writer, database: Connection, database_url: str
) -> None:
    write(writer, message([bar(close=1.75, volume=1000.0, trade_count=5, extra={"b": 1, "a": None})]))
    before = reads.table("bars", database=database_url)
    database.execute(
        "ALTER TABLE bars_ohlcv ALTER close TYPE numeric(18,8), ALTER volume TYPE bigint, ALTER trade_count TYPE int, "
        "ALTER symbol TYPE varchar(20), ALTER metadata TYPE json, ALTER ts TYPE timestamptz(0)"
    )
    assert reads.table("bars", database=database_url).equals(before)
    assert before.schema == pa.schema(
        [
            *((name, pa.string()) for name in ("provider", "symbol", "interval")),
            ("ts", TIME),
            *((name, pa.float64()) for name in ("open", "high", "low", "close", "volume", "vwap")),
            ("trade_count", pa.int64()),
            ("final", pa.bool_()),
            ("metadata", pa.string()),
        ]
    )
    for chosen in ("AAPL", ["AAPL", "IBM"]):
        assert reads.table("bars", symbols=chosen, interval="1m", database=database_url).equals(before)
    database.execute("ALTER TABLE bars_ohlcv ALTER close TYPE text")
    with pytest.raises(DatabaseUnavailable, match=r"^bars: bars_ohlcv\.close is text; the store needs double"):
        reads.table("bars", database=database_url)


def test_an_empty_table_has_the_types_as_well(database_url: str) -> None:
    found = reads.table("ticks", columns=["conditions", "ts", "nanos", "enqueued_at"], database=database_url)
    assert found.num_rows == 0
    assert found.schema == pa.schema(
        [("conditions", pa.list_(pa.string())), ("ts", TIME), ("nanos", pa.int32()), ("enqueued_at", TIME)]
    )
    assert reads.table("options", columns=["expiry"], database=database_url).schema.types == [pa.date32()]


def test_what_is_asked_for_is_not_mistaken_for_what_is_stored(
    writer: Writer, database: Connection, database_url: str
) -> None:
    """A column that does not tell case apart finds AAPL for aapl."""
    row = {"provider": "p", "ts": "2024-01-02", "title": "t", "symbol": "AAPL"}
    write(writer, message([row], name="news"), name="news")
    database.execute("CREATE EXTENSION IF NOT EXISTS citext; ALTER TABLE news ALTER symbol TYPE citext")
    found = reads.table("news", symbols="aapl", columns=["symbol"], database=database_url)
    assert found["symbol"].to_pylist() == ["AAPL"]


DAY = datetime(2024, 1, 2)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-02", "2024-01-03"),
        ("2024-01-02T00:00:00Z", " 2024-01-03 "),
        (date(2024, 1, 2), date(2024, 1, 3)),
        (DAY, DAY + timedelta(days=1)),
        (DAY.replace(tzinfo=UTC), "2024-01-03T05:30:00+05:30"),
        (datetime(2024, 1, 1, 19, tzinfo=timezone(timedelta(hours=-5))), date(2024, 1, 3)),
    ],
)
def test_bounds_may_be_texts_dates_and_times(writer: Writer, database_url: str, start: Any, end: Any) -> None:
    days = ["2024-01-01T23:59:59.999999Z", "2024-01-02", "2024-01-02T23:59:59.999999Z", "2024-01-03"]
    write(writer, message([bar(ts=ts) for ts in days]))
    for found in (
        reads.table("bars", start=start, end=end, columns=["ts"], database=database_url),
        reads.bars_table("AAPL", "1m", start, end, columns=["ts"], database=database_url),
    ):
        assert found["ts"].to_pylist() == [
            datetime(2024, 1, 2, tzinfo=UTC),
            datetime(2024, 1, 2, 23, 59, 59, 999_999, tzinfo=UTC),
        ]
    assert reads.table("bars", start=end, database=database_url).num_rows == 1
    assert reads.table("bars", end=start, database=database_url).num_rows == 1


def chosen(database_url: str, **options: Any) -> list[tuple[Any, ...]]:
    found = reads.table("bars", columns=["provider", "symbol", "interval"], database=database_url, **options)
    return [tuple(row.values()) for row in found.to_pylist()]


def test_names_choose_rows_in_key_order(writer: Writer, database_url: str) -> None:
    keys = sorted((p, s, i) for p in ("b'x", "a") for s in ("AMPB", "AMpB", "%(x)s") for i in ("1m", "5m"))
    rows: list[Row] = [bar(provider=p, symbol=s, interval=i) for p, s, i in reversed(keys)]
    write(writer, message(rows))
    assert chosen(database_url) == keys
    assert chosen(database_url, symbols="AMpB") == [key for key in keys if key[1] == "AMpB"]
    assert chosen(database_url, symbols={"AMpB", "%(x)s", "gone"}, interval="5m", provider=["b'x"]) == [
        ("b'x", "%(x)s", "5m"),
        ("b'x", "AMpB", "5m"),
    ]
    assert chosen(database_url, symbols=[]) == []


def test_bars_are_in_order_of_time(writer: Writer, database_url: str, database: Connection) -> None:
    write(writer, message([*bars(3), *bars(3, provider="cme"), bar(symbol="IBM"), bar(interval="1d")]))
    found = reads.bars_table("AAPL", "1m", database=database_url)
    end = AT + timedelta(minutes=3)
    rows = reads.bars(database, "AAPL", "1m", AT, end)
    assert found.to_pylist() == rows
    assert [row["provider"] for row in rows] == ["cme", "ibkr"] * 3
    assert reads.bars_table("AAPL", "1m", AT, end, provider="cme", database=database_url).num_rows == 3


def test_the_database_is_that_of_the_settings_a_url_or_a_connection(
    writer: Writer, database_url: str, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, message(bars(2)))
    assert reads.table("bars", database=database).num_rows == 2
    monkeypatch.setenv("DATABASE_URL", database_url)
    settings.cache_clear()
    assert reads.table("bars").num_rows == 2
    settings.cache_clear()
    with pytest.raises(DatabaseUnavailable, match=r"^cannot connect to postgresql://127\.0\.0\.1:1/x: "):
        reads.table("bars", database="postgresql://127.0.0.1:1/x")


def test_a_database_in_another_encoding_gives_the_same_texts(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            url = database_at(postgres_url, "latin")
            schema.upgrade(url)
            writer = Writer(url)
            write(writer, message([bar(symbol="Zürich")]))
            writer.close()
            assert reads.table("bars", symbols="Zürich", database=url)["symbol"].to_pylist() == ["Zürich"]
        finally:
            connection.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("candles", {}, "dataset: 'candles' is unknown; use one of bars, "),
        ("ticks", {"interval": "1m"}, "interval: ticks have no interval"),
        ("bars", {"columns": ["ts", "price"]}, "columns: bars have no column 'price'; they have provider, "),
        ("bars", {"columns": []}, "columns: the list is empty"),
        ("bars", {"start": "soon"}, "start: 'soon' is not a time; write 2024-01-02 or 2024-01-02T14:30:00Z"),
        ("bars", {"end": 20240102}, "end: 20240102 is not a time; "),
    ],
)
def test_what_does_not_exist_is_said(database_url: str, dataset: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRead) as raised:
        reads.table(dataset, database=database_url, **options)
    assert str(raised.value).startswith(message)


def test_an_error_of_postgres_is_one_line(database: Connection, database_url: str) -> None:
    database.execute(
        "ALTER TABLE signals RENAME TO all_signals; CREATE VIEW signals AS SELECT 'p' AS provider, 'S' AS symbol, "
        "timestamptz '2024-01-01Z' AS ts, 'n' AS name, 1.0 / (20000 - i) AS value, 1.0 AS score, "
        "NULL::jsonb AS metadata, now() AS enqueued_at FROM generate_series(1, 30000) AS i"
    )
    with pytest.raises(DatabaseUnavailable, match=r"^Postgres: division by zero"):
        reads.table("signals", database=database_url)


def test_frames_hold_every_value(writer: Writer, database_url: str) -> None:
    whole = 2**63 - 1
    write(writer, message([bar(trade_count=whole, final=True), bar(symbol="B", volume=0.1)]))
    found = reads.table("bars", database=database_url)
    polars = reads.to_polars(found)
    assert polars.to_arrow().to_pylist() == found.to_pylist()
    assert polars["trade_count"].to_list() == [whole, None]
    assert str(polars["ts"].dtype) == "Datetime(time_unit='us', time_zone='UTC')"
    pandas = reads.to_pandas(found)
    assert pandas["trade_count"].tolist()[0] == whole
    assert pandas["trade_count"].isna().tolist() == [False, True]
    assert pandas["final"].tolist()[0] is True
    assert {name: str(pandas[name].dtype) for name in ("ts", "open", "trade_count", "final")} == {
        "ts": "datetime64[us, UTC]",
        "open": "float64",
        "trade_count": "Int64",
        "final": "boolean",
    }


@pytest.mark.parametrize("name", ["polars", "pandas"])
def test_a_package_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MarketDataStoreError, match=f"^{name} is not installed; run `pip install {name}`$"):
        getattr(reads, f"to_{name}")(pa.table({"a": [1]}))
