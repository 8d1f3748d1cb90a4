"""Many messages decoded at once: each row fares as it does when it is read by itself."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import decode_frame, decode_rows

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.postgres.batch import Batch
from market_data_store.postgres.messages import DecodedMessage, decoded
from market_data_store.wire.arrow import Frame, frame_of, pack, read_table, unpack
from market_data_store.wire.columns import MESSAGE, POSITION
from market_data_store.wire.moments import microseconds
from market_data_store.wire.reader import Reject, read_row
from market_data_store.wire.rows import SentRows, Shape, read_rows

Row = dict[str, Any]

NOW = microseconds(datetime(2024, 1, 2, 14, 30, tzinfo=UTC))
AT = "2024-01-02T14:30:00Z"
BAR: Row = {"provider": "p", "symbol": "A", "interval": "1m", "ts": AT, "open": 1, "high": 2, "low": 0, "close": 1}
COMPLETE: dict[str, Row] = {
    "bars": BAR,
    "ticks": {"provider": "p", "symbol": "A", "ts": AT, "price": 1.5},
    "quotes": {"provider": "p", "symbol": "A", "ts": AT, "bid": 1.0, "ask": 2.0},
    "options": {"provider": "p", "symbol": "A", "ts": AT, "expiry": "2024-01-19", "strike": 5, "option_type": "C"},
    "fundamentals": {"provider": "p", "symbol": "A", "ts": AT, "eps": 1.0},
    "news": {"provider": "p", "ts": AT, "title": "Up"},
    "signals": {"provider": "p", "symbol": "A", "ts": AT, "name": "n"},
}


def row_by_row(dataset: Dataset, rows: SentRows, enqueued_at: int) -> list[list[Any] | Reject]:
    """What the reader makes of each row by itself, where it knows how many equal rows are before it."""
    moment = enqueued_at + 946_684_800_000_000
    seen: Counter[tuple[Any, ...]] = Counter()
    found = []
    for n, raw in enumerate(rows.at(range(len(rows)))):
        row = read_row(dataset, n, raw, rows.standard, moment)
        if not isinstance(row, Reject):
            key = tuple(row[: len(dataset.key)])
            seen[key] += 1
            row = read_row(dataset, n, raw, rows.standard, moment, occurrence=seen[key])
        found.append(row)
    return found


def stored(batch: pa.RecordBatch, dataset: Dataset) -> list[list[Any]]:
    """The rows as the reader gives them: times and dates are numbers since 1970."""
    columns = []
    for name in [column.name for column in dataset.columns]:
        column = batch.column(batch.schema.get_field_index(name))
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns.append((column.cast(pa.int32()) if pa.types.is_date32(column.type) else column).to_pylist())
    return [list(values) for values in zip(*columns, strict=True)]


# --- Any mixture of messages -----------------------------------------------------------------------------------------

#: Changes to a row that all datasets understand, some of them wrong.
CHANGES: list[Row] = [
    {},
    {"symbol": "b"},
    {"symbol": "ß"},
    {"symbol": None},
    {"symbol": "A\0"},
    {"provider": ""},
    {"provider": 7},
    {"ts": "2024-01-02T14:30:00"},
    {"ts": "2024-01-02T16:30:00+02:00"},
    {"ts": "2024-01-02T14:30:00.123456789Z"},
    {"ts": "2024-01-02"},
    {"ts": "never"},
    {"ts": "null"},
    {"ts": 1_704_205_800},
    {"ts": 1_704_205_800.5},
    {"close": -0.0},
    {"close": 0.0},
    {"price": "2.5"},
    {"price": "much"},
    {"volume": 10**30},
    {"bid": None},
    {"seq": "T-1"},
    {"seq": 7},
    {"trade_id": "9"},
    {"expiry": "2024-01-19T00:00:00"},
    {"expiry": "soon"},
    {"option_type": "put"},
    {"metadata": {"a": [1, None]}},
    {"metadata": {"a": "x" * 70_000}},
    {"metadata": [1]},
    {"beside": {"b": 1, "a": 2}},
    {"beside": "\0"},
]
DEFAULTS: list[Row] = [{}, {}, {"symbol": "d", "provider": "d"}, {"volume": 7, "bid": "7"}]

#: Types of Arrow's, with values that they may have, good and bad ones.
ARROW_COLUMNS: dict[str, list[tuple[pa.DataType, list[Any]]]] = {
    "symbol": [
        (pa.string(), ["A", "b", "é", "", None, "A" * 129, "A\0"]),
        (pa.large_string(), ["A", "b", None]),
        (pa.string_view(), ["A", "ß", None]),
        (pa.dictionary(pa.int8(), pa.string()), ["A", "b", None]),
        (pa.int64(), [7]),
    ],
    "ts": [
        (pa.timestamp("s"), [0, 1_704_205_800, 2**40, None]),
        (pa.timestamp("ms", "Europe/Berlin"), [0, 1_704_205_800_000]),
        (pa.timestamp("us", "UTC"), [-1, 2**60, None]),
        (pa.timestamp("ns", "UTC"), [-1, 1_704_205_800_000_001_999]),
        (pa.string(), [AT, "2024-01-02T14:30:00", "2024-01-02", "1704205800", "never", None]),
        (pa.date32(), [0, 19_724]),
        (pa.date64(), [0, 86_400_000]),
        (pa.int64(), [0, 1_704_205_800, 2**60]),
        (pa.float64(), [0.5, 1e300]),
    ],
    "number": [
        (pa.float64(), [1.5, -0.0, float("nan"), float("inf"), 1e300, None]),
        (pa.float32(), [1.5, 0.1]),
        (pa.float16(), [1.5, None]),
        (pa.int64(), [1, 2**53 + 1, -(2**63), None]),
        (pa.uint64(), [1, 2**64 - 1]),
        (pa.int8(), [-1, None]),
        (pa.decimal128(30, 5), [Decimal("1.25"), Decimal("123456789012345678.12345"), None]),
        (pa.decimal256(60, 3), [Decimal("0.001")]),
        (pa.string(), ["1.5", "1e2", "much", "null", None]),
        (pa.bool_(), [True]),
        (pa.null(), [None]),
        (pa.list_(pa.float64()), [[1.0]]),
        (pa.binary(), [b"1"]),
    ],
}


@st.composite
def tables(draw: st.DrawFn, name: str) -> Frame:
    """A table of a dataset in which some columns are of any type and hold anything."""
    count = draw(st.integers(0, 4))
    columns: Row = {}
    for field, value in COMPLETE[name].items():
        kind = "ts" if field == "ts" else "symbol" if isinstance(value, str) else "number"
        if draw(st.integers(0, 3)) and field != "ts":
            columns[field] = pa.array([value] * count, pa.string() if isinstance(value, str) else pa.float64())
        else:
            type_, values = draw(st.sampled_from(ARROW_COLUMNS[kind]))
            columns[field] = pa.array([draw(st.sampled_from(values)) for _ in range(count)], type_)
    if draw(st.booleans()):
        type_, values = draw(st.sampled_from(ARROW_COLUMNS[draw(st.sampled_from(sorted(ARROW_COLUMNS)))]))
        columns["beside"] = pa.array([draw(st.sampled_from(values)) for _ in range(count)], type_)
    return frame_of(pa.table(columns))


@st.composite
def messages(draw: st.DrawFn, name: str) -> DecodedMessage:
    """A message of JSON text, of objects, or of a table."""
    dataset, defaults = DATASETS[name], draw(st.sampled_from(DEFAULTS))
    if draw(st.integers(0, 2)) == 0:
        _, frame, _ = unpack(pack(name, b"{}", draw(tables(name))))
        rows = read_table(dataset, frame, defaults)
    else:
        given_rows = [COMPLETE[name] | draw(st.sampled_from(CHANGES)) for _ in range(draw(st.integers(0, 4)))]
        if draw(st.integers(0, 5)) == 0:
            given_rows.append(draw(st.sampled_from([7, None, [], {}, "row"])))
        rows = read_rows(dataset, given_rows if draw(st.booleans()) else json.dumps(given_rows).encode(), defaults)
    return DecodedMessage(task_id="t", dataset=dataset, rows=rows, enqueued_at=NOW + draw(st.integers(0, 2)))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_in_any_mixture_each_row_is_what_it_is_by_itself_and_the_newest_of_a_key_is_written(
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from(sorted(DATASETS)))
    dataset = DATASETS[name]
    sent = data.draw(st.lists(messages(name), min_size=1, max_size=4))
    alone = [row_by_row(dataset, message.rows, message.enqueued_at) for message in sent]

    found = decoded(dataset, sent)
    found.rows.validate(full=True)
    assert found.rejects == [[row for row in rows if isinstance(row, Reject)] for rows in alone]

    names = [column.name for column in dataset.columns]
    by_key: dict[tuple[Any, ...], list[tuple[int, int, int, list[Any]]]] = {}
    for index, rows in enumerate(alone):
        for position, row in enumerate(rows):
            if not isinstance(row, Reject):
                key = tuple(row[names.index(column)] for column in dataset.key)
                by_key.setdefault(key, []).append((sent[index].enqueued_at, index, position, row))
    batch = Batch(found, sent)
    written = batch.columns(range(len(batch)))
    newest = [max(by_key[key], key=lambda row: row[:3]) for key in sorted(by_key)]
    origins = [written.column(MESSAGE).to_pylist(), written.column(POSITION).to_pylist()]
    assert list(zip(*origins, strict=True)) == [(index, position) for _, index, position, _ in newest]
    # As texts, which tell -0.0 from 0.0; in metadata the order of the fields means nothing.
    expected = [[_ordered(value) for value in row] for *_, row in newest]
    assert repr([[_ordered(value) for value in row] for row in stored(written, dataset)]) == repr(expected)

    batch.count(range(len(batch)), written=range(len(batch)))
    for index, rows in enumerate(alone):
        counts = batch.counts[index]
        assert counts.rejected == sum(isinstance(row, Reject) for row in rows)
        assert counts.written == sum(of == index for _, of, _, _ in newest)
        assert counts.rows == len(rows)


def _ordered(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return json.dumps(json.loads(value), sort_keys=True)
    return value


@pytest.mark.parametrize("place", [0, 1, 499])
def test_a_wrong_row_takes_none_of_the_others_off_the_fast_way(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, since a message read row by row as a whole is stored alike and takes ten times as long."""
    read: list[int] = []

    def counted(dataset: Dataset, position: int, *arguments: Any, **more: Any) -> Any:
        read.append(position)
        return read_row(dataset, position, *arguments, **more)

    monkeypatch.setattr("market_data_store.wire.alone.read_row", counted)
    rows = [BAR | {"ts": (datetime(2024, 1, 2, tzinfo=UTC) + timedelta(minutes=n)).isoformat()} for n in range(500)]
    rows[place]["ts"] = "never"
    assert [
        reject.position for reject in decode_rows(DATASETS["bars"], json.dumps(rows).encode(), {}, NOW).rejects
    ] == [place]
    rows[place] |= {"ts": AT, "close": float("nan")}
    assert [reject.position for reject in decode_frame(DATASETS["bars"], frame_of_rows(rows), {}, NOW).rejects] == [
        place
    ]
    assert read == [place] * 2


def frame_of_rows(rows: list[Row]) -> Frame:
    return frame_of(pa.Table.from_pylist(rows))


# --- Times -----------------------------------------------------------------------------------------------------------

DIGITS = st.integers(0, 99).map("{:02}".format)
FRACTIONS = st.sampled_from([".", ",", ""]).flatmap(lambda mark: st.text("0123456789", max_size=10).map(mark.__add__))
OFFSETS = st.sampled_from(
    ["", "Z", "z", "+00:00", "-00:00", "+05:30", "+0530", "+05", "-14:00", "+23:59", "+24:00"]
) | (st.builds("{}{}:{}".format, st.sampled_from("+-"), DIGITS, DIGITS))
DAYS = st.dates().map(date.isoformat) | st.builds("{}{}-{}-{}".format, DIGITS, DIGITS, DIGITS, DIGITS)
CLOCKS = st.builds("{}:{}:{}".format, *[st.integers(0, 61).map("{:02}".format)] * 3) | st.sampled_from(
    ["", "14", "14:30", "143000", "24:00:00", "23:59:60", "1:2:3"]
)
TIMES = st.builds(
    lambda day, mark, clock, fraction, offset: f"{day}{mark}{clock}{fraction}{offset}",
    DAYS,
    st.sampled_from(["T", " ", "t", ""]),
    CLOCKS,
    FRACTIONS,
    OFFSETS,
) | st.text("0123456789-:TZ+. ", max_size=26)


@settings(max_examples=400, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=4), st.booleans())
def test_no_text_is_another_time_for_arrow_than_for_the_reader(times: list[str], with_date: bool) -> None:
    name, field = ("options", "expiry") if with_date else ("bars", "ts")
    rows = [COMPLETE[name] | {field: text} for text in times]
    dataset, text = DATASETS[name], json.dumps(rows).encode()
    together, alone = decode_rows(dataset, text, {}, NOW), decode_rows(dataset, rows, {}, NOW)
    assert together == alone
    assert decode_frame(dataset, frame_of_rows(rows), {}, NOW) == alone


# --- What costs memory -----------------------------------------------------------------------------------------------


def test_categories_that_stand_for_too_much_text_are_refused() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int8()), pa.array(["x" * 10_000]))
    with pytest.raises(
        InvalidMessage, match="title: too much text in its categories; send shorter ones, or fewer rows"
    ):
        frame_of(pa.table({"title": column}))


def test_messages_of_one_shape_share_their_decoder() -> None:
    first, second = (read_rows(DATASETS["bars"], json.dumps([BAR]).encode(), {}) for _ in range(2))
    assert isinstance(first.form, Shape)
    assert first.form is second.form
    assert first.standard is second.standard
