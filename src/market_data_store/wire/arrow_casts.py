"""Converts Arrow columns to stored values; returns None for a type that must be read value by value."""

from __future__ import annotations

from typing import Any

from market_data_store.wire.arrow import pyarrow_module
from market_data_store.wire.moments import UNIX_TO_EPOCH_DAYS, UNIX_TO_EPOCH_US

#: Years 1 and 9999, in microseconds and days since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_LARGEST = 2.0**63


def doubles(column: Any) -> list[Any] | None:
    """Return floats; raises ValueError if one is not finite or beyond 64 bits."""
    arrow = pyarrow_module()
    if not (arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type)):
        return None
    numbers = column.cast(arrow.float64())
    compute = arrow.compute
    if not compute.all(compute.less_equal(compute.abs(numbers), _LARGEST), min_count=0).as_py():  # NaN fails too
        raise ValueError("not finite, or beyond 64 bits")
    return _values(numbers)


def integers(column: Any) -> list[Any] | None:
    """Return integers of 64 bits; raises Arrow's error for a larger one."""
    arrow = pyarrow_module()
    return _values(column.cast(arrow.int64())) if arrow.types.is_integer(column.type) else None


def timestamps(column: Any) -> list[Any] | None:
    """Return microseconds since 2000; raises ValueError for a time outside the years 1 to 9999."""
    arrow = pyarrow_module()
    if not arrow.types.is_timestamp(column.type):
        return None
    moments = column.cast(arrow.timestamp("us", tz="UTC")).cast(arrow.int64())
    return _values(arrow.compute.subtract(_within(moments, _FIRST_US, _LAST_US), UNIX_TO_EPOCH_US))


def dates(column: Any) -> list[Any] | None:
    """Return days since 2000; raises ValueError for a date outside the years 1 to 9999."""
    arrow = pyarrow_module()
    if not arrow.types.is_date32(column.type):
        return None
    days = _within(column.cast(arrow.int32()), _FIRST_DAY, _LAST_DAY)
    return _values(arrow.compute.subtract(days, UNIX_TO_EPOCH_DAYS))


def _values(column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _within(column: Any, first: int, last: int) -> Any:
    bounds = pyarrow_module().compute.min_max(column).as_py()
    if bounds["min"] is not None and (bounds["min"] < first or bounds["max"] > last):
        raise ValueError("out of range")
    return column
