"""Decodes JSON rows into columns of typed values, and into rejects whose reason names field and value.

Owns the rules of the wire format: aliases, defaults, times, limits. `datasets` declares the datasets; this module knows
nothing of Postgres. `StoreClient` runs the same code as the worker, so both report a mistake in the same words.

In nearly all messages, all rows have one shape (the same field names). For each shape a msgspec Struct is built once,
with the producer's own field names, and the whole list is decoded and checked in C: 0.2 us per row. Only a message that
fails there is decoded row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.columns import (
    DecodedRows,
    Reject,
    completed,
    finished,
    stored_defaults,
    wire_value,
    with_unknown,
)
from market_data_store.wire.fields import fields_of
from market_data_store.wire.reasons import WrongValue, json_problem, reason_of, shown
from market_data_store.wire.text import Unreadable, has_nul, row_text

#: Rows with more fields than this are decoded one by one, without a shape.
_MAX_SHAPE_FIELDS = 64
#: Celery's JSON writes datetimes, Decimals and the like as objects; their value is the text inside.
_WRAPPED = b'"__type__"'
_WRAPPER = re.compile(rb'\{"__type__": ?"(?:datetime|date|time|decimal|uuid)", ?"__value__": ?("(?:[^"\\]|\\.)*")\}')

_scan = json.JSONDecoder().raw_decode


class _Shape:
    """A decoder for lists of rows with the field names `names`, when `defaults` has values for `defaulted`."""

    def __init__(self, dataset: Dataset, names: frozenset[str], defaulted: frozenset[str]) -> None:
        members: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        #: For each column of the dataset, its place in a decoded row, or None.
        self.places: list[int | None] = []
        #: Place and name of each field that the dataset does not know.
        self.unknown: list[tuple[int, str]] = []
        fields = fields_of(dataset)
        for f in fields:
            wire_name = next((name for name in f.names if name in names), None)
            if wire_name is None and f.required and f.name not in defaulted:
                raise ValueError(f"{f.name} is missing")
            if sum(name in names for name in f.names) > 1:
                raise ValueError(f"{f.name} has several names")  # which of them has the value may differ by row
            self.places.append(None if wire_name is None else len(members))
            if wire_name is not None:
                rename[f"f{len(members)}"] = wire_name
                optional = not f.required or f.name in defaulted
                type_ = f.kind.wire | None if optional else f.kind.wire
                members.append((f"f{len(members)}", type_, None if optional else msgspec.NODEFAULT))
        for name in sorted(names.difference(rename.values())):
            if fields.use_unknown:
                self.unknown.append((len(members), name))
            rename[f"f{len(members)}"] = name
            members.append((f"f{len(members)}", Any if fields.use_unknown else msgspec.Raw, None))
        struct = msgspec.defstruct("Row", members, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False)
        self.decode = msgspec.json.Decoder(list[struct], strict=False).decode  # type: ignore[valid-type]


_shape = lru_cache(maxsize=256)(_Shape)


def decode_rows(
    dataset: Dataset, rows: bytes | list[Any], defaults: Mapping[str, Any], enqueued_at: int
) -> DecodedRows:
    """Type and check a message's rows; wrong rows are returned as rejects.

    `rows` is the JSON text of a list, or the list itself. `defaults` fills fields that are missing or null.
    `enqueued_at` (microseconds since 2000) is the time of rows without one, where the dataset allows that.
    Raises `InvalidMessage` when `rows` is not a list, or `defaults` is wrong for the dataset.
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


def _decode_at_once(dataset: Dataset, text: bytes, standard: dict[str, Any], enqueued_at: int) -> DecodedRows | None:
    """Decode all rows at once; returns None if some row must be read by itself."""
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
        return DecodedRows(
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
    # The scanner needs text, and most first rows are short: decode only the beginning of the message first.
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
    """Finish and complete decoded columns; returns stored values by column, raises ValueError."""
    stored = []
    for f, column in zip(fields_of(dataset), columns, strict=True):
        if f.rule.keeps_unknown:
            column = with_unknown(column, unknown, count)
        stored.append(None if column is None else finished(f, column))
    return completed(dataset, stored, unknown, standard, enqueued_at, count)


def _split(text: bytes) -> Iterator[Any]:
    """Yield the rows: as `msgspec.Raw`, or as objects if only Python's parser accepts the text (NaN, 1e400)."""
    try:
        yield from msgspec.json.decode(text, type=list[msgspec.Raw])
    except (ValueError, RecursionError):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidMessage(Reason.of("rows: not readable as JSON")) from error
        if not isinstance(rows, list):
            raise InvalidMessage(Reason.of("rows: expected a list of objects, got {}", shown(rows))) from None
        yield from rows


def _unwrapped(text: bytes) -> bytes:
    """Replace the objects that Celery's JSON writes for datetimes, Decimals and the like by their texts."""
    return _WRAPPER.sub(rb"\1", text) if _WRAPPED in text else text


def _loads(text: msgspec.Raw) -> Any:
    """Read a row as an object; if possible, only a field that cannot be read becomes `Unreadable`."""
    try:
        return json.loads(bytes(text))
    except ValueError:
        try:
            fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except ValueError as error:
            reason = Reason.of("row: {} cannot be read as an object", shown(Unreadable(bytes(text))))
            raise WrongValue(reason) from error
        return {name: _loads_value(value) for name, value in fields.items()}


def _loads_value(text: msgspec.Raw) -> Any:
    try:
        return json.loads(bytes(text))
    except ValueError:
        return Unreadable(bytes(text))


def _decode_one_by_one(dataset: Dataset, rows: list[Any], standard: dict[str, Any], enqueued_at: int) -> DecodedRows:
    columns: list[list[Any]] = [[] for _ in fields_of(dataset)]
    positions: list[int] = []
    rejects: list[Reject] = []
    for position, raw in enumerate(rows):
        try:
            row = _loads(raw) if isinstance(raw, msgspec.Raw) else raw
            stored = _decode_row(dataset, row, standard, enqueued_at)
        except RecursionError:
            # Kept as one string: Postgres's JSON parser limits the depth too.
            rejects.append(_reject(position, Reason.of("row: nested too deeply"), json.dumps(row_text(raw))))
        except ValueError as error:
            rejects.append(_reject(position, reason_of(error), row_text(raw)))
        else:
            positions.append(position)
            for column, value in zip(columns, stored, strict=True):
                column.append(value)
    return DecodedRows(dataset, columns, positions, rejects)


def _reject(position: int, reason: Reason, row: str) -> Reject:
    return Reject(position, reason.text, reason.pattern, row)


def _decode_row(dataset: Dataset, row: Any, standard: dict[str, Any], enqueued_at: int) -> list[Any]:
    """Return one row's stored values; raises `WrongValue`."""
    if not isinstance(row, dict):
        raise WrongValue(Reason.of("row: expected an object, got {}", shown(row)))
    columns: list[list[Any] | None] = []
    used: set[str] = set()
    for f in fields_of(dataset):
        present = [name for name in f.names if name in row]
        name = next((name for name in present if row[name] is not None), present[0] if present else None)
        value = None if name is None else wire_value(f, row[name])
        used.update(present)
        if value is None and f.required and f.name not in standard:
            kind = "key column" if f.key else "required"
            state = "missing" if name is None else "null"
            reason = Reason.of("{state} ({kind}); give it in the row or in defaults", state=state, kind=kind)
            raise WrongValue(reason.at(f.name))
        columns.append(None if value is None else [f.checked(value)])
    unknown = {name: value for name, value in row.items() if name not in used and not isinstance(value, Unreadable)}
    try:
        if unknown and any(f.rule.keeps_unknown for f in fields_of(dataset)):
            json.dumps(unknown, allow_nan=False)
        stored = _finished(dataset, columns, [unknown] if unknown else [], standard, enqueued_at, 1)
    except (ValueError, TypeError) as error:  # all known fields are checked, so an unknown one is wrong
        raise WrongValue(json_problem(unknown).at("metadata")) from error
    return [value for (value,) in stored]
