"""From JSON to typed columns: how values are read, which ones are made, and the row as text."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from support.decoding import decode_rows
from support.rows import (
    AWARE,
    BAR,
    EPOCH,
    NEWS,
    NOW,
    OPTION,
    TICK,
    Row,
    Send,
    as_text,
    both_ways,
    decode,
    only,
    reason,
    refuse_constant,
    stored,
)

from market_data_store.datasets import DATASETS
from market_data_store.wire.moments import microseconds
from market_data_store.wire.text import row_text

# --- Values ----------------------------------------------------------------------------------------------------------


@both_ways
def test_names_keep_their_case(send: Send) -> None:
    got = only(decode("bars", send([{**BAR, "provider": "Yahoo", "symbol": "AMpB é", "interval": "1h"}])))
    assert (got["provider"], got["symbol"], got["interval"]) == ("Yahoo", "AMpB é", "1h")
    assert only(decode("news", send([{**NEWS, "symbol": "aapl"}])))["symbol"] == "aapl"


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
        ("1970-01-01", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1900-01-01T00:00:00Z", datetime(1900, 1, 1, tzinfo=UTC)),
        ("2100-12-31T23:59:59.999999Z", datetime(2100, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
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
        ("2024-01-19T23:59:59.9999999", date(2024, 1, 19)),
        ("20240119", date(2024, 1, 19)),
        (20_240_119, date(2024, 1, 19)),
        (20_240_119.0, date(2024, 1, 19)),
        (1_591_689_600_000_000, date(2020, 6, 9)),
        ("1591689600", date(2020, 6, 9)),
        ("1900-01-01", date(1900, 1, 1)),
        ("2100-12-31", date(2100, 12, 31)),
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
