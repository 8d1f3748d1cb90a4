"""A time has one reading, or its row is rejected: in JSON and in Arrow, as a number and as a text."""

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
from support.rows import BAR, OPTION, TICK, Row, as_text, decode, only, stored

from market_data_store.datasets import DATASETS
from market_data_store.errors import InvalidMessage
from market_data_store.wire.arrow import Frame, frame_of, pack, unpack

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
FIRST_NS, LAST_NS = 94_694_400 * 10**9, 4_102_444_800 * 10**9
#: Postgres's epoch, from which decoded rows count.
EPOCH_US = 946_684_800_000_000


def nanoseconds(row: Row) -> int:
    """The instant of a stored tick."""
    return (int(row["ts"]) + EPOCH_US) * 1_000 + (row["nanos"] or 0)


def as_frame(rows: list[Row], **types: pa.DataType) -> Frame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    _, frame, _ = unpack(pack("ticks", b"{}", frame_of(pa.table(columns))))
    return frame


def in_every_way(rows: list[Row], /, name: str = "ticks", **defaults: Any) -> DecodedRows:
    """Rows decoded as JSON text, as objects and as a table; asserts that all of them agree."""
    dataset = DATASETS[name]
    together = decode_rows(dataset, as_text(rows), defaults, 0)
    one_by_one = decode_rows(dataset, rows, defaults, 0)
    assert (together.columns, together.rejects) == (one_by_one.columns, one_by_one.rejects)
    try:
        frame = as_frame(rows)
    except (pa.ArrowException, OverflowError):  # values of several types, or an integer beyond 64 bits
        return together
    table = decode_frame(dataset, frame, defaults, 0)
    assert (table.columns, table.rejects) == (one_by_one.columns, one_by_one.rejects)
    return together


def is_date_and_minute(number: int) -> bool:
    """Whether a number of milliseconds could also be YYYYMMDDHHMM."""
    try:
        return len(str(number)) == 12 and 1900 <= datetime.strptime(str(number), "%Y%m%d%H%M").year <= 2100
    except ValueError:
        return False


# --- Every instant ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(FIRST_NS, LAST_NS), min_size=1, max_size=5), st.sampled_from(sorted(UNITS)), st.booleans())
def test_every_instant_from_1973_to_2100_is_stored_as_it_is_whatever_its_unit(
    instants: list[int], unit: str, as_digits: bool
) -> None:
    numbers = [instant // UNITS[unit] for instant in instants]
    rows = [TICK | {"ts": str(number) if as_digits else number} for number in numbers]
    decoded = in_every_way(rows)
    expected = [number * UNITS[unit] for number in numbers if unit != "ms" or not is_date_and_minute(number)]
    assert [nanoseconds(row) for row in stored(decoded)] == expected
    assert all("does not show its unit" in reject.reason for reject in decoded.rejects)
    told = in_every_way(rows, time_unit=unit)
    assert [nanoseconds(row) for row in stored(told)] == [number * UNITS[unit] for number in numbers]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.integers(-(10**20), 10**20)
        | st.integers(0, 10**8)
        | st.integers(1, 20).map(lambda digits: 10**digits)
        | st.sampled_from(
            [edge // ns + step for edge in (FIRST_NS, LAST_NS) for ns in UNITS.values() for step in (-1, 0, 1)]
        ),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_any_number_is_the_one_instant_that_it_can_be_or_is_rejected(numbers: list[int], as_digits: bool) -> None:
    readings = []
    for number in numbers:
        found = [number * ns for ns in UNITS.values() if FIRST_NS <= number * ns <= LAST_NS]
        if 19_000_101 <= number <= 21_001_231:
            try:
                day = datetime.strptime(str(number), "%Y%m%d").replace(tzinfo=UTC)
            except ValueError:
                pass
            else:
                found.append(int(day.timestamp()) * 10**9)
        assert len(found) < 2, "no two readings overlap"
        readings += found if not is_date_and_minute(number) else []
    decoded = in_every_way([TICK | {"ts": str(number) if as_digits else number} for number in numbers])
    assert [nanoseconds(row) for row in stored(decoded)] == readings


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dates(date(1900, 1, 1), date(2100, 12, 31)), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_every_day_as_yyyymmdd_is_that_day(days: list[date], as_digits: bool, is_told: bool) -> None:
    sent: list[Any] = [f"{day:%Y%m%d}" if as_digits else int(f"{day:%Y%m%d}") for day in days]
    told = {"time_unit": "date"} if is_told else {}
    times = stored(in_every_way([TICK | {"ts": each} for each in sent], **told))
    assert [nanoseconds(row) // 86_400 // 10**9 for row in times] == [(day - date(1970, 1, 1)).days for day in days]
    assert all(nanoseconds(row) % (86_400 * 10**9) == 0 for row in times)
    options = stored(in_every_way([OPTION | {"expiry": each} for each in sent], name="options", **told))
    assert [row["expiry"] for row in options] == [(day - date(2000, 1, 1)).days for day in days]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-(2 * 10**18), 4 * 10**18), min_size=1, max_size=4),
    st.sampled_from(["ns", "us", "ms", "s"]),
    st.sampled_from([None, "UTC", "America/New_York"]),
)
def test_every_instant_of_a_timestamp_in_arrow_is_stored_as_it_is(
    instants: list[int], unit: str, zone: str | None
) -> None:
    ticks = [instant // UNITS[unit] for instant in instants]
    table = pa.table({name: [value] * len(ticks) for name, value in TICK.items() if name != "ts"})
    table = table.append_column("ts", pa.array(ticks, pa.int64()).cast(pa.timestamp(unit, tz=zone)))
    _, frame, _ = unpack(pack("ticks", b"{}", frame_of(table)))
    decoded = decode_frame(DATASETS["ticks"], frame, {}, 0)
    plausible = range(-2_208_988_800 * 10**9, 4_133_980_800 * 10**9)
    assert [nanoseconds(row) for row in stored(decoded)] == [
        tick * UNITS[unit] for tick in ticks if tick * UNITS[unit] in plausible
    ]
    one_by_one = decode_rows(DATASETS["ticks"], frame.objects(), {}, 0)
    assert (one_by_one.columns, one_by_one.rejects) == (decoded.columns, decoded.rejects)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-2_208_988_800 * 10**9, 4_102_444_800 * 10**9), min_size=1, max_size=4),
    st.integers(0, 11),
    st.sampled_from(["", "Z", "+00:00"]),
    st.sampled_from("T "),
)
def test_every_instant_as_iso_8601_is_stored_to_the_nanosecond_or_rejected(
    instants: list[int], digits: int, offset: str, mark: str
) -> None:
    texts, expected = [], []
    for instant in instants:
        seconds, nanos = divmod(instant, 10**9)
        whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        fraction = f"{nanos:09}00"[:digits]
        texts.append(f"{whole:%Y-%m-%d}{mark}{whole:%H:%M:%S}{'.' if digits else ''}{fraction}{offset}")
        expected.append(seconds * 10**9 + int(fraction[:9].ljust(9, "0")))
    decoded = in_every_way([TICK | {"ts": text} for text in texts])
    assert [nanoseconds(row) for row in stored(decoded)] == expected
    finer = in_every_way(
        [TICK | {"ts": text.replace("Z", "").replace("+00:00", "") + "1"} for text in texts if digits > 9]
    )
    assert stored(finer) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(FIRST_NS // 1_000, LAST_NS // 1_000), min_size=1, max_size=4),
    st.sampled_from(["s", "ms", "us"]),
)
def test_a_float_is_the_nearest_microsecond(instants: list[int], unit: str) -> None:
    rows = [TICK | {"ts": instant * 1_000 / UNITS[unit]} for instant in instants]
    numbers = [instant * 1_000 // UNITS[unit] for instant in instants]
    read = [
        instant
        for instant, number in zip(instants, numbers, strict=True)
        if unit != "ms" or not is_date_and_minute(number)
    ]
    assert [nanoseconds(row) for row in stored(in_every_way(rows))] == [instant * 1_000 for instant in read]


VALUES = (
    st.integers(FIRST_NS, LAST_NS)
    | st.integers(-(10**13), 10**13)
    | st.floats()
    | st.none()
    | st.booleans()
    | st.decimals(10**8, 10**10, places=9).map(str)
    | st.text("0123456789.-+eTZ: ", max_size=24)
    | st.sampled_from(
        ["", " ", "NaN", "nat", "null", "2024-01-02", "2024-01-02T14:30:00.123456789Z", 20_240_102, 0, -1]
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([None, "s", "ms", "us", "ns", "date"]), st.data())
def test_whatever_a_time_is_it_is_read_alike_with_others_and_alone(
    values: list[Any], unit: str | None, data: st.DataObject
) -> None:
    name, field = data.draw(st.sampled_from([("ticks", "ts"), ("ticks", "received_at"), ("options", "expiry")]))
    row = TICK if name == "ticks" else OPTION
    rows = [row | {field: value} for value in values]
    defaults = {"time_unit": unit} if unit else {}
    dataset = DATASETS[name]
    one_by_one = decode_rows(dataset, rows, defaults, 0)
    text = json.dumps(rows).encode()
    together = decode_rows(dataset, text, defaults, 0)
    assert repr((together.columns, together.rejects)) == repr((one_by_one.columns, one_by_one.rejects))
    try:
        frame = as_frame(rows)
    except (pa.ArrowException, OverflowError):
        return  # values of several types have no column
    table = decode_frame(dataset, frame, defaults, 0)
    alone = decode_rows(dataset, frame.objects(), defaults, 0)
    assert repr((table.columns, table.rejects)) == repr((alone.columns, alone.rejects))


# --- What makes a reading certain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "unit", "expected"),
    [
        (0, "s", 0),
        (-1, "ns", -1),
        (-1_500, "ms", -1_500_000_000),
        ("-1.5", "s", -1_500_000_000),
        (1_704_070_800, "ms", 1_704_070_800_000_000),
        ("1704070800.123456789", None, 1_704_070_800_123_456_789),
        ("1704070800123.4567", None, 1_704_070_800_123_456_700),
        ("1704070800123456.700", None, 1_704_070_800_123_456_700),
        ("1704070800.", None, 1_704_070_800_000_000_000),
        (1_704_070_800.0078125, None, 1_704_070_800_007_813_000),
        ("2024-01-01T01:00:00", "date", 1_704_070_800_000_000_000),
        ("20240101T010000.5", None, 1_704_070_800_500_000_000),
        ("2024-01-01 01:00:00,000000001", None, 1_704_070_800_000_000_001),
        ("2024-01-01T06:30:00.000000001+05:30", None, 1_704_070_800_000_000_001),
        ("2024-W01-1T01:00:00Z", None, 1_704_070_800_000_000_000),
    ],
)
def test_a_time_is_read_in_its_unit_exactly(ts: Any, unit: str | None, expected: int) -> None:
    (row,) = stored(in_every_way([TICK | {"ts": ts}], **({"time_unit": unit} if unit else {})))
    assert nanoseconds(row) == expected


@pytest.mark.parametrize(
    ("ts", "unit", "reason"),
    [
        (20_240_102_143_000, None, "ts: 20240102143000 does not show its unit"),
        (20_240_102, "ms", None),  # in the first hours of 1970, as its sender says
        (1_704_070_800, "ns", None),
        (1_704_070_800_000, "s", "ts: 1704070800000 is not a time from year 1 to 9999"),
        (1_704_070_800, "date", "ts: 1704070800 is not a calendar date as YYYYMMDD"),
        ("1704070800", "date", "ts: '1704070800' is not a calendar date as YYYYMMDD"),
        (20_240_230, "date", "ts: 20240230 is not a calendar date as YYYYMMDD"),
        (18_991_231, "date", "ts: 18991231 is before 1900"),
        (-2_208_988_801, "s", "ts: -2208988801 is before 1900; set MDS_ANY_YEAR=true if that is right"),
        (4_133_980_800, "s", "ts: 4133980800 is after 2100; set MDS_ANY_YEAR=true if that is right"),
        ("1704070800.1234567891", None, "ts: '1704070800.1234567891' is finer than a nanosecond"),
        ("0x5F5E100", None, "ts: '0x5F5E100' is not a time; send ISO 8601, or a number of s, ms, us or ns since 1970"),
        ("٢٠٢٤٠١٠٢", None, "ts: '٢٠٢٤٠١٠٢' is not a time"),
        ("+1704070800", None, "ts: '+1704070800' is not a time"),
    ],
)
def test_what_has_no_certain_reading_is_rejected_with_the_remedy(ts: Any, unit: str | None, reason: str | None) -> None:
    decoded = in_every_way([TICK | {"ts": ts}], **({"time_unit": unit} if unit else {}))
    assert [reject.reason[: len(reason or "")] for reject in decoded.rejects] == ([reason] if reason else [])


def test_defaults_may_say_the_unit_of_a_default() -> None:
    untimed = {name: value for name, value in TICK.items() if name != "ts"}
    assert nanoseconds(only(decode("ticks", as_text([untimed]), ts=5, time_unit="s"))) == 5 * 10**9


@pytest.mark.parametrize("unit", ["S", "seconds", "", 1, ["s"]])
def test_a_unit_that_there_is_not_is_wrong_for_the_whole_message(unit: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"^defaults: time_unit: .* is not one of s, ms, us, ns, date$"):
        decode("ticks", as_text([TICK]), time_unit=unit)


def test_messages_of_several_units_are_told_apart_when_they_are_merged() -> None:
    rows = as_text([TICK | {"ts": 10**9}])
    assert [nanoseconds(only(decode("ticks", rows, time_unit=unit))) for unit in UNITS] == [
        10**9 * ns for ns in UNITS.values()
    ]


@pytest.mark.parametrize(
    "ts", [datetime(2024, 1, 1, 1), datetime(2024, 1, 1, 1, tzinfo=UTC), Decimal("1704070800.000")]
)
def test_objects_that_celery_makes_of_its_json_are_times(ts: Any) -> None:
    assert nanoseconds(only(decode("ticks", [TICK | {"ts": ts}]))) == 1_704_070_800 * 10**9


@pytest.mark.usefixtures("any_year")
@pytest.mark.parametrize(
    ("ts", "unit"),
    [("0001-01-01T00:00:00Z", None), ("9999-12-31T23:59:59.999999999Z", None), (-(10**10), "s"), (17_760_704, "date")],
)
def test_a_setting_allows_years_before_1900_and_after_2100(ts: Any, unit: str | None) -> None:
    assert in_every_way([TICK | {"ts": ts}], **({"time_unit": unit} if unit else {})).rejects == []
    expiry = str(ts)[:10] if unit is None else "9999-12-31"
    assert in_every_way([OPTION | {"expiry": expiry}], name="options").rejects == []
    assert "does not show its unit" in in_every_way([TICK | {"ts": 0}]).rejects[0].reason


# --- Nanoseconds -----------------------------------------------------------------------------------------------------

FINE = "2024-01-02T14:30:00.123456789Z"


def test_nanoseconds_of_other_times_than_that_of_a_tick_are_kept_in_metadata() -> None:
    (bar, even) = stored(in_every_way([BAR | {"ts": FINE, "note": "x"}, BAR | {"note": "y"}], name="bars"))
    assert json.loads(bar["metadata"]) == {"note": "x", "ts_nanos": 789}
    assert json.loads(even["metadata"]) == {"note": "y"}
    (tick,) = stored(in_every_way([TICK | {"ts_recv": 1_704_070_800_000_000_001, "ts": FINE}]))
    assert (tick["nanos"], json.loads(tick["metadata"])) == (789, {"received_at_nanos": 1})


def test_what_an_export_has_of_a_time_is_that_time_again() -> None:
    cut = FINE.replace("789Z", "Z")
    tick = TICK | {"seq": 7}
    (fine, again) = stored(in_every_way([tick | {"ts": FINE, "nanos": None}, tick | {"ts": cut, "nanos": 789}]))
    assert fine == again
    meta = {"metadata": {"ts_nanos": 789}}
    (fine, again) = stored(in_every_way([BAR | {"ts": FINE, "metadata": None}, BAR | {"ts": cut} | meta], name="bars"))
    assert fine == again


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TICK | {"ts": FINE, "nanos": 788}, "nanos: 788 differs from the nanoseconds of ts, 789"),
        (BAR | {"ts": FINE, "ts_nanos": 788}, "ts_nanos: 788 differs from the nanoseconds of ts, 789"),
        (BAR | {"ts": FINE, "metadata": {"ts_nanos": "x"}}, "ts_nanos: 'x' differs from the nanoseconds of ts, 789"),
    ],
)
def test_nanoseconds_that_contradict_the_time_reject_the_row(row: Row, reason: str) -> None:
    name = "bars" if "open" in row else "ticks"
    assert [reject.reason for reject in in_every_way([row, row], name=name).rejects] == [reason] * 2
    assert in_every_way([row | {"ts": FINE.replace("789Z", "788Z")}], name=name).rejects == [] or "'x'" in reason


def test_a_time_in_defaults_keeps_its_nanoseconds_for_the_rows_that_take_it() -> None:
    untimed = {name: value for name, value in TICK.items() if name != "ts"}
    rows = [untimed, TICK | {"ts": "2024-01-02T14:30:00.000000001"}, TICK]
    assert [row["nanos"] for row in stored(decode("ticks", as_text([untimed, untimed]), ts=FINE))] == [789, 789]
    for sent in (as_text(rows), rows):
        assert [row["nanos"] for row in stored(decode("ticks", sent, ts=FINE))] == [789, 1, None]


def test_a_table_has_the_hashes_that_it_had_when_its_nanoseconds_were_cut() -> None:
    """Version 0.4 cut the times of a table to microseconds, and hashed those that it did not know."""
    received = pa.array([1_704_070_800_000_000_001, 1_704_070_800_000_000_000, 1_704_070_800_000_001_001])
    table = pa.table({name: [value] * 3 for name, value in TICK.items()})
    table = table.append_column("ts_recv", received.cast(pa.timestamp("ns", tz="UTC")))
    frame = frame_of(table.append_column("venue_time", received.cast(pa.timestamp("ns", tz="UTC"))))
    cut = ["2024-01-01T01:00:00+00:00", "2024-01-01T01:00:00+00:00", "2024-01-01T01:00:00.000001+00:00"]
    expected = [row["seq"] for row in stored(decode("ticks", [TICK | {"ts_recv": t, "venue_time": t} for t in cut]))]
    together = stored(decode_frame(DATASETS["ticks"], frame, {}, 0))
    assert [row["seq"] for row in together] == expected
    assert stored(decode_rows(DATASETS["ticks"], frame.objects(), {}, 0)) == together
    assert json.loads(together[2]["metadata"]) == {
        "received_at_nanos": 1,
        "venue_time": "2024-01-01T01:00:00.000001001+00:00",
    }


def test_nanoseconds_do_not_change_the_hash_of_a_tick() -> None:
    fine, cut = stored(in_every_way([TICK | {"ts": FINE}, TICK | {"ts": FINE.replace("789Z", "Z")}]))
    assert (fine["ts"], fine["seq"]) == (cut["ts"], cut["seq"])
