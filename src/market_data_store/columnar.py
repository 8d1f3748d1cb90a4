"""Tables of Apache Arrow as messages, for producers that hold frames: columns go from one to the other as columns.

The body of such a message is an Arrow IPC stream, whose schema's metadata holds `dataset` and, perhaps, `defaults` (a
JSON object). Column names, defaults and rules are those of JSON rows (`rows`). A table in which all is well is taken a
column at a time; one with a value that is not is taken row by row, by `rows`, so that it has the same rejects with the
same reasons.

Arrow itself (pyarrow, the extra `arrow`) is imported with the first table.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
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

#: Postgres counts from 2000, Arrow from 1970.
_EPOCH_US = 946_684_800_000_000
_EPOCH_DAYS = 10_957
#: Years 1 and 9999, in microseconds and days since 1970.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_LARGEST = 2.0**63
#: Types of texts that point elsewhere, and what they are sent as.
_PLAIN = {"string_view": "large_string", "binary_view": "large_binary"}
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
        """The rows one by one, as JSON has them: times, dates and decimals are texts."""
        rows: list[dict[str, Any]] = [{} for _ in range(len(self))]  # there are tables without columns
        for name in self.table.column_names:
            for row, value in zip(rows, _python(self.table.column(name)), strict=True):
                row[name] = _as_json(value)
        return rows

    def part(self, start: int, rows: int) -> Frame:
        """So many of its rows, or fewer at its end."""
        return Frame(self.table.slice(start, rows))

    def row_text(self, position: int) -> str:
        """A row as JSON text."""
        return row_text(self.part(position, 1).objects()[0])


def frame_of(table: Any) -> Frame:
    """What a producer holds (of pyarrow, polars, pandas, DuckDB, ...) as a frame; raises `InvalidMessage`."""
    arrow = _pyarrow()
    try:
        found = arrow.table(table)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise InvalidMessage(f"table: {type(table).__name__} is no table of Arrow's: {error}") from error
    # pandas' nameless index.
    found = found.drop_columns([name for name in found.column_names if name.startswith("__index_level_")])
    for place, field in enumerate(found.schema):
        # A part of such a column would be sent with the texts of all others.
        plain = _PLAIN.get(str(field.type)) or (
            field.type.value_type if arrow.types.is_dictionary(field.type) else None
        )
        if plain is not None:
            found = found.set_column(place, field.name, found.column(place).cast(plain))
    return _readable(found)


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
        if any(_is_compressed(message.metadata.to_pybytes()) for message in arrow.ipc.MessageReader.open_stream(body)):
            raise InvalidMessage("body: the stream is compressed; send it uncompressed")
        batches, rows = [], 0
        stream = arrow.ipc.open_stream(body)
        for batch in stream:
            rows += batch.num_rows
            if rows > len(body):  # a column of nulls takes no room
                raise InvalidMessage(f"rows: {rows:,} in {len(body):,} bytes; send rows that have a key each")
            batches.append(batch)
        table = arrow.Table.from_batches(batches, stream.schema)
        table.validate(full=True)  # it is anybody's: offsets may point anywhere
        frame = _readable(table)
    except InvalidMessage:
        raise
    except (arrow.ArrowException, OSError, ValueError, struct.error) as error:
        raise InvalidMessage(f"body: no Arrow IPC stream that can be read ({type(error).__name__})") from error
    said = table.schema.metadata or {}
    try:
        return said[b"dataset"].decode(), frame, json.loads(said.get(b"defaults") or "null")
    except KeyError:
        raise InvalidMessage("dataset: missing; put it into the schema's metadata, as `dataset`") from None
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("body: dataset or defaults cannot be read") from error


def _is_compressed(metadata: bytes) -> bool:
    """Whether a message of a stream has compressed buffers: a small one could fill the memory.

    pyarrow does not tell. `metadata` is a flatbuffer (Arrow's format/Message.fbs): Message(version, header_type,
    header), whose header of type 2 is DictionaryBatch(id, data, ...) and of type 3 RecordBatch(length, nodes, buffers,
    compression, ...). Raises `struct.error` where it is none.
    """

    def field(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        size = struct.unpack_from("<H", metadata, vtable)[0]
        offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        return table + offset if offset else 0

    def table_at(place: int) -> int:
        return place + int(struct.unpack_from("<I", metadata, place)[0])

    message = table_at(0)
    kind, header = field(message, 1), field(message, 2)
    if not kind or not header or metadata[kind] not in (2, 3):
        return False
    batch = table_at(header)
    if metadata[kind] == 2:
        data = field(batch, 1)
        if not data:
            return False
        batch = table_at(data)
    return bool(field(batch, 3))


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


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value


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
            own = None if column is None else [None if v is None else f.checked(_as_json(v)) for v in _python(column)]
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
    return finished(f, [None if value is None else f.checked(_as_json(value)) for value in _python(column)])


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
    return arrow.compute.subtract(_within(moments, _FIRST_US, _LAST_US), _EPOCH_US)


def _days(column: Any) -> Any:
    arrow = _pyarrow()
    return arrow.compute.subtract(_within(column.cast(arrow.int32()), _FIRST_DAY, _LAST_DAY), _EPOCH_DAYS)


def _within(column: Any, first: int, last: int) -> Any:
    bounds = _pyarrow().compute.min_max(column).as_py()
    if bounds["min"] is not None and (bounds["min"] < first or bounds["max"] > last):
        raise ValueError("out of range")
    return column


def _by_distinct_value(f: Field, column: Any) -> list[Any]:
    """Texts mostly repeat: each is looked at once."""
    whole = column.combine_chunks()
    encoded = whole if _pyarrow().types.is_dictionary(whole.type) else whole.dictionary_encode()
    distinct = _python(encoded.dictionary)
    stored = [*finished(f, [None if value is None else f.checked(value) for value in distinct]), None]
    return [stored[index] for index in encoded.indices.fill_null(-1).to_pylist()]
