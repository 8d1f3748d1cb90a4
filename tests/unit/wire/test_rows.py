"""From JSON to typed columns: what is accepted, what is rejected and why, and that both decoders agree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils.json import dumps
from sqlalchemy import BigInteger, Column, DateTime, Text
from sqlalchemy.dialects.postgresql import DATE, JSONB

from market_data_store.datasets import DATASETS, MAX_KEY_LENGTH, MAX_TEXT_LENGTH, Dataset, Rule
from market_data_store.errors import InvalidMessage
from market_data_store.wire import rows
from market_data_store.wire.columns import DecodedRows, stored_defaults
from market_data_store.wire.moments import microseconds
from market_data_store.wire.rows import decode_rows
from market_data_store.wire.text import row_text

Row = dict[str, Any]
#: The two ways by which a message's rows come: as JSON text, and as objects.
Send = Callable[[list[Any]], bytes | list[Any]]

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
NOW = microseconds(datetime(2024, 1, 2, 14, 30, tzinfo=UTC))

BAR: Row = {
    "provider": "ibkr",
    "symbol": "aapl",
    "interval": "1m",
    "ts": "2024-01-02T14:30:00Z",
    "open": 1.0,
    "high": 2.0,
    "low": 0.5,
    "close": 1.5,
}
TICK: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "price": 1.5}
OPTION: Row = {
    "provider": "ibkr",
    "symbol": "AAPL",
    "ts": "2024-01-02T14:30:00Z",
    "expiry": "2024-01-19",
    "strike": 190,
    "option_type": "C",
}
SIGNAL: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "name": "momentum"}
NEWS: Row = {"provider": "ibkr", "ts": "2024-01-02T14:30:00Z", "title": "Up"}
QUOTE: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "bid": 1.0, "ask": 2.0}
FUNDAMENTAL: Row = {"provider": "ibkr", "symbol": "AAPL", "ts": "2024-01-02T14:30:00Z", "eps": 1.0}
COMPLETE = {
    "bars": BAR,
    "ticks": TICK,
    "quotes": QUOTE,
    "options": OPTION,
    "fundamentals": FUNDAMENTAL,
    "news": NEWS,
    "signals": SIGNAL,
}


def as_text(given_rows: list[Any]) -> bytes:
    return json.dumps(given_rows).encode()


def as_objects(given_rows: list[Any]) -> list[Any]:
    return given_rows


both_ways = pytest.mark.parametrize("send", [as_text, as_objects])


def decode(name: str, given_rows: bytes | list[Any], /, **defaults: Any) -> DecodedRows:
    return decode_rows(DATASETS[name], given_rows, defaults, NOW)


def stored(decoded: DecodedRows) -> list[Row]:
    """The valid rows as dicts of what goes to Postgres."""
    columns = [str(c.name) for c in decoded.dataset.columns]
    return [dict(zip(columns, values, strict=True)) for values in zip(*decoded.columns, strict=True)]


def only(decoded: DecodedRows) -> Row:
    assert decoded.rejects == []
    (row,) = stored(decoded)
    return row


def reason(name: str, row: Any, send: Send = as_text) -> str:
    """Of a message whose middle row is this one: the reason for which it, and it alone, is rejected."""
    good = COMPLETE[name]
    decoded = decode(name, send([good, row, good]))
    (reject,) = decoded.rejects
    assert reject.position == 1
    assert list(decoded.positions) == [0, 2]
    assert decoded.sent == 3
    return reject.reason


def rule(column: Column[Any]) -> Rule:
    found = column.info["rule"]
    assert isinstance(found, Rule)
    return found


# --- What producers send ---------------------------------------------------------------------------------------------

AWARE = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
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
    standard = stored_defaults(DATASETS[name], defaults)
    at_once = rows._decode_at_once(DATASETS[name], text, standard, NOW)
    assert at_once is not None
    assert at_once == decode(name, text, **defaults)
    assert list(at_once.positions) == list(range(count))


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
    standard = stored_defaults(DATASETS[name], defaults)
    assert decode(name, celery_json([row]), **defaults) == decode(name, msgspec.json.encode([row]), **defaults)
    assert rows._decode_at_once(DATASETS[name], msgspec.json.encode([row]), standard, NOW) is not None


@produced
def test_the_objects_that_celery_makes_of_its_json_are_taken_too(name: str, row: Row, defaults: Row) -> None:
    assert stored(decode(name, [row], **defaults)) == stored(decode(name, msgspec.json.encode([row]), **defaults))


def test_one_nan_does_not_spoil_the_other_rows_of_a_foreign_client() -> None:
    decoded = decode("ticks", celery_json([TICK_CONSUMER, {**TICK_CONSUMER, "size": math.nan}, TICK_CONSUMER]))
    assert list(decoded.positions) == [0, 2]
    assert [row["ts"] for row in stored(decoded)] == [NOW, NOW]


@pytest.mark.parametrize("wrong", [{"size": math.nan}, {"symbol": "\ud800"}])
def test_nor_where_the_task_had_to_parse_the_whole_body(wrong: Row) -> None:
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
    row = {**COMPLETE[name], **({} if column in COMPLETE[name] else {column: "7"})}
    renamed = {alias if field == column else field: value for field, value in row.items()}
    assert only(decode(name, send([renamed]))) == only(decode(name, send([row])))


@both_ways
def test_the_columns_own_name_wins_over_an_alias(send: Send) -> None:
    assert only(decode("bars", send([{**BAR, "vendor": "other", "open_price": 9}]))) == only(
        decode("bars", send([BAR]))
    )


def test_each_row_of_a_message_may_use_another_alias() -> None:
    first = {**QUOTE, "bid_price": 1.0}
    second = {name: value for name, value in first.items() if name != "bid"}
    assert [row["bid"] for row in stored(decode("quotes", as_text([first, second])))] == [1.0, 1.0]


@both_ways
def test_fields_that_a_dataset_does_not_know_are_ignored(send: Send) -> None:
    known = only(decode("bars", send([BAR])))
    assert only(decode("bars", send([{**BAR, "x": 1, "": [], 'a"b\\': None, "\ud800": 1}]))) == known


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


# --- Values ----------------------------------------------------------------------------------------------------------


@both_ways
def test_keys_are_stored_as_they_came_but_symbols_in_upper_case(send: Send) -> None:
    got = only(decode("bars", send([{**BAR, "provider": "Yahoo", "symbol": "brk.b é", "interval": "1h"}])))
    assert (got["provider"], got["symbol"], got["interval"]) == ("Yahoo", "BRK.B É", "1h")


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("2024-01-02T14:30:00Z", AWARE),
        ("2024-01-02T14:30:00", AWARE),
        ("2024-01-02 14:30:00", AWARE),
        ("2024-01-02T15:30:00+01:00", AWARE),
        ("2024-01-02T20:00:00+0530", AWARE),
        (1_704_205_800, AWARE),
        (1_704_205_800.0, AWARE),
        ("1704205800", AWARE),
        (1_704_205_800.000001, AWARE + timedelta(microseconds=1)),
        ("2024-01-02T14:30:00.123456Z", AWARE + timedelta(microseconds=123_456)),
        ("2024-01-02T14:30:00.123456789Z", AWARE + timedelta(microseconds=123_457)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1.5, datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
        (-62_135_596_800, datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
@both_ways
def test_times_are_iso_8601_or_epoch_seconds_and_utc_unless_they_say_otherwise(
    ts: Any, expected: datetime, send: Send
) -> None:
    got = only(decode("bars", send([{**BAR, "ts": ts}])))["ts"]
    assert EPOCH + timedelta(microseconds=got) == expected


@both_ways
def test_naive_and_aware_times_may_stand_in_one_message(send: Send) -> None:
    times = ["2024-01-02T14:30:00", "2024-01-02T14:30:00Z", "2024-01-02T16:30:00+02:00"]
    assert [row["ts"] for row in stored(decode("bars", send([{**BAR, "ts": ts} for ts in times])))] == [NOW] * 3


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (1, 1.0),
        ("1", 1.0),
        ("190.0100", 190.01),
        ("-0.25", -0.25),
        ("1e2", 100.0),
        (1e-320, 1e-320),
        (2**53 + 1, float(2**53)),
        (-(2**63), -(2.0**63)),
        (0.1 + 0.2, 0.1 + 0.2),
    ],
)
@both_ways
def test_numbers_may_come_as_strings_and_keep_their_value(price: Any, expected: float, send: Send) -> None:
    got = only(decode("ticks", send([{**TICK, "price": price}])))["price"]
    assert isinstance(got, float)
    assert got == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(7, 7), ("7", 7), (7.0, 7), (2**63 - 1, 2**63 - 1), (str(-(2**63)), -(2**63)), (None, None)]
)
@both_ways
def test_counts_are_64_bit_integers(count: Any, expected: int | None, send: Send) -> None:
    got = only(decode("bars", send([{**BAR, "trade_count": count}])))["trade_count"]
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(("word", "letter"), [("C", "C"), ("call", "C"), ("P", "P"), ("Put", "P"), ("put", "P")])
@both_ways
def test_an_option_type_is_stored_by_its_letter(word: str, letter: str, send: Send) -> None:
    assert only(decode("options", send([{**OPTION, "option_type": word}])))["option_type"] == letter


@pytest.mark.parametrize(
    ("expiry", "expected"),
    [
        ("2024-01-19", date(2024, 1, 19)),
        ("2024-01-19T00:00:00Z", date(2024, 1, 19)),
        ("0001-01-01", date.min),
        ("9999-12-31", date.max),
    ],
)
@both_ways
def test_an_expiry_is_a_date_or_the_midnight_that_core_sends(expiry: str, expected: date, send: Send) -> None:
    days = only(decode("options", send([{**OPTION, "expiry": expiry}])))["expiry"]
    assert EPOCH.date() + timedelta(days=days) == expected


@pytest.mark.parametrize("expiry", ["2024-01-19 and more", "2024-01-199"])
def test_what_follows_a_date_must_be_a_time(expiry: str) -> None:
    assert reason("options", {**OPTION, "expiry": expiry}).startswith("expiry: ")


@both_ways
def test_an_option_without_a_time_has_that_of_its_message(send: Send) -> None:
    untimed = {name: value for name, value in OPTION.items() if name != "ts"}
    decoded = decode_rows(DATASETS["options"], send([untimed, {**OPTION, "ts": None}, OPTION]), {}, 5)
    assert [row["ts"] for row in stored(decoded)] == [5, 5, NOW]


def test_microseconds_count_from_2000_and_take_naive_moments_for_utc() -> None:
    assert microseconds(EPOCH) == 0
    assert microseconds(datetime(1999, 12, 31, 23, 59, 59, 999_999)) == -1
    assert microseconds(datetime(2000, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0


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
    assert (got["symbol"], got["option_type"], got["expiry"]) == ("AAPL", "P", (date(2024, 1, 19) - EPOCH.date()).days)


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
        ({"volume": math.nan}, "defaults: volume: nan is not a finite number"),
    ],
)
def test_a_wrong_default_is_wrong_for_the_whole_message(defaults: Row, expected: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode("bars", as_text([BAR]), **defaults)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("defaults", [["provider", "ibkr"], "ibkr", 7])
def test_defaults_that_are_no_object_are_an_invalid_message(defaults: Any) -> None:
    with pytest.raises(InvalidMessage, match="defaults: expected an object, got"):
        decode_rows(DATASETS["bars"], [], defaults, NOW)


@pytest.mark.parametrize("value", [AWARE, 10**5_000, Decimal(1)], ids=["datetime", "huge", "Decimal"])
def test_a_default_that_json_does_not_know_is_taken_or_an_invalid_message(value: Any) -> None:
    try:
        decode("bars", as_text([BAR]), note=value)
    except InvalidMessage as error:
        assert "defaults" in str(error)  # noqa: PT017  # both ways are fine


# --- Rejects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "value", "expected"),
    [
        ("bars", "open", "abc", "'abc' is not a number"),
        ("bars", "open", "", "'' is not a number"),
        ("bars", "open", " 1", "' 1' is not a number"),
        ("bars", "open", True, "True is not a number"),
        ("bars", "open", [], "[] is not a number"),
        ("bars", "open", {"a": 1}, "{'a': 1} is not a number"),
        ("bars", "open", math.nan, "nan is not a finite number"),
        ("bars", "open", math.inf, "inf is not a finite number"),
        ("bars", "open", -math.inf, "-inf is not a finite number"),
        ("bars", "open", "NaN", "'NaN' is not a finite number"),
        ("bars", "open", "1e999", "'1e999' is not a finite number"),
        ("bars", "open", 2**64, "18446744073709551616 is beyond 64 bits"),
        ("bars", "open", -(2**70), "-1180591620717411303424 is beyond 64 bits"),
        ("bars", "open", None, "null (required); give it in the row or in defaults"),
        ("bars", "volume", math.nan, "nan is not a finite number"),
        ("bars", "trade_count", 2**63, "9223372036854775808 is beyond 64 bits"),
        ("bars", "trade_count", str(2**63), "'9223372036854775808' is beyond 64 bits"),
        ("bars", "trade_count", 1.5, "1.5 is not an integer"),
        ("bars", "trade_count", "1.5", "'1.5' is not an integer"),
        ("bars", "trade_count", "many", "'many' is not an integer"),
        ("bars", "trade_count", math.inf, "inf is not a finite number"),
        ("bars", "symbol", 7, "7 is not a string"),
        ("bars", "symbol", "", "'' is empty"),
        ("bars", "symbol", None, "null (key column); give it in the row or in defaults"),
        ("bars", "symbol", "A\0B", "'A\\x00B' holds a NUL character"),
        ("bars", "symbol", "A\ud800", "'A\\ud800' is not valid Unicode"),
        ("bars", "symbol", "x" * (MAX_KEY_LENGTH + 1), f"is too long, at most {MAX_KEY_LENGTH} characters"),
        ("bars", "ts", "2024-02-30T00:00:00Z", "'2024-02-30T00:00:00Z' is not a time from year 1 to 9999"),
        ("bars", "ts", "yesterday", "'yesterday' is not a time from year 1 to 9999"),
        ("bars", "ts", "2024-01-01T24:00:00Z", "is not a time from year 1 to 9999; send ISO 8601 or epoch seconds"),
        ("bars", "ts", "0001-01-01T00:00:00+01:00", "is not a time from year 1 to 9999"),
        ("bars", "ts", "9999-12-31T23:59:59-01:00", "is not a time from year 1 to 9999"),
        ("bars", "ts", 1_704_205_800_000, "1704205800000 is not a time from year 1 to 9999"),
        ("bars", "ts", math.nan, "nan is not a time from year 1 to 9999"),
        ("bars", "ts", 10**30, "is not a time from year 1 to 9999"),
        ("bars", "ts", {}, "{} is not a time from year 1 to 9999"),
        ("ticks", "seq", 2**63, "9223372036854775808 is beyond 64 bits"),
        ("ticks", "seq", 1.5, "1.5 is not an integer"),
        ("ticks", "seq", True, "True is not an integer"),
        ("options", "expiry", "19 Jan 2024", "'19 Jan 2024' is not a date; send YYYY-MM-DD"),
        ("options", "expiry", "2024-02-30", "'2024-02-30' is not a date; send YYYY-MM-DD"),
        ("options", "expiry", 1_705_622_400, "1705622400 is not a date; send YYYY-MM-DD"),
        ("options", "option_type", "straddle", "'straddle' is none of C, P"),
        ("options", "option_type", "", "'' is none of C, P"),
        ("options", "strike", None, "null (key column)"),
        ("news", "title", "x" * (MAX_TEXT_LENGTH + 1), "is too long, at most 65,536 characters"),
        ("news", "title", "A\0B", "'A\\x00B' holds a NUL character"),
        ("signals", "metadata", [1], "[1] is not an object"),
        ("signals", "metadata", "{}", "'{}' is not an object"),
        ("signals", "metadata", {"a": "x" * MAX_TEXT_LENGTH}, "is longer than 65,536 bytes or holds a NUL character"),
        ("signals", "metadata", {"a": ["\0"]}, "{'a': ['\\x00']} is longer than 65,536 bytes or holds a NUL character"),
        ("signals", "metadata", {"\0": 1}, "holds a NUL character"),
    ],
)
@both_ways
def test_a_wrong_value_rejects_its_row_alone_with_field_value_and_remedy(
    name: str, field: str, value: Any, expected: str, send: Send
) -> None:
    got = reason(name, {**COMPLETE[name], field: value}, send)
    assert got.startswith(f"{field}: ")
    assert expected in got


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (dataset.name, str(column.name))
        for dataset in DATASETS.values()
        for column in dataset.columns
        if not (column.nullable or rule(column).content_hash or rule(column).enqueued_at)
    ],
)
@both_ways
def test_a_row_without_a_required_column_is_rejected(name: str, field: str, send: Send) -> None:
    row = {given_name: value for given_name, value in COMPLETE[name].items() if given_name != field}
    kind = "key column" if field in DATASETS[name].key else "required"
    assert reason(name, row, send) == f"{field}: missing ({kind}); give it in the row or in defaults"


@pytest.mark.parametrize("row", [None, 1, "bars", [BAR], [], math.nan, True])
@both_ways
def test_a_row_that_is_no_object_is_rejected(row: Any, send: Send) -> None:
    assert reason("bars", row, send).startswith(f"row: expected an object, got {row!r}"[:80])


@both_ways
def test_an_object_without_fields_is_rejected_for_its_first_key_column(send: Send) -> None:
    assert reason("bars", {}, send).startswith("provider: missing (key column)")


@both_ways
def test_a_string_of_10_mb_is_named_by_its_beginning_and_length_and_kept_in_full(send: Send) -> None:
    row = {**BAR, "symbol": "x" * 10_000_000}
    decoded = decode("bars", send([BAR, row]))
    (reject,) = decoded.rejects
    assert reject.reason.startswith("symbol: 'xxx")
    assert "(10,000,002 characters) is too long" in reject.reason
    assert len(reject.reason) < 300
    assert json.loads(reject.row) == row
    assert len(decoded.positions) == 1


def test_a_row_that_is_no_utf_8_is_rejected_and_kept_readable() -> None:
    text = as_text([BAR, {**BAR, "symbol": "@"}, BAR]).replace(b"@", b"\xff\xfe")
    decoded = decode("bars", text)
    assert list(decoded.positions) == [0, 2]
    assert json.loads(decoded.rejects[0].row)["symbol"] == "��"


@pytest.mark.parametrize(
    ("find", "replacement"),
    [
        pytest.param(b'"@"', b'"\xff"', id="no UTF-8"),
        pytest.param(b'"@"', b"1" * 5_000, id="an integer of 5,000 digits"),
    ],
)
def test_the_reason_names_the_field_also_where_python_cannot_read_the_row(find: bytes, replacement: bytes) -> None:
    text = as_text([BAR, {**BAR, "symbol": "@"}, BAR]).replace(find, replacement)
    (reject,) = decode("bars", text).rejects
    assert reject.reason.startswith("symbol: ")


def test_an_ignored_field_never_rejects_a_row() -> None:
    text = as_text([{**BAR, "note": "@"}, 1]).replace(b'"@"', b"1" * 5_000)
    assert list(decode("bars", text).positions) == [0]


def test_nan_and_infinities_in_json_text_reject_their_rows_alone() -> None:
    text = b"[%s, %s, %s]" % tuple(json.dumps(BAR).replace("1.5", close).encode() for close in ("1.5", "NaN", "1e400"))
    decoded = decode("bars", text)
    assert list(decoded.positions) == [0]
    assert [r.reason for r in decoded.rejects] == [
        "close: nan is not a finite number",
        "close: inf is not a finite number",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_number_in_metadata_is_not_stored_as_null(value: float) -> None:
    assert reason("signals", {**SIGNAL, "metadata": {"a": value}}).startswith("metadata: ")


def test_metadata_may_hold_a_backslash_before_u0000() -> None:
    metadata = {"path": r"C:\u0000"}
    assert json.loads(only(decode("signals", as_text([{**SIGNAL, "metadata": metadata}])))["metadata"]) == metadata


@pytest.mark.parametrize(
    ("name", "field"),
    [(dataset.name, str(column.name)) for dataset in DATASETS.values() for column in dataset.columns],
)
def test_the_string_null_means_the_same_in_both_decoders(name: str, field: str) -> None:
    row = {**COMPLETE[name], field: "null"}
    default = {field: COMPLETE[name].get(field, "7")}
    for defaults in ({}, {} if field == "metadata" else default):
        at_once = decode(name, as_text([row]), **defaults)
        one_by_one = decode(name, [row], **defaults)
        assert (at_once.columns, at_once.rejects) == (one_by_one.columns, one_by_one.rejects)


@pytest.mark.parametrize("depth", [100, 900])
@both_ways
def test_deep_nesting_in_one_row_does_not_hinder_the_others(depth: int, send: Send) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    decoded = decode("signals", send([SIGNAL, {**SIGNAL, "x": deep}, 1, SIGNAL]))
    assert {0, 3} <= set(decoded.positions)
    assert all(json.loads(reject.row) is not None for reject in decoded.rejects)


def test_deep_nesting_around_nan_does_not_hinder_the_others() -> None:
    deep: Any = math.nan
    for _ in range(600):
        deep = [deep]
    assert list(decode("signals", [SIGNAL, deep, SIGNAL]).positions) == [0, 2]


@pytest.mark.parametrize("given_rows", [b"{}", b'"rows"', b"7", b"null", b"true", b'{"a": [{}]}', b"NaN"])
def test_rows_that_are_no_list_are_an_invalid_message(given_rows: bytes) -> None:
    with pytest.raises(InvalidMessage, match="rows: expected a list of objects, got"):
        decode("bars", given_rows)


@pytest.mark.parametrize(
    "given_rows",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[{", id="cut off"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b"1" * 5_000, id="an integer of 5,000 digits"),
        pytest.param(b'{"rows": %s}' % (b"1" * 5_000), id="an integer of 5,000 digits in an object"),
        pytest.param(b"[" * 5_000 + b"]" * 5_000, id="nested"),
    ],
)
def test_rows_that_python_cannot_read_are_an_invalid_message(given_rows: bytes) -> None:
    with pytest.raises(InvalidMessage, match="rows: "):
        decode("bars", given_rows)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("given_rows", [b"[]", b" [ ] ", []])
def test_a_message_may_hold_no_rows(name: str, given_rows: bytes | list[Any]) -> None:
    decoded = decode(name, given_rows)
    assert (decoded.sent, stored(decoded), decoded.rejects) == (0, [], [])


# --- Sequence numbers and ids that a row does not bring along --------------------------------------------------------


def seq(row: Row, send: Send = as_text, name: str = "ticks", column: str = "seq") -> Any:
    return only(decode(name, send([row])))[column]


@both_ways
def test_a_sequence_number_or_trade_id_of_digits_is_itself(send: Send) -> None:
    assert [seq({**TICK, "seq": value}, send) for value in (12, "12", -5, 2**63 - 1, "007")] == [
        12,
        12,
        -5,
        2**63 - 1,
        7,
    ]
    assert seq({**TICK, "trade_id": "9"}, send) == seq({**TICK, "sequence": 9}, send) == 9


@both_ways
def test_any_other_trade_id_becomes_a_63_bit_hash(send: Send) -> None:
    ids = ["a", "A", "ä", "T-1", "9" * 19, "9" * 20, "9" * 30, "-5", "1.0", "1e2"]
    hashes = [seq({**TICK, "trade_id": trade_id}, send) for trade_id in ids]
    assert len(set(hashes)) == len(ids)
    assert all(0 <= value < 2**63 for value in hashes)


@both_ways
def test_hashes_stay_what_they_are_so_that_a_replay_after_an_update_changes_nothing(send: Send) -> None:
    assert seq({**TICK, "trade_id": "T-1"}, send) == 0x36B121C4CA1D134A
    assert seq(TICK, send) == 0x13EA13D9DD44768B
    assert seq({**TICK, "x": {"b": 1, "a": [2.5, None]}}, send) == 0x3CEDB6C8262151C8
    assert seq(NEWS, send, "news", "id") == "4ad6769ec1bd7006"


@both_ways
def test_two_distinct_ticks_at_one_instant_are_two_rows(send: Send) -> None:
    variants: list[Row] = [
        {},
        {"price": 1.6},
        {"size": 1},
        {"bid": 1},
        {"ask": 1},
        {"exchange": "Q"},
        {"exchange": "N"},
    ]
    assert len({seq({**TICK, **variant}, send) for variant in variants}) == len(variants)


@both_ways
def test_the_same_tick_has_the_same_hash_however_it_is_spelled(send: Send) -> None:
    tick = {**TICK, "size": 3, "exchange": "Q", "flags": {"a": 1, "b": 2}}
    spellings: list[Row] = [
        dict(reversed(tick.items())),
        {**tick, "price": "1.50", "size": 3.0},
        {**tick, "bid": None, "note": None},
        {**{k: v for k, v in tick.items() if k != "size"}, "qty": "3"},
        {**tick, "flags": {"b": 2, "a": 1}},
        {**tick, "seq": None},
    ]
    assert {seq(spelling, send) for spelling in spellings} == {seq(tick, send)}


@both_ways
def test_a_hash_is_the_same_whether_a_value_is_the_rows_own_or_a_default(send: Send) -> None:
    unpriced = {name: value for name, value in TICK.items() if name != "price"}
    assert only(decode("ticks", send([unpriced]), price=1.5))["seq"] == seq(TICK, send)


@both_ways
def test_a_hash_does_not_depend_on_the_other_rows_of_the_message(send: Send) -> None:
    others = [TICK, {**TICK, "x": 1}, {**TICK, "price": 2}]
    alone = [seq(row) for row in others]
    assert [row["seq"] for row in stored(decode("ticks", send(others)))] == alone
    assert [row["seq"] for row in stored(decode("ticks", send([*others[::-1], 1])))] == alone[::-1]


@both_ways
def test_news_without_an_id_has_one_of_its_title_and_url(send: Send) -> None:
    ids = {seq({**NEWS, **extra}, send, "news", "id") for extra in ({}, {"url": "u"}, {"title": "Down"})}
    assert len(ids) == 3
    assert all(len(value) == 16 for value in ids)
    assert seq({**NEWS, "sentiment": 1, "x": 1}, send, "news", "id") == seq(NEWS, send, "news", "id")
    assert seq({**NEWS, "news_id": "n-1"}, send, "news", "id") == "n-1"


# --- The row as text -------------------------------------------------------------------------------------------------


def refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"a": [1, None, "é"]}, {"a": [1, None, "é"]}),
        ({"a": math.nan, "b": [-math.inf]}, {"a": "nan", "b": ["-inf"]}),
        (math.nan, "nan"),
        ({"a": "\0\ud800"}, {"a": "\0\ud800"}),
        (msgspec.Raw(b'{"a": 1e400}'), {"a": math.inf}),
        (7, 7),
    ],
)
def test_the_text_of_a_row_is_json_that_postgres_takes(row: Any, expected: Any) -> None:
    assert json.loads(row_text(row), parse_constant=refuse_constant) == expected


# --- Properties ------------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(["2024-01-02T14:30:00Z", "1.5", "C", "\0", "null", "NaN", "2024-01-19", 1_704_205_800])
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly_rows(draw: st.DrawFn) -> tuple[Dataset, list[Any]]:
    """Rows of a dataset of which some fields may be anything."""
    dataset = DATASETS[draw(st.sampled_from(sorted(DATASETS)))]
    names = [name for column in dataset.columns for name in (str(column.name), *rule(column).aliases)]
    changes = st.dictionaries(
        st.sampled_from(names) | st.text(st.characters(codec=None), max_size=4), JSON_VALUES, max_size=4
    )
    row = changes.map(lambda fields: {**COMPLETE[dataset.name], **fields}) | changes | JSON_VALUES
    return dataset, draw(st.lists(row, max_size=5))


def check_partition(decoded: DecodedRows, given_rows: list[Any]) -> None:
    rejected = [reject.position for reject in decoded.rejects]
    assert sorted([*decoded.positions, *rejected]) == list(range(len(given_rows)))
    assert list(decoded.positions) == sorted(decoded.positions)
    assert decoded.sent == len(given_rows)
    assert len(decoded.columns) == len(decoded.dataset.columns)
    fields = {"row", "metadata", *(str(c.name) for c in decoded.dataset.columns)}
    for reject in decoded.rejects:
        assert reject.reason.partition(":")[0] in fields
        assert len(reject.reason) < 400
        json.loads(reject.row, parse_constant=refuse_constant)
    for column, values in zip(decoded.dataset.columns, decoded.columns, strict=True):
        assert len(values) == len(decoded.positions)
        for value in values:
            check_storable(column, value)


def check_storable(column: Column[Any], value: Any) -> None:
    if value is None:
        assert column.nullable
    elif isinstance(column.type, Text):
        assert type(value) is str
        assert "\0" not in value
        value.encode()
    elif isinstance(column.type, JSONB):
        assert type(value) is bytes
        json.loads(value, parse_constant=refuse_constant)
    elif isinstance(column.type, DateTime | DATE | BigInteger):
        assert type(value) is int
        assert -(2**63) <= value < 2**63
    else:
        assert type(value) is float
        assert math.isfinite(value)


@given(nearly_rows())
@settings(max_examples=200, deadline=None)
def test_whatever_json_rows_are_they_are_stored_or_rejected_and_never_lost(case: tuple[Dataset, list[Any]]) -> None:
    dataset, given_rows = case
    check_partition(decode_rows(dataset, given_rows, {}, NOW), given_rows)
    check_partition(decode_rows(dataset, as_text(given_rows), {}, NOW), given_rows)


@given(nearly_rows())
@settings(max_examples=100, deadline=None)
def test_a_row_fares_alike_alone_and_in_company(case: tuple[Dataset, list[Any]]) -> None:
    dataset, given_rows = case
    together = decode_rows(dataset, given_rows, {}, NOW)
    alone = [decode_rows(dataset, [row], {}, NOW) for row in given_rows]
    assert [len(d.positions) for d in alone] == [int(p in together.positions) for p in range(len(given_rows))]
    assert stored(together) == [row for d in alone for row in stored(d)]
    assert [r.reason for r in together.rejects] == [r.reason for d in alone for r in d.rejects]


FINITE = st.floats(min_value=-(2.0**62), max_value=2.0**62, allow_subnormal=True)
NUMBERS = (
    FINITE
    | st.integers(-(2**62), 2**62)
    | st.decimals(-(10**9), 10**9, places=4).map(str)
    | st.sampled_from(["1e2", "-2.5E-3", "0", "-0.0"])
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1))
TIMES = (
    MOMENTS.map(datetime.isoformat)
    | MOMENTS.map(lambda moment: f"{moment.isoformat()}Z")
    | st.builds(lambda moment, hours: f"{moment.isoformat()}{hours:+03d}:30", MOMENTS, st.integers(-14, 14))
    | st.integers(-(10**10), 10**11)
    | st.floats(-(10.0**9), 10.0**10)
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=10)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FINITE | st.text(CHARACTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=2),
    max_leaves=4,
)
#: None of them is a dataset's field.
UNKNOWN_NAMES = st.sampled_from(["x", "exchange", "Provider", "", "tenant id", "ünï"])


def valid(column: Column[Any]) -> st.SearchStrategy[Any]:
    if isinstance(column.type, Text):
        return st.sampled_from(["C", "p", "call", "PUT"]) if rule(column).letters else TEXTS
    if isinstance(column.type, DateTime):
        return TIMES
    if isinstance(column.type, DATE):
        return st.dates().map(date.isoformat) | MOMENTS.map(datetime.isoformat)
    if isinstance(column.type, JSONB):
        return st.dictionaries(st.text(CHARACTERS, max_size=3), PLAIN_JSON, min_size=1, max_size=3)
    if isinstance(column.type, BigInteger):
        return (
            INTEGERS
            | INTEGERS.map(str)
            | st.integers(-99, 99).map(float)
            | (TEXTS if rule(column).content_hash else st.nothing())
        )
    return NUMBERS


@st.composite
def valid_messages(draw: st.DrawFn) -> tuple[Dataset, list[Row], Row]:
    """A dataset, valid rows of one shape (any of whose optional fields may be left out), and defaults."""
    dataset = DATASETS[draw(st.sampled_from(sorted(DATASETS)))]
    defaults: Row = {}
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for column in dataset.columns:
        name = draw(st.sampled_from([str(column.name), *rule(column).aliases]))
        may_be_left_out = column.nullable or bool(rule(column).content_hash) or rule(column).enqueued_at
        if draw(st.integers(0, 4)) == 0:
            defaults[draw(st.sampled_from([str(column.name), *rule(column).aliases]))] = draw(valid(column))
            may_be_left_out = True
        if not may_be_left_out:
            required[name] = valid(column)
        elif draw(st.booleans()):
            optional[name] = st.none() | valid(column)
    for name in draw(st.lists(UNKNOWN_NAMES, unique=True, max_size=2)):
        optional[name] = PLAIN_JSON
    first = draw(st.fixed_dictionaries({**required, **optional}))
    others = draw(st.lists(st.fixed_dictionaries(required, optional=optional), max_size=4))
    return dataset, [first, *others], defaults


def comparable(decoded: DecodedRows) -> list[Row]:
    """The stored rows; in metadata the order of the fields means nothing."""
    found = stored(decoded)
    for row in found:
        if row.get("metadata") is not None:
            row["metadata"] = json.dumps(json.loads(row["metadata"]), sort_keys=True)
    return found


@given(valid_messages())
@settings(max_examples=200, deadline=None)
def test_a_message_decoded_at_once_is_what_it_is_row_by_row(message: tuple[Dataset, list[Row], Row]) -> None:
    dataset, given_rows, defaults = message
    standard = stored_defaults(dataset, defaults)
    at_once = rows._decode_at_once(dataset, as_text(given_rows), standard, NOW)
    one_by_one = rows._decode_one_by_one(dataset, given_rows, standard, NOW)
    assert one_by_one.rejects == []
    assert at_once is not None
    assert repr(comparable(at_once)) == repr(comparable(one_by_one))
    check_partition(at_once, given_rows)


@given(valid_messages(), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_a_bad_row_changes_nothing_for_the_good_ones(message: tuple[Dataset, list[Row], Row], place: int) -> None:
    dataset, given_rows, defaults = message
    good = decode_rows(dataset, as_text(given_rows), defaults, NOW)
    spoilt = [*given_rows[:place], {"symbol": 7}, *given_rows[place:]]
    decoded = decode_rows(
        dataset, as_text(spoilt), {k: v for k, v in defaults.items() if k not in ("symbol", "ticker")}, NOW
    )
    if not {"symbol", "ticker"} & set(defaults):
        assert [reject.position for reject in decoded.rejects] == [min(place, len(given_rows))]
        assert repr(comparable(decoded)) == repr(comparable(good))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_whatever_bytes_rows_are_they_are_a_list_or_an_invalid_message(given_rows: bytes) -> None:
    try:
        decoded = decode("bars", given_rows)
    except InvalidMessage:
        return
    assert decoded.sent == len(decoded.rejects)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(b"1" * 5_000, id="an integer of 5,000 digits"),
        pytest.param(b'"\xff"', id="a string that is no UTF-8"),
        pytest.param(b"[%s]" % (b"1" * 5_000), id="a list of it"),
        pytest.param(b'{"\xff": 1}', id="a name that is no UTF-8"),
    ],
)
def test_the_reason_says_that_the_row_is_wrong_also_where_python_cannot_read_it(row: bytes) -> None:
    (reject,) = decode("bars", b"[%s, %s]" % (as_text([BAR])[1:-1], row)).rejects
    assert reject.position == 1
    assert reject.reason.startswith("row: ")
