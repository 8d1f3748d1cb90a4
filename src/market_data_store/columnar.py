"""Tables of Apache Arrow as messages, for producers that hold frames: columns go from one to the other as columns.

The body of such a message is an Arrow IPC stream, whose schema's metadata holds `dataset` and, perhaps, `defaults` (a
JSON object). Column names, defaults and rules are those of JSON rows (`rows`). A table in which all is well is taken a
column at a time; one with a value that is not is taken row by row, by `rows`, so that it has the same rejects with the
same reasons.

Arrow itself (pyarrow, the extra `arrow`) is imported with the first table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, DateTime
from sqlalchemy.dialects.postgresql import DATE, DOUBLE_PRECISION

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.fields import Field, fields_of
from market_data_store.rows import (
    Decoded,
    Unreadable,
    completed,
    decode_rows,
    finished,
    row_text,
    stored_defaults,
    with_unknown,
)

#: The content type of such a message.
ARROW = "application/vnd.apache.arrow.stream"
#: With which an IPC stream begins, and no JSON does.
_MAGIC = b"\xff\xff\xff\xff"

#: Postgres counts from 2000, Arrow from 1970.
_EPOCH_US = 946_684_800_000_000
_EPOCH_DAYS = 10_957
#: Years 1 and 9999, in microseconds since 1970.
_FIRST_US = -62_135_596_800_000_000
_LAST_US = 253_402_300_799_999_999
_LARGEST = 2.0**63
#: Raised where Python has no value for one of Arrow's: a time beyond the year 9999, say.
_NO_VALUE = (ValueError, OverflowError, TypeError, LookupError, NotImplementedError, ImportError)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A message's rows as an Arrow table."""

    table: Any

    def __len__(self) -> int:
        """Rows."""
        return int(self.table.num_rows)

    def objects(self) -> list[dict[str, Any]]:
        """The rows one by one."""
        rows: list[dict[str, Any]] = [{} for _ in range(len(self))]  # there are tables without columns
        for name in self.table.column_names:
            for row, value in zip(rows, _python(self.table.column(name)), strict=True):
                row[name] = value
        return rows

    def part(self, start: int, rows: int) -> Frame:
        """So many of its rows, or fewer at its end."""
        return Frame(self.table.slice(start, rows))

    def row_text(self, position: int) -> str:
        """A row as JSON text."""
        return row_text(self.part(position, 1).objects()[0])


def is_arrow(body: bytes) -> bool:
    """Whether a message's body is such a stream, by its first bytes."""
    return body.startswith(_MAGIC)


def frame_of(table: Any) -> Frame:
    """What a producer holds (of pyarrow, polars, pandas, DuckDB, ...) as a frame; raises `InvalidMessage`."""
    arrow = _pyarrow()
    try:
        found = arrow.table(table)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise InvalidMessage(f"table: {type(table).__name__} is no table of Arrow's: {error}") from error
    # pandas' nameless index.
    return _readable(found.drop_columns([name for name in found.column_names if name.startswith("__index_level_")]))


def pack(dataset: str, defaults: bytes, frame: Frame) -> bytes:
    """The frame as a message's body; `defaults` is a JSON object."""
    arrow = _pyarrow()
    sink = arrow.BufferOutputStream()
    table = frame.table.replace_schema_metadata({b"dataset": dataset.encode(), b"defaults": defaults})
    with arrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def unpack(body: bytes) -> tuple[str, Frame, Any]:
    """Dataset, frame and defaults of a message's body; raises `InvalidMessage`."""
    arrow = _pyarrow()
    try:
        table = arrow.ipc.open_stream(body).read_all()
        table.validate(full=True)  # it is anybody's: offsets may point anywhere
        frame = _readable(table)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InvalidMessage(f"body: no Arrow IPC stream that can be read ({type(error).__name__})") from error
    said = table.schema.metadata or {}
    try:
        return said[b"dataset"].decode(), frame, json.loads(said.get(b"defaults") or "null")
    except KeyError:
        raise InvalidMessage("dataset: missing; put it into the schema's metadata, as `dataset`") from None
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("body: dataset or defaults cannot be read") from error


def decode_frame(dataset: Dataset, frame: Frame, defaults: Mapping[str, Any], enqueued_at: int) -> Decoded:
    """As `rows.decode_rows`, for a table."""
    standard = stored_defaults(dataset, defaults)
    try:
        return Decoded(dataset, _columns(dataset, frame.table, standard, enqueued_at), range(len(frame)))
    except (_pyarrow().ArrowException, *_NO_VALUE, RecursionError):
        return decode_rows(dataset, frame.objects(), defaults, enqueued_at)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError:
        raise InvalidMessage(
            "body: tables need Arrow; pip install 'market-data-store[arrow]' where it is written and where workers run"
        ) from None
    return pyarrow


def _readable(table: Any) -> Frame:
    """With times of UTC, and in microseconds where they had nanoseconds; raises `InvalidMessage`."""
    arrow = _pyarrow()
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidMessage(f"{twice[:80]}: two columns have this name; rename one")
    for place, field in enumerate(table.schema):
        if arrow.types.is_timestamp(field.type):
            # The number is of UTC, whatever the zone is, which Python need not know; a naive time is UTC.
            ticks, unit = table.column(place).cast(arrow.int64()), field.type.unit
            if unit == "ns":
                ticks, unit = arrow.compute.divide(ticks, 1_000), "us"
            table = table.set_column(place, field.name, ticks.cast(arrow.timestamp(unit, tz="UTC")))
    return Frame(table)


def _python(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except _NO_VALUE:
        return [_python_value(scalar) for scalar in column]
    return values


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except _NO_VALUE:
        return Unreadable(f"{getattr(scalar, 'value', 'a value')} ({scalar.type})".encode())


def _columns(dataset: Dataset, table: Any, standard: Mapping[str, Any], enqueued_at: int) -> list[list[Any]]:
    """Stored values by column; raises ValueError, TypeError or Arrow's own where a row needs a closer look."""
    fields = fields_of(dataset)
    names = set(table.column_names)
    known = {name for f in fields for name in f.names}
    unknown: list[dict[str, Any]] = []
    if fields.keeps_unknown and (others := [name for name in table.column_names if name not in known]):
        unknown = Frame(table.select(others)).objects()
    stored: list[list[Any] | None] = []
    for f in fields:
        present = [name for name in f.names if name in names]
        if len(present) > 1:
            raise ValueError(f"{f.name} has several names")  # which one counts may differ from row to row
        column = table.column(present[0]) if present else None
        if f.required and f.name not in standard and (column is None or column.null_count):
            raise ValueError(f"{f.name} is missing")
        if f.name == "metadata":
            own = None if column is None else [None if v is None else f.checked(v) for v in _python(column)]
            whole = with_unknown(own, unknown, table.num_rows)
            stored.append(None if whole is None else finished(f, whole))
        else:
            stored.append(None if column is None else _stored(dataset.table.columns[f.name].type, f, column))
    return completed(dataset, stored, unknown, standard, enqueued_at, table.num_rows)


def _stored(kind: Any, f: Field, column: Any) -> list[Any]:
    """A column's values as they are stored; None where there is none."""
    types = _pyarrow().types
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
    return finished(f, [None if value is None else f.checked(value) for value in _python(column)])


def _doubles(column: Any) -> Any:
    arrow = _pyarrow()
    doubles = column.cast(arrow.float64())
    compute = arrow.compute
    if not compute.all(compute.less_equal(compute.abs(doubles), _LARGEST), min_count=0).as_py():  # NaN fails too
        raise ValueError("not finite, or beyond 64 bits")
    return doubles


def _integers(column: Any) -> Any:
    return column.cast(_pyarrow().int64())


def _moments(column: Any) -> Any:
    arrow = _pyarrow()
    moments = column.cast(arrow.timestamp("us", tz="UTC")).cast(arrow.int64())
    bounds = arrow.compute.min_max(moments).as_py()
    if bounds["min"] is not None and (bounds["min"] < _FIRST_US or bounds["max"] > _LAST_US):
        raise ValueError("out of range")
    return arrow.compute.subtract(moments, _EPOCH_US)


def _days(column: Any) -> Any:
    arrow = _pyarrow()
    return arrow.compute.subtract(column.cast(arrow.int32()), _EPOCH_DAYS)


def _by_distinct_value(f: Field, column: Any) -> list[Any]:
    """Texts mostly repeat: each is looked at once."""
    whole = column.combine_chunks()
    encoded = whole if _pyarrow().types.is_dictionary(whole.type) else whole.dictionary_encode()
    distinct = _python(encoded.dictionary)
    stored = [*finished(f, [None if value is None else f.checked(value) for value in distinct]), None]
    return [stored[index] for index in encoded.indices.fill_null(-1).to_pylist()]
