"""From JSON to typed columns: what is rejected and why, with the others unhindered."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.rows import (
    BAR,
    COMPLETE,
    SIGNAL,
    Send,
    as_text,
    both_ways,
    decode,
    only,
    reason,
    rule,
    stored,
)

from market_data_store.datasets import DATASETS, MAX_KEY_LENGTH, MAX_TEXT_LENGTH
from market_data_store.errors import InvalidMessage


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
        ("bars", "trade_count", 2**63, "9223372036854775808 is beyond 64 bits"),
        ("bars", "trade_count", str(2**63), "'9223372036854775808' is beyond 64 bits"),
        ("bars", "trade_count", 1.5, "1.5 is not an integer"),
        ("bars", "trade_count", "1.5", "'1.5' is not an integer"),
        ("bars", "trade_count", "many", "'many' is not an integer"),
        ("bars", "symbol", 7, "7 is not a string"),
        ("bars", "symbol", "", "'' is empty"),
        ("bars", "symbol", None, "null (key column); give it in the row or in defaults"),
        ("bars", "symbol", "A\0B", "'A\\x00B' holds a NUL character"),
        ("bars", "symbol", "A\ud800", "'A\\ud800' is not valid Unicode"),
        ("bars", "symbol", "x" * (MAX_KEY_LENGTH + 1), f"is too long; send at most {MAX_KEY_LENGTH} characters"),
        ("bars", "ts", "2024-02-30T00:00:00Z", "'2024-02-30T00:00:00Z' is not a time; send ISO 8601"),
        ("bars", "ts", "yesterday", "'yesterday' is not a time; send ISO 8601, or a number of s, ms, us or ns"),
        ("bars", "ts", "2024-01-01T24:00:00Z", "is not a time; send ISO 8601"),
        ("bars", "ts", "2024-01-01T14:30.5", "is not a time; send ISO 8601"),
        ("bars", "ts", "2024-01-01x14:30:00", "is not a time; send ISO 8601"),
        ("bars", "ts", "2024-01-01T14:30:00.1234567891", "is finer than a nanosecond"),
        ("bars", "ts", "0001-01-01T00:00:00+01:00", "is not a time from year 1 to 9999"),
        ("bars", "ts", "9999-12-31T23:59:59-01:00", "is not a time from year 1 to 9999"),
        ("bars", "ts", "1899-12-31T23:59:59Z", "is before 1900; set MDS_ANY_YEAR=true if that is right"),
        ("bars", "ts", "2101-01-01", "'2101-01-01' is after 2100; set MDS_ANY_YEAR=true if that is right"),
        (
            "bars",
            "ts",
            0,
            "0 does not show its unit, as times from 1973 to 2100 do; set time_unit in defaults to s, ms",
        ),
        ("bars", "ts", -1.5, "-1.5 does not show its unit"),
        ("bars", "ts", "94694399", "'94694399' does not show its unit"),
        ("bars", "ts", "20240102143000", "'20240102143000' does not show its unit"),
        ("bars", "ts", 202401021430, "202401021430 does not show its unit"),
        ("bars", "ts", 19840931, "19840931 is not a calendar date as YYYYMMDD"),
        ("bars", "ts", "1.7e9", "'1.7e9' is not a time"),
        ("bars", "ts", math.nan, "nan is not a time; send ISO 8601"),
        ("bars", "ts", 10**30, "does not show its unit"),
        ("bars", "ts", {}, "{} is not a time; send ISO 8601"),
        ("bars", "ts", True, "True is not a time; send ISO 8601"),
        ("bars", "ts", " ", "' ' is not a time; send ISO 8601"),
        ("ticks", "nanos", 1_000, "1000 is not an integer from 0 to 999"),
        ("ticks", "seq", 2**63, "9223372036854775808 is beyond 64 bits"),
        ("ticks", "seq", 1.5, "1.5 is not an integer"),
        ("ticks", "seq", True, "True is not an integer"),
        ("options", "expiry", "19 Jan 2024", "'19 Jan 2024' is not a date; send YYYY-MM-DD"),
        ("options", "expiry", "2024-02-30", "'2024-02-30' is not a date; send YYYY-MM-DD"),
        ("options", "expiry", 20_240_230, "20240230 is not a calendar date as YYYYMMDD"),
        ("options", "expiry", "1875-01-01", "'1875-01-01' is before 1900"),
        ("options", "option_type", "straddle", "'straddle' is not one of C, P"),
        ("options", "option_type", "", "'' is not one of C, P"),
        ("options", "strike", None, "null (key column)"),
        ("news", "title", "x" * (MAX_TEXT_LENGTH + 1), "is too long; send at most 65,536 characters"),
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
        "close: 1e400 is not a number",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_number_in_metadata_is_null(value: float) -> None:
    row = {**SIGNAL, "metadata": {"a": [value]}, "b": value, "c": {"d": value}}
    for rows in (as_text([row]), [row]):
        assert json.loads(only(decode("signals", rows))["metadata"]) == {"a": [None], "c": {"d": None}}


def test_metadata_may_hold_a_backslash_before_u0000() -> None:
    metadata = {"path": r"C:\u0000"}
    assert json.loads(only(decode("signals", as_text([{**SIGNAL, "metadata": metadata}])))["metadata"]) == metadata


@pytest.mark.parametrize(
    ("name", "field"),
    [(dataset.name, str(column.name)) for dataset in DATASETS.values() for column in dataset.columns],
)
def test_the_string_null_means_the_same_in_both_decoders(name: str, field: str) -> None:
    row = {**COMPLETE[name], field: "null"}
    default = {field: COMPLETE[name].get(field, "1")}
    for defaults in ({}, {} if field in ("metadata", "received_at") else default):
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
