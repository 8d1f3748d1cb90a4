"""From what a message holds to columns of typed values, and to rejects with a reason that names field and value.

Owns the rules of the wire (aliases, defaults, time, limits); what a dataset is stands in `datasets`, and Postgres is
not known here. `StoreClient` runs the same code as the worker, so that a mistake reads the same in both places.

Nearly all messages hold rows of one shape (the same field names). For each shape a msgspec Struct is built once, whose
fields carry the producer's own names, and the whole list is decoded and checked in C: 0.2 us a row. Only a message
that this refuses is looked at row by row.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Text

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage
from market_data_store.fields import Field, fields_of, has_nul, hash63, json_problem, shown

#: More fields than this, and a row is decoded without a shape of its own.
_MAX_SHAPE_FIELDS = 64
#: Celery's JSON writes datetimes, Decimals and the like as objects; what counts is the text inside.
_WRAPPED = b'"__type__"'
_WRAPPER = re.compile(rb'\{"__type__": ?"(?:datetime|date|time|decimal|uuid)", ?"__value__": ?("(?:[^"\\]|\\.)*")\}')

_scan = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can never be written, `position` counting from 0 in its message."""

    position: int
    reason: str
    #: The row as JSON text.
    row: str


@dataclass(slots=True)
class Decoded:
    """A message's valid rows by column, in the dataset's order, and its rejects.

    Values are as Postgres stores them: timestamps are microseconds and dates days since 2000-01-01 UTC, JSON is bytes.
    """

    dataset: Dataset
    columns: list[list[Any]]
    #: Of each valid row, its index in the message.
    positions: Sequence[int]
    rejects: list[Reject] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many rows the message held."""
        return len(self.positions) + len(self.rejects)


class _Shape:
    """A decoder for lists of rows that have these field names, and for which `defaults` has these columns."""

    def __init__(self, dataset: Dataset, names: frozenset[str], defaulted: frozenset[str]) -> None:
        members: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        #: Of each of the dataset's columns, its place in a decoded row, or None.
        self.places: list[int | None] = []
        #: Fields that the dataset does not know: place, and name.
        self.unknown: list[tuple[int, str]] = []
        fields = fields_of(dataset)
        for f in fields:
            wire_name = next((name for name in f.names if name in names), None)
            if wire_name is None and f.required and f.name not in defaulted:
                raise ValueError(f"{f.name} is missing")
            if sum(name in names for name in f.names) > 1:
                raise ValueError(f"{f.name} has several names")  # which one counts may differ from row to row
            self.places.append(None if wire_name is None else len(members))
            if wire_name is not None:
                rename[f"f{len(members)}"] = wire_name
                optional = not f.required or f.name in defaulted
                type_ = f.wire | None if optional else f.wire
                members.append((f"f{len(members)}", type_, None if optional else msgspec.NODEFAULT))
        for name in sorted(names.difference(rename.values())):
            if fields.keeps_unknown:
                self.unknown.append((len(members), name))
            rename[f"f{len(members)}"] = name
            members.append((f"f{len(members)}", Any if fields.keeps_unknown else msgspec.Raw, None))
        struct = msgspec.defstruct("Row", members, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False)
        self.decode = msgspec.json.Decoder(list[struct], strict=False).decode  # type: ignore[valid-type]


_shape = lru_cache(maxsize=256)(_Shape)


def decode_rows(dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any], enqueued_at: int) -> Decoded:
    """Type and check a message's rows; what is wrong comes back as rejects.

    `rows` is the JSON text of a list, or the list itself; `defaults` fills what rows leave out or have null;
    `enqueued_at` (microseconds since 2000) is the time of rows whose dataset allows them to have none.
    Raises `InvalidMessage` when `rows` is no list, or `defaults` is wrong for the dataset.
    """
    standard = stored_defaults(dataset, defaults)
    if isinstance(rows, bytes):
        rows = _unwrapped(rows)
        if not has_nul(rows):
            decoded = _decode_at_once(dataset, rows, standard, enqueued_at)
            if decoded is not None:
                return decoded
        rows = list(_split(rows))
    return _decode_one_by_one(dataset, rows, standard, enqueued_at)


def _decode_at_once(dataset: Dataset, text: bytes, standard: dict[str, Any], enqueued_at: int) -> Decoded | None:
    """All rows in one go, or None where some row needs a closer look."""
    try:
        shape = _shape(dataset, _names_of_first_row(text), frozenset(standard))
        structs = shape.decode(text)
        places = list(zip(*map(msgspec.structs.astuple, structs), strict=True))
        columns = [None if place is None else list(places[place]) for place in shape.places]
        names = [name for _, name in shape.unknown]
        unknown = [
            dict(zip(names, values, strict=True))
            for values in zip(*(places[place] for place, _ in shape.unknown), strict=True)
        ]
        return Decoded(
            dataset,
            _finished(dataset, columns, unknown, standard, enqueued_at, len(structs)),
            range(len(structs)),
        )
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def _names_of_first_row(text: bytes) -> frozenset[str]:
    start = text.find(b"{")
    if start < 0:
        raise ValueError("no object")
    # The scanner reads text: decode in steps, since most first rows are short.
    for size in (4_096, len(text)):
        try:
            first, _ = _scan(text[start : start + size].decode("utf-8", "ignore"))
            break
        except ValueError:
            if size >= len(text):
                raise
    if not isinstance(first, dict) or len(first) > _MAX_SHAPE_FIELDS:
        raise ValueError("no shape")
    return frozenset(first)


def _finished(
    dataset: Dataset,
    columns: Sequence[list[Any] | None],
    unknown: Sequence[Mapping[str, Any]],
    standard: Mapping[str, Any],
    enqueued_at: int,
    count: int,
) -> list[list[Any]]:
    """Stored values by column, from decoded ones: each finished, then completed; raises ValueError."""
    stored = []
    for f, column in zip(fields_of(dataset), columns, strict=True):
        if f.name == "metadata":
            column = with_unknown(column, unknown, count)
        stored.append(None if column is None else finished(f, column))
    return completed(dataset, stored, unknown, standard, enqueued_at, count)


def finished(f: Field, column: list[Any]) -> list[Any]:
    """A column's values as they are stored; None stays."""
    if None not in column:
        return f.finish(column)
    present = iter(f.finish([value for value in column if value is not None]))
    return [None if value is None else next(present) for value in column]


def completed(
    dataset: Dataset,
    stored: Sequence[list[Any] | None],
    unknown: Sequence[Mapping[str, Any]],
    standard: Mapping[str, Any],
    enqueued_at: int,
    count: int,
) -> list[list[Any]]:
    """Stored values by column, with defaults filled in and hashes made; `stored` is None where no row has a value."""
    fields = fields_of(dataset)
    complete: dict[str, list[Any]] = {}
    for f, column in zip(fields, stored, strict=True):
        default = standard.get(f.name)
        if f.rule.enqueued_at and default is None:
            default = enqueued_at
        if column is None:
            complete[f.name] = [default] * count
        elif default is None or None not in column:
            complete[f.name] = column
        else:
            complete[f.name] = [default if value is None else value for value in column]
    for f in fields:
        if f.rule.content_hash and None in complete[f.name]:
            hashes: Iterator[Any] = _content_hashes(f.rule.content_hash, complete, unknown, count)
            if isinstance(dataset.table.columns[f.name].type, Text):
                hashes = (f"{value:016x}" for value in hashes)
            complete[f.name] = [
                value if own is None else own for own, value in zip(complete[f.name], hashes, strict=True)
            ]
    return list(complete.values())


def with_unknown(column: list[Any] | None, unknown: Sequence[Mapping[str, Any]], count: int) -> list[Any] | None:
    """Metadata that also holds the fields that the dataset does not know, of each row."""
    if not unknown:
        return column
    own = column or [None] * count
    kept = ({k: v for k, v in extra.items() if v is not None} for extra in unknown)
    return [
        None if value is None and not extra else {**extra, **(value or {})}
        for extra, value in zip(kept, own, strict=True)
    ]


def _content_hashes(
    names: tuple[str, ...], columns: Mapping[str, list[Any]], unknown: Sequence[Mapping[str, Any]], count: int
) -> Iterator[int]:
    encode = msgspec.json.Encoder(order="deterministic").encode
    contents = zip(*(columns[name] for name in names if name != "*"), strict=True)
    extras: Sequence[Mapping[str, Any]] = unknown if "*" in names and unknown else [{}] * count
    for content, extra in zip(contents, extras, strict=True):
        rest = {k: v for k, v in extra.items() if v is not None}
        yield hash63(encode((content, rest) if rest else content))


def _split(text: bytes) -> Iterator[Any]:
    """The rows one by one: `msgspec.Raw`, or objects where only Python's parser takes the text (NaN, 1e400)."""
    try:
        yield from msgspec.json.decode(text, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidMessage("rows: not JSON that can be read") from error
        if not isinstance(rows, list):
            raise InvalidMessage(f"rows: expected a list of objects, got {shown(rows)}") from None
        yield from rows


def _unwrapped(text: bytes) -> bytes:
    """JSON text without the objects that Celery's JSON writes for datetimes, Decimals and the like."""
    return _WRAPPER.sub(rb"\1", text) if _WRAPPED in text else text


class Unreadable:
    """A value that JSON or Arrow allows and Python does not, such as an integer of 5,000 digits. No field takes it."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text.decode("utf-8", "replace")


def _loads(text: msgspec.Raw) -> Any:
    """The row as an object; the wrong field alone is unreadable where that is possible."""
    try:
        return json.loads(bytes(text))
    except ValueError:
        try:
            fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except ValueError as error:
            raise ValueError(f"row: {shown(Unreadable(bytes(text)))} cannot be read as an object") from error
        return {name: _loads_value(value) for name, value in fields.items()}


def _loads_value(text: msgspec.Raw) -> Any:
    try:
        return json.loads(bytes(text))
    except ValueError:
        return Unreadable(bytes(text))


def _decode_one_by_one(dataset: Dataset, rows: list[Any], standard: dict[str, Any], enqueued_at: int) -> Decoded:
    columns: list[list[Any]] = [[] for _ in fields_of(dataset)]
    positions: list[int] = []
    rejects: list[Reject] = []
    for position, raw in enumerate(rows):
        try:
            row = _loads(raw) if isinstance(raw, msgspec.Raw) else raw
            stored = _decode_row(dataset, row, standard, enqueued_at)
        except RecursionError:
            # Kept as one string: Postgres's parser has a limit of its own.
            rejects.append(Reject(position, "row: nested too deeply", json.dumps(row_text(raw))))
        except ValueError as error:
            rejects.append(Reject(position, str(error), row_text(raw)))
        else:
            positions.append(position)
            for column, value in zip(columns, stored, strict=True):
                column.append(value)
    return Decoded(dataset, columns, positions, rejects)


def _decode_row(dataset: Dataset, row: Any, standard: dict[str, Any], enqueued_at: int) -> list[Any]:
    """One row's stored values; the ValueError's text is the reason for a reject."""
    if not isinstance(row, dict):
        raise ValueError(f"row: expected an object, got {shown(row)}")
    columns: list[list[Any] | None] = []
    used: set[str] = set()
    for f in fields_of(dataset):
        present = [name for name in f.names if name in row]
        name = next((name for name in present if row[name] is not None), present[0] if present else None)
        value = None if name is None else _value(f, row[name])
        used.update(present)
        if value is None and f.required and f.name not in standard:
            kind = "key column" if f.key else "required"
            state = "missing" if name is None else "null"
            raise ValueError(f"{f.name}: {state} ({kind}); give it in the row or in defaults")
        columns.append(None if value is None else [f.checked(value)])
    unknown = {name: value for name, value in row.items() if name not in used and not isinstance(value, Unreadable)}
    try:
        if unknown and any(f.name == "metadata" for f in fields_of(dataset)):
            json.dumps(unknown, allow_nan=False)
        stored = _finished(dataset, columns, [unknown] if unknown else [], standard, enqueued_at, 1)
    except (ValueError, TypeError) as error:  # only what the row has beyond its fields is left to be wrong
        raise ValueError(f"metadata: {json_problem(unknown)}") from error
    return [value for (value,) in stored]


def _value(f: Field, value: Any) -> Any:
    """As the decoder of a whole message takes it."""
    if isinstance(value, dict) and value.keys() == {"__type__", "__value__"}:
        value = value["__value__"]
    # msgspec takes the text null for no value, in all fields but texts; so does this.
    return None if isinstance(value, str) and not f.is_text and value.lower() == "null" else value


@lru_cache(maxsize=256)
def _encoded_defaults(dataset: Dataset, defaults: bytes) -> dict[str, Any]:
    given = json.loads(defaults)
    standard = {}
    for f in fields_of(dataset):
        value = next((_value(f, given[name]) for name in f.names if given.get(name) is not None), None)
        if value is not None:
            try:
                (standard[f.name],) = f.finish([f.checked(value)])
            except ValueError as error:
                raise InvalidMessage(f"defaults: {error}") from error
    return standard


def stored_defaults(dataset: Dataset, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's stored values for what rows leave out; raises `InvalidMessage`."""
    if not isinstance(defaults, Mapping):
        raise InvalidMessage(f"defaults: expected an object, got {shown(defaults)}")
    try:
        return _encoded_defaults(dataset, json.dumps(dict(defaults), default=str).encode()) if defaults else {}
    except (TypeError, RecursionError) as error:
        raise InvalidMessage(f"defaults: {shown(defaults)} is not JSON") from error
    except ValueError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage("defaults: not JSON") from error


def row_text(row: Any) -> str:
    """The row as JSON text that Postgres's json accepts; NaN and infinities become strings, all else stays."""
    if isinstance(row, msgspec.Raw):
        return bytes(row).decode("utf-8", "replace")
    try:
        return json.dumps(row, allow_nan=False, default=str)
    except ValueError:
        try:
            return json.dumps(_without_nan(row), default=str)
        except RecursionError:
            return json.dumps(json.dumps(row, default=str))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value
