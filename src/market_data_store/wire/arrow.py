"""Apache Arrow tables as messages, for producers that hold frames: columns stay columns.

The body of such a message is an Arrow IPC stream. The schema's metadata holds `dataset` and, optionally, `defaults` (a
JSON object). Column names, defaults and rules are those of JSON rows (`rows`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.arrow_sizes import require_small
from market_data_store.wire.documents import document, with_documents
from market_data_store.wire.fields import fields_of, names_of
from market_data_store.wire.moments import UNIX_EPOCH
from market_data_store.wire.reader import stored_defaults
from market_data_store.wire.rows import SentRows
from market_data_store.wire.sizes import require_few
from market_data_store.wire.text import TableRow, Unreadable
from market_data_store.wire.unknown import Joined, hashed_of, kept_of

#: Types whose values point into shared buffers, and the types that they are converted to.
_PLAIN = {"string_view": "large_string", "binary_view": "large_binary"}
#: The most bytes that a column of categories may take as plain texts: a small dictionary can stand for any number.
_MAX_EXPANDED_BYTES = 64 * 1024 * 1024
#: The length of a time with microseconds, as `2024-01-02T14:30:00.000001+00:00`.
_CUT_LENGTH = 32
#: Raised for an Arrow value that Python cannot represent, such as a time after the year 9999.
NO_VALUE = (ValueError, OverflowError, TypeError, LookupError, NotImplementedError, ImportError)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A message's rows as an Arrow table."""

    table: pa.Table

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)

    def objects(self) -> list[TableRow]:
        """Return the rows as JSON objects: times, dates and decimals are texts."""
        rows = [TableRow() for _ in range(len(self))]  # a table may have rows and no columns
        for name in self.table.column_names:
            column = self.table.column(name)
            values = json_values(column)
            for row, value in zip(rows, values, strict=True):
                row[name] = value
            for row, value in zip(rows, values, strict=True) if _has_nanoseconds(column.type) else ():
                if value is not None and len(value) > _CUT_LENGTH:
                    row.cut = {**row.cut, name: value[:26].removesuffix(".000000") + value[29:]}
        return rows

    def part(self, start: int, rows: int) -> Frame:
        """Return at most `rows` rows, from index `start` on."""
        return Frame(self.table.slice(start, rows))


def frame_of(table: Any) -> Frame:
    """Convert a producer's table (pyarrow, polars, pandas, DuckDB, ...); raises `InvalidMessage`."""
    try:
        found = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidMessage(f"table: {type(table).__name__} cannot be read as an Arrow table: {error}") from error
    # The columns that pandas adds for an index without a name.
    found = found.drop_columns([name for name in found.column_names if name.startswith("__index_level_")])
    return _readable(found)


#: The last bytes of a stream whose writer was closed.
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def pack(dataset: str, defaults: bytes, frame: Frame) -> bytes:
    """Encode a frame as a message's body; `defaults` is the text of a JSON object."""
    sink = pa.BufferOutputStream()
    table = frame.table.replace_schema_metadata({b"dataset": dataset.encode(), b"defaults": defaults})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def unpack(body: bytes) -> tuple[str, Frame, Any]:
    """Return dataset, frame and defaults of a message's body; raises `InvalidMessage`."""
    try:
        if any(_is_compressed(message.metadata.to_pybytes()) for message in pa.ipc.MessageReader.open_stream(body)):
            raise InvalidMessage(Reason.of("body: the stream is compressed; send it uncompressed"))
        batches, rows = [], 0
        stream = pa.ipc.open_stream(body)
        for batch in stream:
            rows += batch.num_rows
            if rows > len(body):  # a column of nulls takes no bytes, however many rows it has
                numbers = f"{rows:,}", f"{len(body):,}"
                raise InvalidMessage(Reason.of("rows: {} rows in {} bytes; give each row its key columns", *numbers))
            batches.append(batch)
        if not body.endswith(_END):  # between two batches a stream may be cut off and still be read
            raise InvalidMessage(Reason.of("body: the Arrow IPC stream has no end; close its writer before sending"))
        table = pa.Table.from_batches(batches, stream.schema)
        table.validate(full=True)  # anyone may have written it: offsets may point outside of the buffers
        require_few(len(table), len(body))
        require_small(table, len(body))
        frame = _readable(table)
    except InvalidMessage:
        raise
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
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


def read_table(dataset: Dataset, frame: Frame, defaults: Mapping[str, Any]) -> SentRows:
    """Read a frame's rows, as `rows.read_rows` does; raises `InvalidMessage` when `defaults` is wrong."""
    table = frame.table

    def at(positions: Sequence[int]) -> list[Any]:
        return with_documents(dataset, Frame(table.take(pa.array(positions, pa.int64()))).objects())

    return SentRows(stored_defaults(dataset, defaults), TableForm(dataset, table.schema), table, at)


@dataclass(frozen=True, slots=True)
class TableForm:
    """The form of tables that can be joined: of one dataset, with the same columns."""

    dataset: Dataset
    schema: pa.Schema

    def joined(self, contents: Sequence[pa.Table]) -> Joined:
        """Join tables; raises ValueError if rows must be read one by one."""
        table = pa.concat_tables(contents)
        columns: dict[str, Any] = {}
        kept: list[dict[str, Any]] = []
        names = names_of(self.dataset)
        others = set(table.column_names) - names.ignored
        for f in fields_of(self.dataset):
            present = [name for name in f.names if name in table.column_names]
            if not names.shared.issuperset(present[1:]):
                raise ValueError(f"{f.name} has several names")  # which of them has the value may differ by row
            if not present:
                continue
            others.difference_update(present)
            column = table.column(present[0]).combine_chunks()
            for name in present[1:] if column.null_count else ():
                other = table.column(name).combine_chunks()
                if other.type != column.type:
                    raise ValueError(f"{f.name} has values of two types")
                column = pc.coalesce(column, other)
            if f.rule.keeps_unknown:
                column = [None if value is None else f.checked(document(value)) for value in json_values(column)]
            columns[f.name] = column
            if f.kind.loses is not None and present[0] not in names.shared:
                texts = json_values(table.column(present[0]))
                if any(isinstance(text, str) and f.kind.loses(text) for text in texts):
                    raise ValueError(f"{f.name} loses texts")
        if others and fields_of(self.dataset).keep_unknown:
            kept = [kept_of(row) for row in Frame(table.select(sorted(others))).objects()]

        def hashed() -> list[dict[str, Any]]:
            hashed = [name for name in table.column_names if names.hashed(name)]
            rows = with_documents(self.dataset, Frame(table.select(hashed)).objects()) if hashed else []
            return [hashed_of({**row, **row.cut}) for row in rows]

        return Joined(columns, kept, hashed)


def _readable(table: pa.Table) -> Frame:
    """Convert categories to plain texts, and times to UTC; raises `InvalidMessage`."""
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidMessage(Reason.of("{}: two columns have this name; rename one", twice[:80]))
    for place, field in enumerate(table.schema):
        column = sent = table.column(place)
        if pa.types.is_dictionary(column.type):
            column = _expanded(field.name, column)
        if str(column.type) in _PLAIN:  # a slice of such a column would be sent with the texts of all rows
            column = column.cast(_PLAIN[str(column.type)])
        if pa.types.is_timestamp(column.type):
            # The number counts from 1970 in UTC, whatever the zone, so Python need not know the zone. A naive time is
            # UTC.
            column = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit, tz="UTC"))
        if column is not sent:
            table = table.set_column(place, field.name, column)
    return Frame(table.replace_schema_metadata())


def _expanded(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Replace categories by their values."""
    plain = column.type.value_type
    if pa.types.is_string(plain) or pa.types.is_large_string(plain):
        sizes = (pc.sum(pc.binary_length(c.dictionary).take(c.indices)).as_py() or 0 for c in column.chunks)
        if sum(sizes) > _MAX_EXPANDED_BYTES:
            raise InvalidMessage(
                Reason.of("{}: too much text in its categories; send shorter ones, or fewer rows", name[:80])
            )
    return column.cast(plain)


def json_values(column: Any) -> list[Any]:
    """Return a column's values as JSON has them; `Unreadable` for those that Python cannot represent."""
    if _has_nanoseconds(column.type):
        return _nanosecond_texts(column)
    try:
        values = column.to_pylist()
    except NO_VALUE:
        values = map(_python_value, column)
    return [_as_json(value) for value in values]


def _has_nanoseconds(type_: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type_)) and type_.unit == "ns"


def _nanosecond_texts(column: Any) -> list[str | None]:
    """Return times as texts, which have nine digits where Python's datetime loses some."""
    return [None if ticks is None else _nanosecond_text(ticks) for ticks in column.cast(pa.int64()).to_pylist()]


def _nanosecond_text(ticks: int) -> str:
    microseconds, nanos = divmod(ticks, 1_000)
    moment = UNIX_EPOCH + timedelta(microseconds=microseconds)
    if not nanos:
        return moment.isoformat()
    text = moment.isoformat(timespec="microseconds")
    return f"{text[:26]}{nanos:03}{text[26:]}"


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except NO_VALUE:
        return Unreadable(f"{getattr(scalar, 'value', 'a value')} ({scalar.type})".encode())


def _as_json(value: Any) -> Any:
    """Return a value as JSON represents it: times, dates and decimals are texts."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value
