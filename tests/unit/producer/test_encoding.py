"""What producers hold, as the JSON of a message: the scalars of pandas and numpy, and what stands for no value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from support.decoding import decode_rows
from support.requirements import required_module
from support.rows import BAR, OPTION, TICK, Row, stored

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidRow
from market_data_store.producer.encoding import check_rows, encode, encode_defaults
from market_data_store.wire.moments import microseconds

AT = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def pandas() -> Any:
    return required_module("pandas")


def sent(name: str, rows: list[Any]) -> list[Row]:
    """Rows as a worker stores them, after the client's own check."""
    text = encode(rows, 0)
    check_rows(DATASETS[name], rows, text, {}, 0)
    decoded = decode_rows(DATASETS[name], text, {}, 0)
    assert decoded.rejects == []
    return stored(decoded)


def test_the_records_of_a_frame_are_rows(pandas: Any) -> None:
    bars = {name: value for name, value in BAR.items() if name != "ts"}
    frame = pandas.DataFrame(
        {
            **{name: [value] * 3 for name, value in bars.items()},
            "ts": pandas.to_datetime([AT, AT.replace(minute=31), AT.replace(minute=32)]),
            "volume": [1.0, math.nan, math.inf],
            "trade_count": pandas.array([1, None, 3], dtype="Int64"),
        }
    )
    rows = sent("bars", frame.to_dict("records"))
    assert [row["ts"] for row in rows] == [microseconds(AT.replace(minute=minute)) for minute in (30, 31, 32)]
    assert [(row["volume"], row["trade_count"]) for row in rows] == [(1.0, 1), (None, None), (None, 3)]


@pytest.mark.parametrize(
    ("make", "nanos"),
    [
        (lambda pandas: pandas.Timestamp("2024-01-02T14:30:00.123456789Z"), 789),
        (lambda pandas: pandas.Timestamp("2024-01-02T09:30:00.123456789", tz="America/New_York"), 789),
        (lambda pandas: pandas.Timestamp("2024-01-02T14:30:00.123456"), None),
        (lambda pandas: pandas.Timestamp("2024-01-02T14:30:00.123456789").to_datetime64(), 789),
        (lambda pandas: pandas.Timestamp("2024-01-02T14:30:00.123456").to_datetime64().astype("datetime64[us]"), None),
    ],
)
def test_a_time_of_pandas_or_numpy_keeps_its_nanoseconds(
    make: Callable[[Any], Any], nanos: int | None, pandas: Any
) -> None:
    (row,) = sent("ticks", [TICK | {"ts": make(pandas)}])
    assert (row["ts"], row["nanos"]) == (microseconds(AT.replace(microsecond=123_456)), nanos)


def test_what_is_missing_in_pandas_is_null_where_a_field_is_optional(pandas: Any) -> None:
    not_a_time = pandas.Timestamp("NaT")
    values = {"size": pandas.NA, "bid": math.nan, "received_at": not_a_time, "venue": math.nan, "side": pandas.NA}
    (row,) = sent("ticks", [TICK | values | {"x": not_a_time, "y": not_a_time.to_datetime64()}])
    assert [row[name] for name in (*values, "metadata")] == [None] * 6
    (option,) = sent("options", [OPTION | {"ts": not_a_time}])
    assert option["ts"] == 0, "as if it had none: the time of its message"


@pytest.mark.parametrize(("field", "reason"), [("ts", "ts: null (key column)"), ("price", "price: null (required)")])
def test_what_is_missing_in_pandas_rejects_the_row_where_a_field_is_required(
    field: str, reason: str, pandas: Any
) -> None:
    for value in (pandas.NaT, pandas.NA):
        with pytest.raises(InvalidRow) as caught:
            sent("ticks", [TICK, TICK | {field: value}])
        assert str(caught.value).startswith(f"row 1: {reason}")


def test_defaults_may_be_values_of_pandas(pandas: Any) -> None:
    _, text = encode_defaults(DATASETS["bars"], {"ts": pandas.Timestamp("2024-01-02T14:30:00.000000001")})
    assert json.loads(text) == {"ts": "2024-01-02T14:30:00.000000001"}


@dataclass
class Trade:
    """A producer's own class."""

    provider: str
    symbol: str
    ts: datetime
    price: float
    size: float


@pytest.mark.parametrize("make", [dict, lambda **fields: Trade(**fields)], ids=["dict", "dataclass"])
def test_nan_is_null_in_an_optional_field_and_refused_in_a_required_one(make: Callable[..., Any]) -> None:
    good = {"provider": "p", "symbol": "A", "ts": AT, "price": 1.0, "size": math.nan}
    (row,) = sent("ticks", [make(**good)])
    assert row["size"] is None
    with pytest.raises(InvalidRow, match="row 0: price: nan is not a finite number"):
        sent("ticks", [make(**good | {"price": math.nan})])


def test_the_client_refuses_a_time_without_a_certain_reading_in_the_workers_words() -> None:
    with pytest.raises(InvalidRow, match=r"row 1: ts: 5 does not show its unit, as times from 1973 to 2100 do; set"):
        sent("ticks", [TICK, TICK | {"ts": 5}])
    with pytest.raises(InvalidRow, match="row 0: nanos: 1 differs from the nanoseconds of ts, 2"):
        sent("ticks", [TICK | {"ts": "2024-01-02T14:30:00.000000002", "nanos": 1}])
    with pytest.raises(InvalidRow, match="row 0: ts_nanos: 1 differs from the nanoseconds of ts, 2"):
        sent("bars", [BAR | {"ts": "2024-01-02T14:30:00.000000002", "ts_nanos": 1}])
