"""From JSON to typed columns: what producers send, under which names, and with which defaults."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from kombu.utils.json import dumps
from support.rows import (
    AWARE,
    BAR,
    COMPLETE,
    EPOCH,
    NOW,
    OPTION,
    QUOTE,
    SIGNAL,
    TICK,
    Row,
    Send,
    as_text,
    both_ways,
    decode,
    only,
    rule,
    stored,
)

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.wire.rows import Shape, read_rows

# --- What producers send ---------------------------------------------------------------------------------------------


DEFAULT_SINK: Row = {
    "provider": "ibkr",
    "symbol": "AAPL",
    "interval": "1m",
    "ts": AWARE,
    "open": 1.0,
    "high": 2.0,
    "low": 0.5,
    "close": 1.5,
    "volume": 100.0,
}
DATABASE_SINK: Row = {
    "tenant_id": "t1",
    "vendor": "ibkr",
    "symbol": "AAPL",
    "timeframe": "1m",
    "ts": AWARE,
    "open_price": Decimal("1.0"),
    "high_price": Decimal("2.0"),
    "low_price": Decimal("0.5"),
    "close_price": Decimal("1.5"),
    "volume": 100,
    "trade_count": 7,
    "vwap": None,
    "metadata": {"session": "regular"},
}
STORE_SINK: Row = {
    "symbol": "AAPL",
    "timestamp": AWARE,
    "open": 1.0,
    "high": 2.0,
    "low": 0.5,
    "close": 1.5,
    "volume": 100.0,
    "source": "ibkr",
    "vwap": 1.2,
    "trade_count": 7,
    "metadata": {},
    "idempotency_key": "ibkr:AAPL:1",
}
TICK_CONSUMER: Row = {
    "provider": "ibkr",
    "symbol": "AAPL",
    "price": 1.5,
    "ts": AWARE.replace(tzinfo=None),
    "size": 10.0,
    "bid": 1.4,
    "ask": None,
}
CORE_BAR: Row = {
    "symbol": "AAPL",
    "ts": AWARE,
    "open": Decimal("1.0"),
    "high": Decimal("2.0"),
    "low": Decimal("0.5"),
    "close": Decimal("1.5"),
    "volume": Decimal("100"),
    "resolution": "1m",
    "delayed": False,
}
STREAMED_SIGNAL: Row = {
    "provider": "ibkr",
    "symbol": "AAPL",
    "ts": AWARE,
    "name": "momentum",
    "value": 0.5,
    "score": None,
    "metadata": {"window": 20},
}
CORE_OPTION: Row = {
    "symbol": "AAPL",
    "expiry": datetime(2024, 1, 19, tzinfo=UTC),
    "strike": Decimal("190"),
    "option_type": "P",
    "bid": Decimal("1.25"),
    "ask": None,
    "last": None,
    "volume": 3,
    "open_interest": 0,
    "implied_volatility": None,
    "delta": None,
    "gamma": None,
    "theta": None,
    "vega": None,
    "delayed": False,
    "ts": AWARE,
}


def celery_json(value: Any) -> bytes:
    """As any Celery client sends it: datetimes and Decimals become objects with their type's name."""
    return bytes(dumps(value).encode())


produced = pytest.mark.parametrize(
    ("name", "row", "defaults"),
    [
        pytest.param("bars", DEFAULT_SINK, {}, id="default-sink"),
        pytest.param("bars", DATABASE_SINK, {}, id="database-sink"),
        pytest.param("bars", STORE_SINK, {"interval": "1m"}, id="store-sink"),
        pytest.param("ticks", TICK_CONSUMER, {}, id="tick-consumer"),
        pytest.param("bars", CORE_BAR, {"provider": "ibkr"}, id="core-bar"),
        pytest.param("signals", STREAMED_SIGNAL, {}, id="streamed-signal"),
        pytest.param("options", CORE_OPTION, {"provider": "ibkr"}, id="core-option"),
    ],
)


@produced
@pytest.mark.parametrize("count", [1, 500])
def test_what_producers_send_today_is_decoded_at_once(name: str, row: Row, defaults: Row, count: int) -> None:
    text = msgspec.json.encode([row] * count)
    assert isinstance(read_rows(DATASETS[name], text, defaults).form, Shape)
    assert decode(name, text, **defaults).positions == list(range(count))


@produced
def test_what_producers_send_today_is_stored_under_the_tables_names(name: str, row: Row, defaults: Row) -> None:
    got = only(decode(name, msgspec.json.encode([row]), **defaults))
    assert (got["provider"], got["symbol"], got["ts"]) == ("ibkr", "AAPL", NOW)
    if name == "bars":
        assert [got[c] for c in ("interval", "open", "high", "low", "close")] == ["1m", 1.0, 2.0, 0.5, 1.5]
        assert got["volume"] == 100.0
        assert got["vwap"] == row.get("vwap")
        assert got["trade_count"] == row.get("trade_count")
    elif name == "ticks":
        assert [got[c] for c in ("price", "size", "bid", "ask")] == [1.5, 10.0, 1.4, None]
    elif name == "signals":
        assert (got["value"], got["score"], got["metadata"]) == (0.5, None, b'{"window":20}')
    else:
        assert (got["expiry"], got["strike"], got["option_type"]) == (
            (date(2024, 1, 19) - EPOCH.date()).days,
            190.0,
            "P",
        )


@produced
def test_any_celery_client_may_send_the_rows_that_producers_have(name: str, row: Row, defaults: Row) -> None:
    assert decode(name, celery_json([row]), **defaults) == decode(name, msgspec.json.encode([row]), **defaults)
    assert isinstance(read_rows(DATASETS[name], celery_json([row]), defaults).form, Shape)


@produced
def test_the_objects_that_celery_makes_of_its_json_are_taken_too(name: str, row: Row, defaults: Row) -> None:
    assert stored(decode(name, [row], **defaults)) == stored(decode(name, msgspec.json.encode([row]), **defaults))


def test_nan_of_a_foreign_client_is_null_or_rejects_its_row_alone() -> None:
    sent = [TICK_CONSUMER, {**TICK_CONSUMER, "size": math.nan}, {**TICK_CONSUMER, "price": math.nan}, TICK_CONSUMER]
    decoded = decode("ticks", celery_json(sent))
    assert list(decoded.positions) == [0, 1, 3]
    assert [row["size"] for row in stored(decoded)] == [10.0, None, 10.0]


def test_a_wrong_row_does_not_spoil_the_others_when_the_whole_body_is_parsed() -> None:
    for wrong in ({"price": math.nan}, {"symbol": "\ud800"}):
        given_rows = json.loads(celery_json([TICK_CONSUMER, {**TICK_CONSUMER, **wrong}, TICK_CONSUMER]))
        assert list(decode("ticks", given_rows).positions) == [0, 2]


def test_a_default_may_be_what_celery_makes_of_a_datetime() -> None:
    untimed = {name: value for name, value in TICK.items() if name != "ts"}
    assert only(decode("ticks", as_text([untimed]), **json.loads(celery_json({"ts": AWARE}))))["ts"] == NOW


@pytest.mark.parametrize("value", [AWARE, Decimal("NaN"), Decimal(1), AWARE.date(), b"bytes"])
def test_a_rejected_row_may_hold_the_objects_that_celery_makes_of_its_json(value: Any) -> None:
    decoded = decode("ticks", [TICK, {**TICK, "symbol": 7, "size": value}])
    assert list(decoded.positions) == [0]
    assert json.loads(decoded.rejects[0].row)["symbol"] == 7


#: Values of columns that do not take the text 7.
SAMPLES = {"final": True, "conditions": ["@"], "received_at": "2024-01-02T14:30:01Z"}


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "alias"),
    [
        (dataset.name, str(column.name), alias)
        for dataset in DATASETS.values()
        for column in dataset.columns
        for alias in rule(column).aliases
    ],
)
@both_ways
def test_an_alias_is_as_good_as_the_columns_name(name: str, column: str, alias: str, send: Send) -> None:
    row = {column: SAMPLES.get(column, "7"), **COMPLETE[name]}
    renamed = {alias if field == column else field: value for field, value in row.items()}
    expected, got = only(decode(name, send([row]))), only(decode(name, send([renamed])))
    if alias == "trade_id" and name == "ticks":  # fills a second column
        assert got.pop("trade_id") == "7"
        del expected["trade_id"]
    elif rule(DATASETS[name].table.columns[column]).later and "seq" in got:
        # Counts in the hash under the name that was sent, as in version 0.4.
        assert got.pop("seq") != expected.pop("seq")
    assert got == expected


@both_ways
def test_the_columns_own_name_wins_over_an_alias_which_is_kept_if_it_says_something_else(send: Send) -> None:
    got = only(decode("bars", send([{**BAR, "vendor": "other", "open_price": "1.00", "timestamp": None}])))
    assert json.loads(got.pop("metadata")) == {"vendor": "other"}
    expected = only(decode("bars", send([BAR])))
    assert got == {name: value for name, value in expected.items() if name != "metadata"}


def test_each_row_of_a_message_may_use_another_alias() -> None:
    first = {**QUOTE, "bid_price": 1.0}
    second = {name: value for name, value in first.items() if name != "bid"}
    assert [row["bid"] for row in stored(decode("quotes", as_text([first, second])))] == [1.0, 1.0]


@pytest.mark.parametrize("name", COMPLETE)
@both_ways
def test_fields_that_a_dataset_does_not_know_are_kept_under_their_own_names(name: str, send: Send) -> None:
    unknown = {"w": 1, "": [], 'a"b\\': {"é": [1.5, None]}, "EXCHANGE": "x ", "big": 2**70}
    row = {**COMPLETE[name], **unknown, "null": None}
    got = only(decode(name, send([row])))
    assert json.loads(got["metadata"]) == unknown


@both_ways
def test_what_the_pipeline_sends_for_itself_is_not_stored(send: Send) -> None:
    row = {**BAR, "tenant_id": "t", "idempotency_key": "k"}
    assert only(decode("bars", send([row]))) == only(decode("bars", send([BAR])))
    assert json.loads(only(decode("ticks", send([{**TICK, "tenant_id": "t"}])))["metadata"]) == {"tenant_id": "t"}


@both_ways
def test_a_field_whose_name_is_no_unicode_rejects_the_row(send: Send) -> None:
    (reject,) = decode("bars", send([BAR, {**BAR, "\ud800": 1}])).rejects
    assert (reject.position, reject.reason[:10]) == (1, "metadata: ")


@both_ways
def test_fields_that_a_dataset_does_not_know_are_kept_in_its_metadata(send: Send) -> None:
    got = only(decode("signals", send([{**SIGNAL, "window": 20, "off": None, "metadata": {"a": [1, None]}}])))
    assert json.loads(got["metadata"]) == {"window": 20, "a": [1, None]}


@both_ways
def test_a_rows_own_metadata_wins_over_a_field_of_the_same_name(send: Send) -> None:
    got = only(decode("signals", send([{**SIGNAL, "a": 1, "metadata": {"a": 2}}])))
    assert json.loads(got["metadata"]) == {"a": 2}


@both_ways
def test_metadata_is_null_where_there_is_none(send: Send) -> None:
    assert [row["metadata"] for row in stored(decode("signals", send([SIGNAL, {**SIGNAL, "metadata": None}])))] == [
        None,
        None,
    ]


def test_empty_metadata_is_stored_alike_whatever_else_is_in_the_message() -> None:
    empty = {**SIGNAL, "metadata": {}}
    alone = only(decode("signals", as_text([empty])))
    assert stored(decode("signals", as_text([{**empty, "x": 1}, empty])))[1] == alone


# --- Defaults --------------------------------------------------------------------------------------------------------


@both_ways
def test_defaults_fill_what_rows_leave_out_or_have_null(send: Send) -> None:
    partial = {name: value for name, value in BAR.items() if name not in ("provider", "interval")}
    decoded = decode(
        "bars", send([partial, {**partial, "provider": None}, BAR]), vendor="yahoo", timeframe="1h", volume="7"
    )
    assert decoded.rejects == []
    assert [(r["provider"], r["interval"], r["volume"]) for r in stored(decoded)] == [
        ("yahoo", "1h", 7.0),
        ("yahoo", "1h", 7.0),
        ("ibkr", "1m", 7.0),
    ]


@both_ways
def test_rows_may_consist_of_defaults_alone(send: Send) -> None:
    assert stored(decode("bars", send([{}, {}]), **BAR)) == [only(decode("bars", send([BAR])))] * 2


@both_ways
def test_defaults_are_stored_as_a_rows_own_values_are(send: Send) -> None:
    untimed = {name: value for name, value in OPTION.items() if name not in ("symbol", "option_type", "expiry")}
    got = only(decode("options", send([untimed]), ticker="aapl", right="put", expiration="2024-01-19"))
    assert (got["symbol"], got["option_type"], got["expiry"]) == ("aapl", "P", (date(2024, 1, 19) - EPOCH.date()).days)


@both_ways
def test_a_default_that_is_null_or_unknown_to_the_dataset_is_none(send: Send) -> None:
    assert only(decode("bars", send([BAR]), volume=None, tenant_id="t", vendor=None)) == only(
        decode("bars", send([BAR]))
    )


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        ({"provider": 5}, "defaults: provider: 5 is not a string"),
        ({"symbol": "A\0"}, "defaults: symbol: 'A\\x00' holds a NUL character"),
        ({"ts": "soon"}, "defaults: ts: 'soon' is not a time"),
        ({"open": math.nan}, "defaults: open: nan is not a finite number"),
        ({"time_unit": "min"}, "defaults: time_unit: 'min' is not one of s, ms, us, ns, date"),
        ({"time_unit": 1}, "defaults: time_unit: 1 is not one of s, ms, us, ns, date"),
        ({"ts": 5}, "defaults: ts: 5 does not show its unit"),
    ],
)
def test_a_wrong_default_is_wrong_for_the_whole_message(defaults: Row, expected: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode("bars", as_text([BAR]), **defaults)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("defaults", [["provider", "ibkr"], "ibkr", 7])
def test_defaults_that_are_no_object_are_an_invalid_message(defaults: Any) -> None:
    with pytest.raises(InvalidMessage, match="defaults: expected an object, got"):
        read_rows(DATASETS["bars"], [], defaults)


@pytest.mark.parametrize("value", [AWARE, 10**5_000, Decimal(1)], ids=["datetime", "huge", "Decimal"])
def test_a_default_that_json_does_not_know_is_taken_or_an_invalid_message(value: Any) -> None:
    try:
        decode("bars", as_text([BAR]), note=value)
    except InvalidMessage as error:
        assert "defaults" in str(error)  # noqa: PT017  # both ways are fine
