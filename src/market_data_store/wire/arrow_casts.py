"""Casts Arrow columns to stored values.

A wrong value becomes null. A cast returns None, or raises one of Arrow's errors, for a column that must be read value
by value. pyarrow is imported at the first call, as a producer of rows does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from market_data_store.wire.moments import FIRST_DAY, FIRST_US, LAST_DAY, LAST_US
from market_data_store.wire.text import SPACES

#: The largest number of 64 bits that a field takes.
_LARGEST = 2.0**63

#: Converts a column as it was sent to the stored one.
Cast = Callable[[Any], Any]


def _pyarrow() -> Any:
    import pyarrow
    import pyarrow.compute

    return pyarrow


def unread(_: Any) -> None:
    """Leave all columns of a kind to be read value by value."""


def texts(limit: int, *, trimmed: bool, numbered: bool) -> Cast:
    """Make the cast for texts of 1 to `limit` characters without NUL.

    `trimmed` removes whitespace around them; `numbered` accepts integers as their texts.
    """

    def cast(column: Any) -> Any:
        arrow = _pyarrow()
        compute = arrow.compute
        if arrow.types.is_large_string(column.type) or (numbered and arrow.types.is_integer(column.type)):
            column = column.cast(arrow.string())
        if not arrow.types.is_string(column.type):
            return None
        if trimmed:
            column = compute.utf8_trim(column, characters=SPACES)
        clean = compute.invert(compute.match_substring(column, "\0"))
        return _where(compute.and_(clean, _between(compute.utf8_length(column), 1, limit)), column)

    return cast


def booleans(column: Any) -> Any:
    """Return truth values as they are."""
    return column if _pyarrow().types.is_boolean(column.type) else None


def doubles(column: Any) -> Any:
    """Return floats from -2**63 to 2**63."""
    arrow = _pyarrow()
    if arrow.types.is_decimal(column.type):
        numbers = column.cast(arrow.string()).cast(arrow.float64())  # as the same number in JSON is read
    elif arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type):
        numbers = column.cast(arrow.float64(), safe=False)
    else:
        return None
    return _where(_between(numbers, -_LARGEST, _LARGEST), numbers)


def integers(column: Any) -> Any:
    """Return integers of 64 bits; raises Arrow's error for a larger one."""
    arrow = _pyarrow()
    return column.cast(arrow.int64()) if arrow.types.is_integer(column.type) else None


def small_integers(first: int, last: int) -> Cast:
    """Make the cast for integers between these two, of 32 bits."""

    def cast(column: Any) -> Any:
        numbers = integers(column)
        return None if numbers is None else _where(_between(numbers, first, last), numbers).cast("int32")

    return cast


def timestamps(column: Any) -> Any:
    """Return times of the years 1 to 9999; reads ISO 8601 texts if all of them have an offset, or none has."""
    arrow = _pyarrow()
    utc = arrow.timestamp("us", tz="UTC")
    if arrow.types.is_string(column.type):
        try:
            column = column.cast(utc)
        except arrow.ArrowInvalid:
            column = column.cast(arrow.timestamp("us"))
    elif not arrow.types.is_timestamp(column.type):
        return None
    ticks = column.cast(arrow.timestamp("us", tz=column.type.tz)).cast(arrow.int64())
    return _where(_between(ticks, FIRST_US, LAST_US), ticks).cast(arrow.timestamp("us"))


def dates(column: Any) -> Any:
    """Return dates of the years 1 to 9999; reads texts of the form YYYY-MM-DD."""
    arrow = _pyarrow()
    if not (arrow.types.is_date32(column.type) or arrow.types.is_string(column.type)):
        return None
    days = column.cast(arrow.date32()).cast(arrow.int32())
    return _where(_between(days, FIRST_DAY, LAST_DAY), days).cast(arrow.date32())


def _between(column: Any, first: float, last: float) -> Any:
    compute = _pyarrow().compute
    return compute.and_(compute.greater_equal(column, first), compute.less_equal(column, last))  # false for NaN


def _where(right: Any, column: Any) -> Any:
    """Return the column with null where `right` is false."""
    arrow = _pyarrow()
    if arrow.compute.all(right, min_count=0).as_py():
        return column
    return arrow.compute.if_else(right, column, arrow.scalar(None, column.type))
