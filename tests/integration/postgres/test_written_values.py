"""The writer on a real Postgres: values that are easily lost."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime

import pytest
from support.databases import Connection
from support.writing import AT, EPOCH, Row, bar, bars, closes, message, noise, select, write

from market_data_store.datasets import DATASETS, MAX_KEY_LENGTH
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts


@pytest.mark.usefixtures("any_year")
def test_times_and_dates_at_the_extremes_read_back_equal(writer: Writer, database: Connection) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    rows = [
        {"provider": "p", "symbol": "s", "strike": 1, "right": "C", "ts": ts.isoformat(), "expiry": expiry.isoformat()}
        for ts, expiry in ((first, date.min), (last, date.max), (EPOCH, date(2000, 1, 1)))
    ]
    assert write(writer, message(rows, name="options"), name="options") == [Counts(written=3)]
    assert select(database, "SELECT ts, expiry FROM options_snap ORDER BY ts") == [
        (first, date.min),
        (EPOCH, date(2000, 1, 1)),
        (last, date.max),
    ]


def test_metadata_reads_back_equal_and_is_compared_by_its_content(writer: Writer, database: Connection) -> None:
    signal = {"provider": "p", "symbol": "s", "ts": AT.isoformat(), "name": "n"}
    metadata = {"a": [1, 2.5, None, True, {"ü": "\u2028😀\\"}], "": {}, "big": 2**80}
    assert write(writer, message([{**signal, "metadata": metadata}], name="signals"), name="signals") == [
        Counts(written=1)
    ]
    assert select(database, "SELECT metadata FROM signals") == [(metadata,)]
    turned = message([{**signal, "metadata": dict(reversed(metadata.items()))}], name="signals", at=1)
    assert write(writer, turned, name="signals") == [Counts(unchanged=1)]
    assert write(writer, message([signal], name="signals", at=2), name="signals") == [Counts(written=1)]
    assert select(database, "SELECT metadata FROM signals") == [(None,)]


def test_doubles_read_back_bit_for_bit(writer: Writer, database: Connection) -> None:
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e18, -(2.0**63), 123456.789e-300]
    write(writer, message([bar(symbol=str(i), close=number) for i, number in enumerate(numbers)]))
    assert closes(database) == numbers


def test_decimals_come_as_strings(writer: Writer, database: Connection) -> None:
    write(writer, message([bar(symbol="A", close="190.0100"), bar(symbol="B", close="1e-5")]))
    assert closes(database) == [190.01, 1e-5]
    assert write(writer, message([bar(symbol="A", close=190.01)], at=1)) == [Counts(unchanged=1)]


def test_symbols_are_stored_as_they_are(writer: Writer, database: Connection) -> None:
    symbols = ["ÉCLAIR", "株式", "😀", "A'B\"C\\D", "%S", "A\tB\nC", "\\N", "a", "A", "\x01", "\u202e"]
    sent = message([bar(symbol=symbol) for symbol in symbols])
    assert write(writer, sent) == [Counts(written=len(symbols))]
    assert write(writer, sent) == [Counts(unchanged=len(symbols))]
    assert {symbol for (symbol,) in select(database, "SELECT symbol FROM bars_ohlcv")} == set(symbols)


def test_the_longest_keys_fit_into_the_index(writer: Writer, database: Connection) -> None:
    texts = {name: noise(MAX_KEY_LENGTH, seed) for seed, name in enumerate(("provider", "symbol", "name"))}
    signal = message([{**texts, "ts": AT.isoformat()}], name="signals")
    assert write(writer, signal, name="signals") == [Counts(written=1)]
    symbols = [noise(MAX_KEY_LENGTH, seed) for seed in range(20)]
    rows = [bar(provider=noise(MAX_KEY_LENGTH, 50), interval=noise(MAX_KEY_LENGTH, 51), symbol=s) for s in symbols]
    assert write(writer, message(rows)) == [Counts(written=20)]
    assert {symbol for (symbol,) in select(database, "SELECT symbol FROM bars_ohlcv")} == set(symbols)


def test_minus_zero_and_zero_are_one_key(writer: Writer, database: Connection) -> None:
    option = {"provider": "p", "symbol": "s", "right": "C", "ts": AT.isoformat(), "expiry": "2024-01-19"}
    rows = [{**option, "strike": 0.0, "bid": 1}, {**option, "strike": -0.0, "bid": 2}]
    assert write(writer, message(rows, name="options"), name="options") == [Counts(written=1, superseded=1)]
    assert write(writer, message(rows[1:], name="options"), name="options") == [Counts(unchanged=1)]


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_can_be_written_replayed_and_corrected(writer: Writer, database: Connection, name: str) -> None:
    texts = {"provider": "p", "symbol": "s", "interval": "1m", "name": "n", "id": "i", "title": "t", "option_type": "C"}
    times = {"ts": AT.isoformat(), "expiry": "2024-01-19"}
    numbers = dict.fromkeys(["seq", "strike", "open", "high", "low", "price"], 1)
    values = ["close", "bid", "eps", "value", "sentiment_score"]
    known = {str(column.name) for column in DATASETS[name].columns}
    every_field: Row = {**texts, **times, **numbers, **dict.fromkeys(values, 1)}
    row = {field: value for field, value in every_field.items() if field in known}
    corrected = {**row, **{field: 2 for field in values if field in row}}
    assert write(writer, message([row], name=name), name=name) == [Counts(written=1)]
    assert write(writer, message([row], name=name, at=1), name=name) == [Counts(unchanged=1)]
    assert write(writer, message([corrected], name=name, at=2), name=name) == [Counts(written=1)]
    assert write(writer, message([row], name=name, at=1), name=name) == [Counts(stale=1)]
    assert select(database, f'SELECT count(*) FROM "{DATASETS[name].table.name}"') == [(1,)]


def test_a_batch_much_larger_than_usual_is_written_in_one_go(writer: Writer, database: Connection) -> None:
    rows = bars(20_000)
    random.Random(1).shuffle(rows)  # noqa: S311
    assert write(writer, message(rows[:15_000]), message(rows[10_000:])) == [
        Counts(written=10_000, unchanged=5_000),
        Counts(written=10_000),
    ]
    assert select(database, "SELECT count(*), count(DISTINCT xmin::text) FROM bars_ohlcv") == [(20_000, 1)]


def test_text_that_looks_like_sql_or_copy_is_stored_as_it_is(writer: Writer, database: Connection) -> None:
    texts = ["'; DROP TABLE bars_ohlcv; --", '"', "%s %(x)s {0} \\", "\\N", "\\.", "a\tb\nc", "$1", "\\x00"]
    rows = [bar(provider=text, symbol=text, interval=text, metadata={text: text}) for text in texts]
    assert write(writer, message(rows)) == [Counts(written=len(texts))]
    stored = select(database, "SELECT provider, symbol, interval, metadata FROM bars_ohlcv")
    assert sorted(stored) == sorted((text, text, text, {text: text}) for text in texts)
