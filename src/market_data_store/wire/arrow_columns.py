"""An Arrow table decoded column by column."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BigInteger, DateTime
from sqlalchemy.dialects.postgresql import DATE, DOUBLE_PRECISION

from market_data_store.datasets import Dataset
from market_data_store.wire.arrow import NO_VALUE, Frame, as_json, pyarrow_module, python_values
from market_data_store.wire.columns import Decoded, completed, finished, stored_defaults, with_unknown
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.moments import UNIX_TO_EPOCH_DAYS, UNIX_TO_EPOCH_US
from market_data_store.wire.rows import decode_rows

#: Years 1 and 9999, in microseconds and days since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_LARGEST = 2.0**63


def decode_frame(dataset: Dataset, frame: Frame, defaults: Mapping[str, Any], enqueued_at: int) -> Decoded:
    """As `rows.decode_rows`, for a table."""
    standard = stored_defaults(dataset, defaults)
    try:
        return Decoded(dataset, _columns(dataset, frame.table, standard, enqueued_at), range(len(frame)))
    except (pyarrow_module().ArrowException, *NO_VALUE, RecursionError):
        return decode_rows(dataset, frame.objects(), defaults, enqueued_at)


def _columns(dataset: Dataset, table: Any, standard: Mapping[str, Any], enqueued_at: int) -> list[list[Any]]:
    """Stored values by column; raises ValueError, TypeError or Arrow's own where a row needs a closer look."""
    fields = fields_of(dataset)
    names = set(table.column_names)
    known = {name for f in fields for name in f.names}
    unknown: list[dict[str, Any]] = []
    if fields.keeps_unknown and (others := [name for name in table.column_names if name not in known]):
        unknown = Frame(table.select(others)).objects()
        if "metadata" in known:
            json.dumps(unknown, allow_nan=False)
    stored: list[list[Any] | None] = []
    for f in fields:
        present = [name for name in f.names if name in names]
        if len(present) > 1:
            raise ValueError(f"{f.name} has several names")  # which one counts may differ from row to row
        column = table.column(present[0]) if present else None
        if f.name == "metadata":
            own = (
                None
                if column is None
                else [None if v is None else f.checked(as_json(v)) for v in python_values(column)]
            )
            whole = with_unknown(own, unknown, table.num_rows)
            values = None if whole is None else finished(f, whole)
        else:
            values = None if column is None else _stored(dataset.table.columns[f.name].type, f, column)
        if f.required and f.name not in standard and (values is None or None in values):
            raise ValueError(f"{f.name} is missing")
        stored.append(values)
    return completed(dataset, stored, unknown, standard, enqueued_at, table.num_rows)


def _stored(kind: Any, f: Field, column: Any) -> list[Any]:
    """A column's values as they are stored; None where there is none."""
    types = pyarrow_module().types
    is_number = types.is_integer(column.type) or types.is_floating(column.type)
    take: Callable[[Any], Any] | None = None
    if isinstance(kind, DOUBLE_PRECISION) and is_number:
        take = _doubles
    elif isinstance(kind, BigInteger) and types.is_integer(column.type):
        take = _integers
    elif isinstance(kind, DateTime) and types.is_timestamp(column.type):
        take = _moments
    elif isinstance(kind, DATE) and types.is_date32(column.type):
        take = _days
    if take is not None:
        values: list[Any] = take(column).to_pylist()
        return values
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_dictionary(column.type):
        return _by_distinct_value(f, column)
    return finished(f, [None if value is None else f.checked(as_json(value)) for value in python_values(column)])


def _doubles(column: Any) -> Any:
    arrow = pyarrow_module()
    doubles = column.cast(arrow.float64())
    compute = arrow.compute
    if not compute.all(compute.less_equal(compute.abs(doubles), _LARGEST), min_count=0).as_py():  # NaN fails too
        raise ValueError("not finite, or beyond 64 bits")
    return doubles


def _integers(column: Any) -> Any:
    return column.cast(pyarrow_module().int64())


def _moments(column: Any) -> Any:
    arrow = pyarrow_module()
    moments = column.cast(arrow.timestamp("us", tz="UTC")).cast(arrow.int64())
    return arrow.compute.subtract(_within(moments, _FIRST_US, _LAST_US), UNIX_TO_EPOCH_US)


def _days(column: Any) -> Any:
    arrow = pyarrow_module()
    return arrow.compute.subtract(_within(column.cast(arrow.int32()), _FIRST_DAY, _LAST_DAY), UNIX_TO_EPOCH_DAYS)


def _within(column: Any, first: int, last: int) -> Any:
    bounds = pyarrow_module().compute.min_max(column).as_py()
    if bounds["min"] is not None and (bounds["min"] < first or bounds["max"] > last):
        raise ValueError("out of range")
    return column


def _by_distinct_value(f: Field, column: Any) -> list[Any]:
    """Texts mostly repeat: each is looked at once."""
    whole = column.combine_chunks()
    encoded = whole if pyarrow_module().types.is_dictionary(whole.type) else whole.dictionary_encode()
    distinct = python_values(encoded.dictionary)
    stored = [*finished(f, [None if value is None else f.checked(value) for value in distinct]), None]
    return [stored[index] for index in encoded.indices.fill_null(-1).to_pylist()]
