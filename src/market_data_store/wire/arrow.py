"""Apache Arrow tables as messages, for producers that hold frames: columns stay columns.

The body of such a message is an Arrow IPC stream. The schema's metadata holds `dataset` and, optionally, `defaults` (a
JSON object). Column names, defaults and rules are those of JSON rows (`rows`). A table without wrong values is decoded
a column at a time. A table with a wrong value is decoded row by row, by `rows`, so that both forms give the same
rejects with the same reasons.

pyarrow (the extra `arrow`) is imported with the first table.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.text import Unreadable, row_text

#: Types whose values point into shared buffers, and the types that they are sent as.
_PLAIN = {"string_view": "large_string", "binary_view": "large_binary"}
#: Raised for an Arrow value that Python cannot represent, such as a time after the year 9999.
NO_VALUE = (ValueError, OverflowError, TypeError, LookupError, NotImplementedError, ImportError)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A message's rows as an Arrow table."""

    table: Any

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)

    def objects(self) -> list[dict[str, Any]]:
        """Return the rows as JSON objects: times, dates and decimals are texts."""
        rows: list[dict[str, Any]] = [{} for _ in range(len(self))]  # a table may have rows and no columns
        for name in self.table.column_names:
            for row, value in zip(rows, python_values(self.table.column(name)), strict=True):
                row[name] = as_json(value)
        return rows

    def part(self, start: int, rows: int) -> Frame:
        """Return at most `rows` rows, from index `start` on."""
        return Frame(self.table.slice(start, rows))

    def row_text(self, position: int) -> str:
        """Return one row as JSON text."""
        return row_text(self.part(position, 1).objects()[0])


def frame_of(table: Any) -> Frame:
    """Convert a producer's table (pyarrow, polars, pandas, DuckDB, ...); raises `InvalidMessage`."""
    arrow = pyarrow_module()
    try:
        found = arrow.table(table)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise InvalidMessage(f"table: {type(table).__name__} cannot be read as an Arrow table: {error}") from error
    # The columns that pandas adds for an index without a name.
    found = found.drop_columns([name for name in found.column_names if name.startswith("__index_level_")])
    for place, field in enumerate(found.schema):
        # A slice of such a column would be sent with the texts of all rows.
        plain = _PLAIN.get(str(field.type)) or (
            field.type.value_type if arrow.types.is_dictionary(field.type) else None
        )
        if plain is not None:
            found = found.set_column(place, field.name, found.column(place).cast(plain))
    return _readable(found)


def pack(dataset: str, defaults: bytes, frame: Frame) -> bytes:
    """Encode a frame as a message's body; `defaults` is the text of a JSON object."""
    arrow = pyarrow_module()
    sink = arrow.BufferOutputStream()
    table = frame.table.replace_schema_metadata({b"dataset": dataset.encode(), b"defaults": defaults})
    with arrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def unpack(body: bytes) -> tuple[str, Frame, Any]:
    """Return dataset, frame and defaults of a message's body; raises `InvalidMessage`."""
    arrow = pyarrow_module()
    try:
        if any(_is_compressed(message.metadata.to_pybytes()) for message in arrow.ipc.MessageReader.open_stream(body)):
            raise InvalidMessage(Reason.of("body: the stream is compressed; send it uncompressed"))
        batches, rows = [], 0
        stream = arrow.ipc.open_stream(body)
        for batch in stream:
            rows += batch.num_rows
            if rows > len(body):  # a column of nulls takes no bytes, however many rows it has
                numbers = f"{rows:,}", f"{len(body):,}"
                raise InvalidMessage(Reason.of("rows: {} rows in {} bytes; give each row its key columns", *numbers))
            batches.append(batch)
        table = arrow.Table.from_batches(batches, stream.schema)
        table.validate(full=True)  # anyone may have written it: offsets may point outside of the buffers
        frame = _readable(table)
    except InvalidMessage:
        raise
    except (arrow.ArrowException, OSError, ValueError, struct.error) as error:
        reason = Reason.of("body: not a readable Arrow IPC stream ({kind})", kind=type(error).__name__)
        raise InvalidMessage(reason) from error
    said = table.schema.metadata or {}
    try:
        return said[b"dataset"].decode(), frame, json.loads(said.get(b"defaults") or "null")
    except KeyError:
        reason = Reason.of("dataset: missing; set `dataset` in the schema's metadata")
        raise InvalidMessage(reason) from None
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(Reason.of("body: dataset or defaults cannot be read")) from error


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a message of a stream has compressed buffers: a small one could fill the memory.

    pyarrow has no function for it. `metadata` is a flatbuffer (Arrow's format/Message.fbs): Message(version,
    header_type, header). A header of type 2 is a DictionaryBatch(id, data, ...), one of type 3 a RecordBatch(length,
    nodes, buffers, compression, ...). Raises `struct.error` for bytes that are not such a flatbuffer.
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


def pyarrow_module() -> Any:
    """Return pyarrow with its compute functions, imported at the first call; raises `InvalidMessage` without it."""
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError:
        reason = Reason.of(
            "body: tables need pyarrow; install the extra `arrow` (pip install '.[arrow]' in a checkout) where tables "
            "are written and where workers run"
        )
        raise InvalidMessage(reason) from None
    return pyarrow


def _readable(table: Any) -> Frame:
    """Convert times to UTC, and nanoseconds to microseconds; raises `InvalidMessage` for a duplicate column name."""
    arrow = pyarrow_module()
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidMessage(Reason.of("{}: two columns have this name; rename one", twice[:80]))
    for place, field in enumerate(table.schema):
        if arrow.types.is_timestamp(field.type):
            # The number counts from 1970 in UTC, whatever the zone, so Python need not know the zone. A naive time is
            # UTC.
            ticks, unit = table.column(place).cast(arrow.int64()), field.type.unit
            if unit == "ns":
                ticks, unit = arrow.compute.divide(ticks, 1_000), "us"
            table = table.set_column(place, field.name, ticks.cast(arrow.timestamp(unit, tz="UTC")))
    return Frame(table)


def python_values(column: Any) -> list[Any]:
    """Return a column's values as Python objects; `Unreadable` for those that Python cannot represent."""
    try:
        values: list[Any] = column.to_pylist()
    except NO_VALUE:
        return [_python_value(scalar) for scalar in column]
    return values


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except NO_VALUE:
        return Unreadable(f"{getattr(scalar, 'value', 'a value')} ({scalar.type})".encode())


def as_json(value: Any) -> Any:
    """Return a value as JSON represents it: times, dates and decimals are texts."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return value
