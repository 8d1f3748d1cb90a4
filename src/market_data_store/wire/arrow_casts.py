"""Casts Arrow columns to stored values.

A wrong value becomes null. A cast returns None, or raises one of Arrow's errors, for a column that must be read value
by value. pyarrow is imported at the first call, as a producer of rows does not need it. Times and dates are in
`arrow_times`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    """Make the cast for texts of 1 to `limit` characters, not all of them spaces, and without NUL.

    `trimmed` removes whitespace around them; `numbered` accepts integers as their texts.
    """

    def cast(column: Any) -> Any:
        arrow = _pyarrow()
        compute = arrow.compute
        if arrow.types.is_large_string(column.type) or (numbered and arrow.types.is_integer(column.type)):
            column = column.cast(arrow.string())
        if not arrow.types.is_string(column.type):
            return None
        inner = compute.utf8_trim(column, characters=SPACES)
        if trimmed:
            column = inner
        filled = compute.and_(
            compute.greater(compute.binary_length(inner), 0), _between(compute.utf8_length(column), 1, limit)
        )
        clean = compute.invert(compute.match_substring(column, "\0"))
        return _where(compute.and_(clean, filled), column)

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


def exact_numbers(precision: int, scale: int) -> Cast:
    """Make the cast for exact numbers; raises Arrow's error for one that does not fit. Floats are left unread."""

    def cast(column: Any) -> Any:
        arrow = _pyarrow()
        types = arrow.types
        if types.is_integer(column.type) or types.is_large_string(column.type):
            column = column.cast(arrow.string())
        if not types.is_string(column.type) and not types.is_decimal(column.type):
            return None
        return column.cast(arrow.decimal128(precision, scale))

    return cast


def number_lists(column: Any) -> Any:
    """Return lists of finite numbers from -2**63 to 2**63."""
    arrow = _pyarrow()
    types = arrow.types
    if not (types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)):
        return None
    if not types.is_floating(column.type.value_type) and not types.is_integer(column.type.value_type):
        return None
    lists = column.cast(arrow.list_(arrow.float64()), safe=False)
    fits = _between(lists.flatten(), -_LARGEST, _LARGEST)
    return lists if arrow.compute.all(fits, min_count=0).as_py() else None


def times(unit: str | None) -> Cast:
    """Make the cast for times, which returns a pair, see `arrow_times`."""

    def cast(column: Any) -> Any:
        from market_data_store.wire import arrow_times

        return arrow_times.times(column, unit)

    return cast


def dates(column: Any) -> Any:
    """Return plausible dates, see `arrow_times`."""
    from market_data_store.wire import arrow_times

    return arrow_times.dates(column)


def _between(column: Any, first: float, last: float) -> Any:
    compute = _pyarrow().compute
    return compute.and_(compute.greater_equal(column, first), compute.less_equal(column, last))  # false for NaN


def _where(right: Any, column: Any) -> Any:
    """Return the column with null where `right` is false."""
    arrow = _pyarrow()
    if arrow.compute.all(right, min_count=0).as_py():
        return column
    return arrow.compute.if_else(right, column, arrow.scalar(None, column.type))
