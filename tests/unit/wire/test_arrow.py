"""Tables of Arrow: they are decoded as the same rows in JSON are, and refused with the same words."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.decoding import DecodedRows, decode_frame, decode_rows

from market_data_store.datasets import DATASETS, MAX_KEY_LENGTH
from market_data_store.errors import InvalidMessage
from market_data_store.protocol import is_arrow
from market_data_store.wire.arrow import Frame, frame_of, pack, unpack
from market_data_store.wire.moments import microseconds
from market_data_store.wire.text import row_text
from market_data_store.worker.summary import row_count

Row = dict[str, Any]

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)
NOW = microseconds(datetime(2024, 3, 5, tzinfo=UTC))
BAR: Row = {"provider": "cme", "symbol": "6eh4", "interval": "1m", "ts": NOON, "open": 1.0, "high": 2.0, "low": 0.5}
BAR |= {"close": 1.5, "volume": None}

_text = st.text(st.characters(codec="utf-8"), max_size=6)
_key = st.text("abÄ漢", min_size=1, max_size=3)
_number = st.one_of(st.floats(width=64), st.integers(-(2**63), 2**63 - 1).map(float))
_ts = st.datetimes(min_value=datetime(1900, 1, 2), max_value=datetime(2100, 12, 30))


def table(rows: list[Row], **types: pa.DataType) -> Frame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    return frame_of(pa.table(columns))


def decode(name: str, frame: Frame, /, **defaults: Any) -> DecodedRows:
    return decode_frame(DATASETS[name], frame, defaults, NOW)


def as_json(name: str, rows: list[Row], /, **defaults: Any) -> DecodedRows:
    text = json.dumps(rows, default=lambda v: v.isoformat() if isinstance(v, date) else str(v)).encode()
    return decode_rows(DATASETS[name], text, defaults, NOW)


def stored(decoded: DecodedRows) -> list[Row]:
    names = [str(column.name) for column in decoded.dataset.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*decoded.columns, strict=True)]


def contents(decoded: DecodedRows) -> tuple[Any, ...]:
    return decoded.columns, list(decoded.positions), [(r.position, r.reason) for r in decoded.rejects]


def test_a_table_is_decoded_as_its_rows_are() -> None:
    rows = [BAR, BAR | {"symbol": "ES", "volume": 7, "ts": NOON + timedelta(microseconds=1)}]
    assert contents(decode("bars", table(rows))) == contents(as_json("bars", rows))


@settings(max_examples=150)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"provider": _key, "symbol": st.one_of(_key, st.none()), "ts": _ts, "price": st.one_of(_number, st.none())},
            optional={"size": st.one_of(_number, st.none()), "seq": st.integers(-(2**63), 2**63 - 1), "venue": _text},
        ),
        min_size=1,
        max_size=8,
    )
)
def test_ticks_are_decoded_as_their_rows_are(rows: list[Row]) -> None:
    """Nulls, NaN and infinities, hashes for what has no sequence, fields that are unknown: all as in JSON."""
    frame = table(rows, price=pa.float64(), size=pa.float64(), symbol=pa.string(), seq=pa.int64(), venue=pa.string())
    names = frame.table.column_names
    complete = [{name: row.get(name) for name in names} for row in rows]
    assert contents(decode("ticks", frame)) == contents(as_json("ticks", complete))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        (
            "options",
            {"provider": "x", "symbol": "A", "expiry": date(2024, 6, 21), "strike": 5.0, "option_type": "call"},
        ),
        ("options", {"provider": "x", "symbol": "A", "expiration": "2024-06-21", "strike": 5, "right": "P", "oi": 3}),
        ("news", {"provider": "x", "published_at": NOON, "headline": "Up", "sentiment": -0.5, "desk": "fx"}),
        ("signals", {"provider": "x", "symbol": "A", "ts": NOON, "name": "n", "metadata": {"a": [1, None]}, "b": 2}),
        ("fundamentals", {"provider": "x", "symbol": "A", "as_of": NOON, "eps": 1.25, "note": None}),
        ("quotes", {"source": "x", "ticker": "a", "time": NOON, "bid_price": 1, "ask_price": Decimal("1.5")}),
        ("bars", BAR | {"open": "1.25", "ts": "2024-03-04T12:00:00Z", "trade_count": 5}),
        ("bars", BAR | {"ts": 1_709_553_600}),
        ("bars", BAR | {"ts": NOON.replace(tzinfo=None)}),
    ],
)
def test_each_dataset_takes_what_its_rows_take(name: str, row: Row) -> None:
    decoded = decode(name, table([row, row]))
    assert contents(decoded) == contents(as_json(name, [row, row]))
    assert not decoded.rejects


@pytest.mark.parametrize(
    ("good", "change", "reason"),
    [
        ({}, {"open": float("nan")}, "open: nan is not a finite number"),
        ({"volume": 1.0}, {"volume": 1e300}, "volume: 1e+300 is beyond 64 bits"),
        ({"close": "1.5"}, {"close": "much"}, "close: 'much' is not a number"),
        ({}, {"symbol": None}, "symbol: null (key column); give it in the row or in defaults"),
        ({}, {"symbol": "A\0"}, "symbol: 'A\\x00' holds a NUL character"),
        ({}, {"symbol": "A" * (MAX_KEY_LENGTH + 1)}, "symbol: 'AAAA"),
    ],
)
def test_a_bad_row_alone_is_rejected_with_its_field_and_value(good: Row, change: Row, reason: str) -> None:
    decoded = decode("bars", table([BAR | good, BAR | change, BAR | good]))
    (reject,) = decoded.rejects
    assert reject.reason.startswith(reason)
    assert (reject.position, list(decoded.positions)) == (1, [0, 2])


def test_a_column_of_a_type_that_no_row_can_have_rejects_all() -> None:
    decoded = decode("bars", table([BAR | {"close": b"\xff"}] * 2))
    assert [reject.reason for reject in decoded.rejects] == ["close: b'\\xff' is not a number"] * 2


def test_a_table_without_a_key_column_takes_it_from_defaults_or_rejects_all() -> None:
    rows = [{k: v for k, v in BAR.items() if k != "provider"}] * 2
    assert [r.reason for r in decode("bars", table(rows)).rejects] == [
        "provider: missing (key column); give it in the row or in defaults"
    ] * 2
    assert decode("bars", table(rows), provider="cme").columns[0] == ["cme", "cme"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_a_time_is_the_same_moment_in_every_unit_and_zone(unit: str, zone: str | None) -> None:
    moments = pa.array([NOON if zone else NOON.replace(tzinfo=None)], pa.timestamp(unit, tz=zone))
    frame = frame_of(pa.table({**{k: [v] for k, v in BAR.items() if k != "ts"}, "ts": moments}))
    assert decode("bars", frame).columns[3] == [microseconds(NOON)]


def test_nanoseconds_are_kept_also_where_a_row_is_looked_at_by_itself() -> None:
    moments = pa.array([1_709_553_600_000_001_999, 1_709_553_600_000_000_000], pa.timestamp("ns", tz="UTC"))
    tick = {"provider": "x", "symbol": "A", "price": 1.5}
    frame = frame_of(pa.table({**{k: [v, v] for k, v in tick.items()}, "ts": moments}))
    (got, even) = stored(decode("ticks", frame))
    assert (got["ts"], got["nanos"], even["nanos"]) == (microseconds(NOON) + 1, 999, None)
    wrong = frame_of(pa.table({**{k: [v, v] for k, v in tick.items()}, "ts": moments, "price": ["x", "x"]}))
    rows = [json.loads(reject.row) for reject in decode("ticks", wrong).rejects]
    assert [row["ts"] for row in rows] == ["2024-03-04T12:00:00.000001999+00:00", "2024-03-04T12:00:00+00:00"]


def test_a_table_of_many_chunks_and_of_categories_is_one_table() -> None:
    parts = [
        pa.table({**{k: [v] for k, v in BAR.items()}, "symbol": pa.array([symbol]).dictionary_encode()})
        for symbol in ("b", "a", "b")
    ]
    frame = frame_of(pa.concat_tables(parts, promote_options="permissive"))
    assert decode("bars", frame).columns[1] == ["b", "a", "b"]
    _, again, _ = unpack(pack("bars", b"{}", frame))
    assert contents(decode("bars", again)) == contents(decode("bars", frame))


def test_a_body_says_dataset_and_defaults_and_holds_its_part_alone() -> None:
    whole = table([BAR | {"open": float(n)} for n in range(1_000)])
    body = pack("bars", b'{"provider":"x"}', whole.part(990, 500))
    assert is_arrow(body)
    assert not is_arrow(b"[[]]")
    assert len(body) < len(pack("bars", b"{}", whole)) / 5
    name, frame, defaults = unpack(body)
    assert (name, len(frame), defaults) == ("bars", 10, {"provider": "x"})
    assert frame.objects()[0]["open"] == 990.0
    assert json.loads(row_text(frame.objects()[9]))["open"] == 999.0
    assert row_count("('bars', <10 rows>)", body) == 10
    assert row_count("?", body) == len(body) // 80, "by its size, where nobody says"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body: body[:100], "body: not a readable Arrow IPC stream"),
        (lambda body: b"\xff\xff\xff\xff" + b"x" * 100, "body: not a readable Arrow IPC stream"),
        (lambda body: b"", "body: not a readable Arrow IPC stream"),
        (lambda body: body.replace(b"dataset", b"tadaset"), "dataset: missing; set `dataset` in the schema's metadata"),
        (lambda body: body.replace(b'{"provider":1}', b'{"provider":??'), "body: dataset or defaults cannot be read"),
    ],
)
def test_a_body_that_cannot_be_read_is_an_invalid_message(spoil: Any, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason.replace("(", r"\(")):
        unpack(spoil(pack("bars", b'{"provider":1}', table([BAR]))))


@settings(max_examples=500)
@given(st.data())
def test_a_body_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(pack("bars", b"{}", table([BAR] * 5)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        name, frame, defaults = unpack(bytes(body))
    except InvalidMessage:
        return
    if name == "bars" and isinstance(defaults, dict):
        assert decode_frame(DATASETS["bars"], frame, defaults, NOW).sent == len(frame)


def test_two_columns_of_one_name_are_an_invalid_message() -> None:
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["open", "open"])
    with pytest.raises(InvalidMessage, match="open: two columns have this name; rename one"):
        frame_of(twice)


@pytest.mark.parametrize("value", [7, "bars", [1, 2]])
def test_what_is_no_table_is_an_invalid_message(value: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"table: \w+ cannot be read as an Arrow table"):
        frame_of(value)


def test_a_mapping_of_columns_is_accepted_as_a_table() -> None:
    assert decode("bars", frame_of({name: [value] for name, value in BAR.items()})).columns[1] == [BAR["symbol"]]


def packed(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({"dataset": "signals"})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


@pytest.mark.parametrize("column", [pa.array([0.0] * 1_000), pa.array(["a"] * 1_000).dictionary_encode()])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_compressed_stream_is_refused_before_it_fills_the_memory(column: Any, codec: str) -> None:
    unpack(packed(pa.table({"value": column})))
    with pytest.raises(InvalidMessage, match="body: the stream is compressed; send it uncompressed"):
        unpack(packed(pa.table({"value": column}), compression=codec))


def test_rows_that_take_no_room_are_refused() -> None:
    with pytest.raises(InvalidMessage, match=r"rows: 200,000,000 rows in ... bytes; give each row its key columns"):
        unpack(packed(pa.table({"value": pa.nulls(200_000_000)})))


@pytest.mark.parametrize("categories", ["dictionary", "string_view"])
def test_a_part_of_a_table_holds_no_texts_of_other_rows(categories: str) -> None:
    urls = pa.array([f"https://example.org/{number:040}" for number in range(20_000)])
    column = urls.dictionary_encode() if categories == "dictionary" else urls.cast(pa.string_view())
    assert len(pack("news", b"{}", frame_of(pa.table({"url": column})).part(7, 1))) < 1_000


SIGNAL: Row = {"provider": "x", "symbol": "A", "ts": NOON, "name": "n", "value": 1.0}


@pytest.mark.parametrize("extra", [NOON, NOON.date(), Decimal("1.5"), 1.5])
def test_what_is_kept_beside_is_the_same_whether_all_rows_are_good_or_not(extra: Any) -> None:
    good = SIGNAL | {"extra": extra}
    whole, partial = decode("signals", table([good])), decode("signals", table([good, good | {"symbol": None}]))
    assert [column[:1] for column in partial.columns] == whole.columns
    assert len(partial.rejects) == 1


def test_nan_in_an_unknown_field_of_a_table_is_null() -> None:
    decoded = decode("signals", table([SIGNAL | {"extra": float("nan"), "other": 1.5}]))
    assert decoded.columns[-1] == [b'{"other":1.5}']


def test_a_rejected_tick_that_is_replayed_as_json_has_the_same_sequence() -> None:
    tick = {"provider": "x", "symbol": "A", "ts": NOON, "price": 1.0, "venue_ts": NOON, "venue": "XNYS"}
    frame = table([tick])
    replayed = decode_rows(DATASETS["ticks"], f"[{row_text(frame.objects()[0])}]".encode(), {}, NOW)
    assert replayed.columns == decode("ticks", frame).columns


def test_a_null_in_a_dictionary_is_a_null() -> None:
    symbols = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["A", None]))
    columns = {name: [value] * 2 for name, value in SIGNAL.items() if name != "symbol"}
    (reject,) = decode("signals", frame_of(pa.table({**columns, "symbol": symbols}))).rejects
    assert (reject.position, reject.reason[:12]) == (1, "symbol: null")


def test_a_day_beyond_the_year_9999_is_rejected_and_a_day_will_do_for_a_time() -> None:
    option = {"provider": "x", "symbol": "A", "strike": 5.0, "option_type": "C"}
    frame = frame_of(pa.table({**{k: [v] for k, v in option.items()}, "expiry": pa.array([10_000_000], pa.date32())}))
    assert decode("options", frame).rejects[0].reason.startswith("expiry: ")
    assert decode("bars", table([BAR | {"ts": NOON.date()}])).columns[3] == [microseconds(NOON) - 43_200_000_000]


def test_a_stream_that_was_cut_off_anywhere_is_refused() -> None:
    """Between two batches, and after the schema, pyarrow takes the end of the bytes for the end of the stream."""
    rows = pa.table({"symbol": ["A", "B", "C"], "close": [1.0, 2.0, 3.0]}).replace_schema_metadata({"dataset": "bars"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=1)
    body = sink.getvalue().to_pybytes()
    assert len(unpack(body)[1].table) == 3
    for end in range(len(body)):
        with pytest.raises(InvalidMessage, match="body: "):
            unpack(body[:end])
