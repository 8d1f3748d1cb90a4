"""Reads whole Arrow columns of times and dates, as `moments` reads single values.

A wrong value becomes null. A function returns None, or raises one of Arrow's errors, for a column that must be read
value by value. This module imports pyarrow, so `arrow_casts` imports it at the first call.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.wire.moments import (
    DATE,
    DAY_US,
    FIRST_MINUTE,
    LAST_MINUTE,
    UNITS,
    WINDOWS,
    bounds_us,
    known_unit,
)

#: Times to the microsecond, and the nanoseconds beyond (null for 0), or None if no time has any.
Times = tuple[pa.Array, pa.Array | None]


def times(column: pa.Array, unit: str | None) -> Times | None:
    """Return times whose numbers are in this unit, or in that which their size shows."""
    found = _microseconds_of(column, known_unit(unit))
    return None if found is None else (_plausible(found[0], *bounds_us(unit)).cast(pa.timestamp("us")), found[1])


def dates(column: pa.Array) -> pa.Array | None:
    """Return dates; reads texts of the form YYYY-MM-DD, and takes the day of a time in UTC."""
    if pa.types.is_timestamp(column.type):
        days = _of_timestamps(column)[0].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    elif pa.types.is_date(column.type) or pa.types.is_string(column.type):
        days = column.cast(pa.date32())
    else:
        return None
    first, last = bounds_us()
    return _plausible(days.cast(pa.int32()), first // DAY_US, last // DAY_US).cast(pa.date32())


def _microseconds_of(column: pa.Array, unit: str | None) -> Times | None:
    types = pa.types
    if types.is_large_string(column.type):
        column = column.cast(pa.string())
    if types.is_string(column.type):
        return _of_texts(column, unit)
    if types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if types.is_date32(column.type) else "ms"))
    if types.is_timestamp(column.type):
        return _of_timestamps(column)
    if types.is_integer(column.type):
        return _of_integers(column.cast(pa.int64()), unit)
    return _of_floats(column.cast(pa.float64()), unit) if types.is_floating(column.type) else None


def _of_timestamps(column: pa.Array) -> Times:
    ticks, unit = column.cast(pa.int64()), column.type.unit
    return _split(ticks) if unit == "ns" else (pc.multiply_checked(ticks, UNITS[unit] // 1_000), None)


def _of_texts(column: pa.Array, unit: str | None) -> Times | None:
    """Read texts if all are ISO 8601 with an offset, or all without one, or all are digits."""
    for resolution, zone in (("us", "UTC"), ("us", None), ("ns", "UTC"), ("ns", None)):
        try:
            found = column.cast(pa.timestamp(resolution, tz=zone)).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        return _split(found) if resolution == "ns" else (found, None)
    if not pc.all(pc.utf8_is_digit(column), min_count=0).as_py():  # Arrow also reads 0x10
        return None
    return _of_integers(column.cast(pa.int64()), unit)


def _of_integers(column: pa.Array, unit: str | None) -> Times | None:
    if unit == DATE:
        return None
    if unit is not None:
        return _split(pc.multiply_checked(column, UNITS[unit]))
    if pc.any(_between(column, FIRST_MINUTE, LAST_MINUTE), min_count=0).as_py():
        return None
    found = pa.nulls(len(column), pa.int64())
    for name, (first, last) in WINDOWS.items():
        # A product outside of the window may overflow: it is not used.
        found = pc.if_else(_between(column, first, last), pc.multiply(column, UNITS[name]), found)
    return None if found.null_count > column.null_count else _split(found)


def _of_floats(column: pa.Array, unit: str | None) -> Times | None:
    """Read floats: those that are not whole to the nearest microsecond."""
    whole = pc.floor(column)
    if pc.all(pc.equal(whole, column), min_count=0).as_py():
        return _of_integers(whole.cast(pa.int64()), unit)
    if unit is None:
        (first, last) = WINDOWS["s"]
        unit = "s" if pc.all(_between(whole, first, last), min_count=0).as_py() else None
    if unit not in ("s", "ms"):
        return None
    ticks = UNITS[unit] // 1_000
    part = pc.floor(pc.add(pc.multiply(pc.subtract(column, whole), float(ticks)), 0.5))
    return pc.add(pc.multiply_checked(whole.cast(pa.int64()), ticks), part.cast(pa.int64())), None


def _split(nanoseconds: pa.Array) -> Times:
    ticks = pc.divide(nanoseconds, 1_000)  # rounds towards zero
    beyond = pc.subtract(nanoseconds, pc.multiply(ticks, 1_000))
    if not pc.any(pc.not_equal(beyond, 0), min_count=0).as_py():
        return ticks, None
    before = pc.less(beyond, 0).cast(pa.int64())
    ticks, beyond = pc.subtract(ticks, before), pc.add(beyond, pc.multiply(before, 1_000))
    return ticks, pc.if_else(pc.equal(beyond, 0), pa.scalar(None, pa.int64()), beyond).cast(pa.int32())


def _plausible(column: pa.Array, first: int, last: int) -> pa.Array:
    """Return the column with null for what is outside."""
    inside = _between(column, first, last)
    if pc.all(inside, min_count=0).as_py():
        return column
    return pc.if_else(inside, column, pa.scalar(None, column.type))


def _between(column: pa.Array, first: int, last: int) -> pa.Array:
    return pc.and_(pc.greater_equal(column, first), pc.less_equal(column, last))
