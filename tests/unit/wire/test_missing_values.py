"""NaN, infinities and blank texts: null where a field is optional, a reject that names the field where it is not."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import decode_frame
from support.rows import BAR, COMPLETE, OPTION, TICK, Row, Send, as_text, both_ways, decode, only, reason, stored

from market_data_store.datasets import DATASETS
from market_data_store.wire.arrow import frame_of
from market_data_store.wire.fields import fields_of
from market_data_store.wire.text import SPACES

NUMBERS = [math.nan, math.inf, -math.inf, "", " ", "\u00a0\t", "NaN", "nan", "-Infinity", "inf", "NaT", "<NA>", None]


def optional(*copy_types: str) -> list[tuple[str, str]]:
    return [
        (dataset.name, f.name)
        for dataset in DATASETS.values()
        for f in fields_of(dataset)
        if not f.required and f.kind.copy_type in copy_types
    ]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(("name", "field"), optional("float8", "int4", "timestamptz", "date", "bool"))
def test_what_is_no_value_is_null_in_an_optional_field(name: str, field: str, value: Any) -> None:
    row = COMPLETE[name] | {field: value}
    without = {k: v for k, v in row.items() if k != field}
    expected = [
        {**each, "seq": None} if name in ("ticks", "quotes") else each for each in stored(decode(name, [without]))
    ]
    for sent in (as_text([row]), [row]):
        found = stored(decode(name, sent))
        assert [{**each, "seq": None} if "seq" in each else each for each in found] == expected
    found = stored(decode_frame(DATASETS[name], frame_of(pa.Table.from_pylist([row])), {}, stored_at()))
    assert [{**each, "seq": None} if "seq" in each else each for each in found] == expected


def stored_at() -> int:
    """The moment at which `decode` enqueues its messages."""
    return int(only(decode("options", [{k: v for k, v in OPTION.items() if k != "ts"}]))["ts"])


@pytest.mark.parametrize("value", ["", " ", "\u00a0", math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "field"), [("news", "url"), ("news", "symbol"), ("ticks", "venue"), ("ticks", "side")]
)
@both_ways
def test_an_optional_text_is_null_where_it_is_blank(name: str, field: str, value: Any, send: Send) -> None:
    rows = stored(decode(name, send([COMPLETE[name] | {field: value}, COMPLETE[name] | {field: "x"}])))
    assert [row[field] for row in rows] == [None, "x"]


@both_ways
def test_the_word_nan_is_a_text_where_a_text_may_be(send: Send) -> None:
    assert only(decode("news", send([COMPLETE["news"] | {"symbol": "NaN", "url": "inf"}])))["symbol"] == "NaN"
    assert only(decode("bars", send([BAR | {"symbol": "NAN"}])))["symbol"] == "NAN"


@pytest.mark.parametrize(
    ("name", "field", "value", "expected"),
    [
        ("bars", "open", math.nan, "open: nan is not a finite number"),
        ("bars", "open", "NaN", "open: 'NaN' is not a finite number"),
        ("bars", "open", "", "open: '' is not a number"),
        ("bars", "ts", math.inf, "ts: inf is not a time"),
        ("bars", "ts", "NaT", "ts: 'NaT' is not a time"),
        ("bars", "ts", "", "ts: '' is not a time"),
        ("bars", "symbol", " \u00a0", "symbol: '' is empty"),
        ("bars", "symbol", math.nan, "symbol: nan is not a string"),
        ("ticks", "price", -math.inf, "price: -inf is not a finite number"),
        ("options", "strike", math.nan, "strike: nan is not a finite number"),
        ("options", "expiry", "", "expiry: '' is not a date"),
        ("news", "title", " ", "title: ' ' is empty"),
    ],
)
@both_ways
def test_what_is_no_value_rejects_the_row_where_a_value_is_required(
    name: str, field: str, value: Any, expected: str, send: Send
) -> None:
    assert reason(name, COMPLETE[name] | {field: value}, send).startswith(expected)
    table = frame_of(pa.Table.from_pylist([COMPLETE[name] | {field: value}]))
    (reject,) = decode_frame(DATASETS[name], table, {}, 0).rejects
    assert reject.reason.startswith(expected)


@both_ways
def test_a_required_field_is_not_taken_from_defaults_where_the_row_has_nan(send: Send) -> None:
    decoded = decode("bars", send([BAR | {"open": math.nan}, BAR | {"open": None}]), open=7)
    assert ([reject.position for reject in decoded.rejects], stored(decoded)[0]["open"]) == ([0], 7.0)


@both_ways
def test_an_optional_field_is_taken_from_defaults_where_the_row_has_no_value(send: Send) -> None:
    for value in (math.nan, "", None):
        assert only(decode("bars", send([BAR | {"volume": value}]), volume=7))["volume"] == 7.0


@both_ways
def test_the_first_name_that_has_a_value_counts(send: Send) -> None:
    assert only(decode("ticks", send([TICK | {"size": math.nan, "qty": 3}])))["size"] == 3.0


def test_a_number_beyond_all_doubles_is_no_infinity() -> None:
    text = as_text([BAR | {"volume": 0.125}]).replace(b"0.125", b"1e400")
    assert [reject.reason for reject in decode("bars", text).rejects] == ["volume: 1e400 is not a number"]
    assert reason("bars", BAR | {"volume": "1e999"}) == "volume: '1e999' is not a finite number"


def test_nan_of_a_tick_does_not_change_its_hash() -> None:
    without = only(decode("ticks", as_text([TICK])))
    assert only(decode("ticks", as_text([TICK | {"size": math.nan}]))) == without


@both_ways
def test_decimals_that_are_no_number_are_null(send: Send) -> None:
    row = BAR | {"volume": "NaN" if send is as_text else Decimal("NaN"), "vwap": None}
    assert only(decode("bars", send([row])))["volume"] is None


VALUES = st.one_of(
    st.floats(),
    st.none(),
    st.sampled_from([*NUMBERS, "1.5", "x", "1e999"]),
    st.text(SPACES + "\x00\u180e\u00ad", max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.sampled_from(
        [
            ("bars", "volume"),
            ("bars", "trade_count"),
            ("news", "url"),
            ("news", "title"),
            ("ticks", "venue"),
            ("ticks", "received_at"),
        ]
    ),
)
def test_what_is_no_value_is_the_same_for_a_column_and_for_a_value(values: list[Any], where: tuple[str, str]) -> None:
    name, field = where
    rows: list[Row] = [COMPLETE[name] | {field: value} for value in values]
    alone = decode(name, rows)
    together = decode(name, json.dumps(rows).encode())
    assert repr((together.columns, together.rejects)) == repr((alone.columns, alone.rejects))
    try:
        frame = frame_of(pa.Table.from_pylist(rows))
    except (pa.ArrowException, TypeError):
        return  # values of several types have no column
    table = decode_frame(DATASETS[name], frame, {}, 0)
    one_by_one = decode(name, frame.objects())
    assert [r.reason for r in table.rejects] == [r.reason for r in one_by_one.rejects]
    assert repr(table.columns) == repr(one_by_one.columns)
