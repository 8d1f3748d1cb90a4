"""From JSON to typed columns: what holds for all rows, and that both decoders agree."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, DATE, JSONB
from support.decoding import DecodedRows, decode_rows
from support.rows import (
    BAR,
    COMPLETE,
    NOW,
    Row,
    as_text,
    decode,
    refuse_constant,
    rule,
    stored,
)

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.wire.rows import Shape, read_rows
from market_data_store.wire.text import name_of

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
    elif isinstance(column.type, ARRAY):
        assert all(type(text) is str and "\0" not in text for text in value)
    elif isinstance(column.type, Boolean):
        assert type(value) is bool
    elif isinstance(column.type, DateTime | DATE | Integer):
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
def test_a_row_is_decoded_the_same_alone_and_with_others(case: tuple[Dataset, list[Any]]) -> None:
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
MOMENTS = st.datetimes(datetime(1900, 1, 2), datetime(2100, 12, 30))
TIMES = (
    MOMENTS.map(datetime.isoformat)
    | MOMENTS.map(lambda moment: f"{moment.isoformat()}Z")
    | st.builds(lambda moment, hours: f"{moment.isoformat()}{hours:+03d}:30", MOMENTS, st.integers(-14, 14))
    | st.integers(94_694_400, 4_102_444_800)
    | st.integers(94_694_400_000_000, 4_102_444_800_000_000).map(str)
    | st.floats(94_694_400.0, 4_102_444_800.0)
)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(CHARACTERS, min_size=1, max_size=10)
NAMES = (TEXTS | st.sampled_from(["\ufeffAAPL\xa0", " a b\u200b"])).filter(name_of)
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FINITE | st.text(CHARACTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(CHARACTERS, max_size=3), inner, max_size=2),
    max_leaves=4,
)
#: None of them is a dataset's field.
UNKNOWN_NAMES = st.sampled_from(["x", "exchange name", "Provider", "", "tenant id", "ünï"])


def valid(column: Column[Any]) -> st.SearchStrategy[Any]:
    if isinstance(column.type, Text):
        texts = NAMES if rule(column).trimmed else TEXTS
        codes = texts | INTEGERS if rule(column).numbered else texts
        return st.sampled_from(["C", "p", "call", " PUT"]) if rule(column).letters else codes
    if isinstance(column.type, ARRAY):
        return st.lists(TEXTS | INTEGERS, max_size=3) | TEXTS
    if isinstance(column.type, Boolean):
        return st.booleans() | st.sampled_from(["true", "False", "1", 0])
    if isinstance(column.type, Integer) and not isinstance(column.type, BigInteger):
        return st.integers(*(rule(column).within or (-(2**31), 2**31 - 1)))
    if isinstance(column.type, DateTime):
        return TIMES
    if isinstance(column.type, DATE):
        return st.dates(date(1900, 1, 1), date(2100, 12, 31)).map(date.isoformat) | MOMENTS.map(datetime.isoformat)
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
        # A trade_id that is also the sequence, beside an id, would be a second name of one column.
        aliases = [alias for alias in rule(column).aliases if alias != "trade_id" or dataset.name != "ticks"]
        name = draw(st.sampled_from([str(column.name), *aliases]))
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
    assert isinstance(read_rows(dataset, as_text(given_rows), defaults).form, Shape)
    at_once = decode_rows(dataset, as_text(given_rows), defaults, NOW)
    one_by_one = decode_rows(dataset, given_rows, defaults, NOW)
    assert one_by_one.rejects == []
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
