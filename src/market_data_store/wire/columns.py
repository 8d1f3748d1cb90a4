"""Types and checks the rows of many messages at once, as Arrow columns of the types that are stored.

A call of Arrow costs microseconds, and a row in it some nanoseconds. So messages of one form are joined, and values are
read a column at a time. A row that does not pass is taken out and read by `reader`, which finds the reason, or a value
that only it can read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, compress
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.wire.alone import Alone, Positions
from market_data_store.wire.arrow import NO_VALUE, json_values
from market_data_store.wire.arrow_types import arrow_type
from market_data_store.wire.fields import NO_VALUES, Field, fields_of
from market_data_store.wire.hashes import content_hashes
from market_data_store.wire.moments import TIME_UNIT, UNIX_TO_EPOCH_US, nanos_of
from market_data_store.wire.reader import Reject
from market_data_store.wire.rows import SentRows
from market_data_store.wire.seen import Seen, Sightings
from market_data_store.wire.text import SPACES
from market_data_store.wire.unknown import Joined, unknown_flags, with_nanos, with_unknown

#: Columns beside the dataset's: for each row, the index of its message and its position there.
MESSAGE, POSITION = "#message", "#position"

#: How many rows are on their way as Python objects. Batches seldom have more.
_PIECE_ROWS = 50_000
#: Raised for a column with a value that Arrow, Python or msgspec cannot represent.
_NO_COLUMN = (pa.ArrowException, *NO_VALUE, RecursionError)


@dataclass(frozen=True, slots=True)
class DecodedRows:
    """The rows of messages of one dataset: the valid ones as columns, the others as rejects."""

    dataset: Dataset
    #: The dataset's columns in its order, then `ENQUEUED_AT`, `MESSAGE` and `POSITION`. The rows are in no order.
    rows: pa.RecordBatch
    #: For each message its first rejects, ordered by position, and the number of all.
    rejects: list[list[Reject]]
    rejected: list[int]
    #: By name, what was seen of fields that the dataset does not know, in valid rows and in rejected ones.
    unknown: Mapping[str, Seen] = field(default_factory=dict)


class _Piece(NamedTuple):
    """Rows of a message, by its index."""

    message: int
    start: int
    size: int


@cache
def _schema_of(dataset: Dataset) -> pa.Schema:
    """Return the schema of `DecodedRows.rows`; times are UTC."""
    types = {f.name: f.kind.arrow_type for f in fields_of(dataset)}
    types |= {ENQUEUED_AT: "timestamp[us]", MESSAGE: "int32", POSITION: "int32"}
    return pa.schema([(name, arrow_type(type_)) for name, type_ in types.items()])


def decode(dataset: Dataset, messages: Sequence[SentRows], enqueued_at: Sequence[int]) -> DecodedRows:
    """Type and check the rows of messages; `enqueued_at` has the moment of each message (microseconds since 2000)."""
    schema, sightings = _schema_of(dataset), Sightings(dataset)
    forms: dict[Any, list[int]] = {}
    for index, rows in enumerate(messages):
        forms.setdefault((rows.form, id(rows.standard)), []).append(index)
    batches: list[pa.RecordBatch] = []
    alone: dict[int, list[Positions]] = {}
    for (form, _), indices in forms.items():
        if form is None:
            alone |= {index: [range(len(messages[index]))] for index in indices}
            continue
        for pieces in _pieces(indices, [len(messages[index]) for index in indices]):
            parts = [_part(messages[piece.message].content, piece) for piece in pieces]
            moment, *origins = _beside(pieces, enqueued_at)
            try:
                columns, passed = _columns(dataset, form, parts, messages[indices[0]].standard, moment, sightings)
            except _NO_COLUMN:
                for index, start, size in pieces:
                    alone.setdefault(index, []).append(range(start, start + size))
                continue
            batch = pa.RecordBatch.from_arrays([*columns, moment, *origins], schema=schema)
            if not pc.all(passed, min_count=0).as_py():
                failed = batch.filter(pc.invert(passed))
                for index, positions in _by_message(failed.column(MESSAGE), failed.column(POSITION)):
                    alone.setdefault(index, []).append(positions)
                batch = batch.filter(passed)
            batches.append(batch)
    one_by_one = Alone(dataset, messages, enqueued_at, schema, sightings)
    one_by_one.read(alone)
    batches += one_by_one.batches
    if not batches:
        batches.append(pa.RecordBatch.from_pylist([], schema=schema))
    if len(batches) > 1:
        joined = map(pa.concat_arrays, zip(*(batch.columns for batch in batches), strict=True))
        batches = [pa.RecordBatch.from_arrays(list(joined), schema=schema)]
    return DecodedRows(dataset, batches[0], one_by_one.rejects, one_by_one.rejected, sightings.seen)


def _pieces(indices: Sequence[int], sizes: Sequence[int]) -> Iterator[list[_Piece]]:
    """Divide the rows of messages of these sizes, so that only a part of them is on its way as Python objects."""
    pieces: list[_Piece] = []
    room = _PIECE_ROWS
    for index, size in zip(indices, sizes, strict=True):
        start = 0
        while start < size:
            pieces.append(_Piece(index, start, min(size - start, room)))
            start += pieces[-1].size
            room -= pieces[-1].size
            if not room:
                yield pieces
                pieces, room = [], _PIECE_ROWS
    if pieces:
        yield pieces


def _part(content: Any, piece: _Piece) -> Any:
    if piece.size == len(content):
        return content
    if isinstance(content, list):
        return content[piece.start : piece.start + piece.size]
    return content.slice(piece.start, piece.size)


def _beside(pieces: Sequence[_Piece], enqueued_at: Sequence[int]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return the columns `ENQUEUED_AT`, `MESSAGE` and `POSITION` of these pieces."""
    ends = list(accumulate(piece.size for piece in pieces))

    def repeated(values: Iterable[int], type_: pa.DataType) -> pa.Array:
        array = pa.array(values, type_)
        return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int32()), array))

    moments = repeated((enqueued_at[piece.message] + UNIX_TO_EPOCH_US for piece in pieces), pa.timestamp("us"))
    before = repeated((end - p.size - p.start for end, p in zip(ends, pieces, strict=True)), pa.int32())
    positions = pc.subtract(pa.arange(0, ends[-1]).cast(pa.int32()), before)
    return moments, repeated((piece.message for piece in pieces), pa.int32()), positions


def _by_message(messages: pa.Array, positions: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Yield the positions of each message; its rows stand together."""
    runs = pc.run_end_encode(messages)
    start = 0
    for index, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield index, positions.slice(start, end - start)
        start = end


def _columns(
    dataset: Dataset,
    form: Any,
    parts: Sequence[Any],
    standard: Mapping[str, Any],
    enqueued_at: pa.Array,
    sightings: Sightings,
) -> tuple[list[pa.Array], pa.Array]:
    """Return the stored columns of rows of one form, and which rows are valid; may raise any of `_NO_COLUMN`."""
    joined: Joined = form.joined(parts)
    sent, count = joined.columns, len(enqueued_at)
    fields, schema = fields_of(dataset, standard.get(TIME_UNIT)), _schema_of(dataset)
    passed = pa.repeat(True, count)
    if dataset.unknown == "reject" and joined.kept:
        passed = pc.invert(pa.array(unknown_flags(dataset, joined.kept), pa.bool_()))
    complete: dict[str, pa.Array] = {}
    beyond: dict[str, pa.Array] = {}
    for f in sorted(fields, key=lambda f: (f.rule.keeps_unknown, f.rule.nanos_of)):
        type_ = schema.field(f.name).type
        values = sent.get(f.name)
        if f.rule.keeps_unknown:
            homeless = {name: beyond.pop(name).to_pylist() for name in [*beyond]}
            values = with_unknown(values, with_nanos(values, joined.kept, count, homeless), count)
        column: Any = pa.nulls(count, type_)
        nanos = None
        if values is not None:
            is_checked = isinstance(values, list) and f.kind.finish is list and not f.rule.later
            given = _given(f, values, type_ if is_checked else None)
            column, nanos = (given, None) if is_checked else _stored(f, given, type_)
            if column.null_count:
                absent = pa.array([value is None for value in given]) if isinstance(given, list) else given.is_null()
                passed = pc.and_(passed, pc.or_(column.is_valid(), absent))
        if f.rule.nanos_of in beyond:
            passed = pc.and_(passed, pc.coalesce(pc.equal(column, beyond[f.rule.nanos_of]), pa.scalar(True)))
            column = pc.coalesce(beyond.pop(f.rule.nanos_of), column)
        if column.null_count and f.name in standard:
            if nanos_of(f.name) in standard:
                if nanos is not None or column.null_count < count:
                    raise ValueError("rows of which some take the time of the defaults are read one by one")
                nanos = pa.repeat(pa.scalar(standard[nanos_of(f.name)], pa.int32()), count)
            column = pc.fill_null(column, pa.scalar(standard[f.name], type_))
        elif column.null_count and f.rule.enqueued_at:
            column = pc.coalesce(column, enqueued_at)
        elif column.null_count and f.required:
            passed = pc.and_(passed, column.is_valid())
        if nanos is not None:
            beyond[f.name] = nanos
        complete[f.name] = column
    if beyond:
        raise ValueError("rows whose nanoseconds have no place are read one by one")
    for f in fields:
        if f.rule.content_hash and complete[f.name].null_count:
            contents = {name: complete[name].to_pylist() for name in f.rule.content_hash if name != "*"}
            hashes = content_hashes(f.rule.content_hash, contents, joined.hashed(), count)
            made = pa.array([f.kind.from_hash(value) for value in hashes], complete[f.name].type)
            complete[f.name] = pc.coalesce(complete[f.name], made)
    if joined.kept:  # the other rows are counted when they are read one by one
        sightings.note(compress(joined.kept, passed.to_pylist()))
    return [complete[f.name] for f in fields], passed


def _given(f: Field, sent: list[Any] | pa.Array, type_: pa.DataType | None) -> list[Any] | pa.Array:
    """Return what was sent as an Arrow column, or as a list if there is none; null for what stands for no value.

    `type_` is that of values of which msgspec has done all checks.
    """
    column: Any = sent
    if isinstance(sent, list):
        try:
            if not f.kind.is_plain:
                raise ValueError("objects, lists and exact numbers are read one by one")
            column = pa.array(sent, type_)
            if type_ is None and pa.types.is_floating(column.type) and bool in set(map(type, sent)):
                raise ValueError("to Arrow, a boolean among floats is a float")
        except _NO_COLUMN:  # values of several types, or integers beyond 64 bits
            return [None if f.is_missing(value) else value for value in sent]
    return column if f.required else _without_missing(f, column)


def _without_missing(f: Field, column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        present = pc.is_finite(column)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        trimmed = pc.utf8_trim(column, characters=SPACES)
        present = pc.greater(pc.utf8_length(trimmed), 0)
        if not f.kind.is_text:
            present = pc.and_(present, pc.invert(pc.is_in(pc.utf8_lower(trimmed), pa.array(NO_VALUES, column.type))))
    else:
        return column
    if pc.all(present, min_count=0).as_py():
        return column
    return pc.if_else(present, column, pa.scalar(None, column.type))


def _stored(f: Field, given: list[Any] | pa.Array, type_: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Return a column's stored values, with null for wrong ones, and for times the nanoseconds beyond, if any."""
    if isinstance(given, list):
        return _read(f, given, type_)
    if pa.types.is_null(given.type):
        return pa.nulls(len(given), type_), None
    try:
        stored = f.kind.cast(given)
    except _NO_COLUMN:
        stored = None
    if stored is not None:
        return stored if isinstance(stored, tuple) else (stored, None)
    if pa.types.is_primitive(given.type) or pa.types.is_string(given.type) or pa.types.is_large_string(given.type):
        encoded = given.dictionary_encode()  # texts mostly repeat, and so do dates
        column, nanos = _read(f, json_values(encoded.dictionary), type_)
        return column.take(encoded.indices), None if nanos is None else nanos.take(encoded.indices)
    return _read(f, json_values(given), type_)


def _read(f: Field, values: list[Any], type_: pa.DataType) -> tuple[pa.Array, pa.Array | None]:
    """Return what `_stored` does, for single values."""
    present = [value for value in values if value is not None]
    try:
        if f.kind.is_text and f.kind.is_plain:  # msgspec accepts NUL characters
            raise ValueError("texts are read one by one")
        wire = msgspec.convert(present, list[f.kind.wire], strict=False)  # type: ignore[name-defined]
        stored, beyond = f.kind.finish(wire), f.kind.beyond(wire)
    except (ValueError, TypeError, RecursionError):
        pairs = [_read_one(f, value) for value in present]
        stored, beyond = [value for value, _ in pairs], [nanos for _, nanos in pairs]
    found, nanos = iter(stored), iter(beyond)
    column = pa.array([None if value is None else next(found) for value in values], type_)
    if not any(beyond):
        return column, None
    return column, pa.array([None if value is None else next(nanos) or None for value in values], pa.int32())


def _read_one(f: Field, value: Any) -> tuple[Any, int]:
    try:
        wire = f.checked(value)
        return f.kind.finish([wire])[0], next(iter(f.kind.beyond([wire])), 0)
    except ValueError:
        return None, 0
