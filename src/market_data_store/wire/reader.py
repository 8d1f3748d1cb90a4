"""Reads rows one by one: those that are wrong, for the reason, and those that no faster way can read.

Producers and workers run this code, so both report a mistake in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.fields import Field, Fields, exact_names, fields_of, names_of
from market_data_store.wire.hashes import OCCURRENCE, content_hashes, number_of
from market_data_store.wire.moments import TIME_UNIT, nanos_of, unit_named
from market_data_store.wire.reasons import WrongValue, json_problem, occurrence_problem, reason_of, shown
from market_data_store.wire.seen import Sightings
from market_data_store.wire.text import TableRow, Unreadable, read_float, row_text
from market_data_store.wire.unknown import hashed_of, kept_of, require_equal, require_known, with_nanos, with_unknown

#: Of a message's rejects so many are kept in full, the first ones; the others are counted.
MOST_REJECTS = 5_001
#: Larger defaults are not remembered.
_REMEMBERED_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can never be written; `position` is its index in the message, from 0."""

    position: int
    reason: str
    #: The reason with … for each value.
    pattern: str
    #: The row as JSON text.
    row: str


def read_row(
    dataset: Dataset,
    position: int,
    raw: Any,
    standard: Mapping[str, Any],
    enqueued_at: int,
    *,
    occurrence: int | None = None,
    sightings: Sightings | None = None,
) -> list[Any] | Reject:
    """Return a row's stored values in the dataset's column order, or its reject.

    `raw` is an object, or its JSON text as `msgspec.Raw`. `standard` fills fields that are missing or null.
    `enqueued_at` (microseconds since 1970) is the time of a row without one, where the dataset allows that.
    `occurrence` is its number among equal rows of its message, if its producer has not numbered them.
    """
    try:
        row = _loads(dataset, raw) if isinstance(raw, msgspec.Raw) else raw
        if sightings is not None:
            sightings.note([row])
        return _stored(dataset, row, standard, enqueued_at, occurrence)
    except RecursionError:
        # Kept as one string: Postgres's JSON parser limits the depth too.
        return _reject(position, Reason.of("row: nested too deeply"), json.dumps(row_text(raw)))
    except ValueError as error:
        return _reject(position, reason_of(error), row_text(raw))


def _reject(position: int, reason: Reason, row: str) -> Reject:
    return Reject(position, reason.text, reason.pattern, row)


def stored_defaults(dataset: Dataset, defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the stored values of `defaults`, by column; raises `InvalidMessage`."""
    if not isinstance(defaults, Mapping):
        raise InvalidMessage(Reason.of("defaults: expected an object, got {}", shown(defaults)))
    if not defaults:
        return _encoded_defaults(dataset, b"{}")
    try:
        encoded = json.dumps(known_defaults(dataset, defaults), default=str).encode()
        read = _encoded_defaults if len(encoded) <= _REMEMBERED_BYTES else _encoded_defaults.__wrapped__
        return read(dataset, encoded)
    except (TypeError, RecursionError) as error:
        raise InvalidMessage(Reason.of("defaults: {} is not JSON", shown(defaults))) from error
    except ValueError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage(Reason.of("defaults: not JSON")) from error


def known_defaults(dataset: Dataset, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of these defaults that mean something for the dataset."""
    names = _default_names(dataset)
    return {name: value for name, value in defaults.items() if name in names}


@cache
def _default_names(dataset: Dataset) -> frozenset[str]:
    return frozenset({TIME_UNIT, OCCURRENCE}.union(*(f.names for f in fields_of(dataset))))


@lru_cache(maxsize=256)
def _encoded_defaults(dataset: Dataset, defaults: bytes) -> Mapping[str, Any]:
    given = json.loads(defaults)
    standard: dict[str, Any] = {}
    try:
        if given.get(TIME_UNIT) is not None:
            standard[TIME_UNIT] = unit_named(given[TIME_UNIT])
        for f in fields_of(dataset, standard.get(TIME_UNIT)):
            _, value = _sent_value(f, given)
            if value is not None:
                wire = f.checked(value)
                (standard[f.name],) = f.kind.finish([wire])
                standard |= {nanos_of(f.name): nanos for nanos in f.kind.beyond([wire]) if nanos}
    except ValueError as error:
        raise InvalidMessage(reason_of(error).at("defaults")) from error
    if names_of(dataset).numbered and given.get(OCCURRENCE) is not None:
        standard[OCCURRENCE] = given[OCCURRENCE]
    return standard


def _stored(
    dataset: Dataset, row: Any, standard: Mapping[str, Any], enqueued_at: int, occurrence: int | None
) -> list[Any]:
    """Return one row's stored values; raises `WrongValue`."""
    columns, hashed, kept = _read(dataset, row, standard, enqueued_at, occurrence)
    try:
        for f in fields_of(dataset):
            if f.rule.content_hash and columns[f.name] == [None]:
                columns[f.name] = [_hash(f, columns, hashed)]
    except (ValueError, TypeError) as error:  # all known fields are checked, so an unknown one is wrong
        raise WrongValue(json_problem(kept).at("metadata")) from error
    return [value for (value,) in columns.values()]


def ids_by_number(dataset: Dataset, made: Field, raw: Any, standard: Mapping[str, Any]) -> Callable[[int], Any] | None:
    """Return what makes the hashed field `made` of a valid row from its number among its equals; None if it was sent.

    Many equal rows differ in nothing else, and to read each again would take 50 us.
    """
    row = _loads(dataset, raw) if isinstance(raw, msgspec.Raw) else raw
    columns, hashed, _ = _read(dataset, row, standard, 0, None)
    if columns[made.name] != [None] or row.get(OCCURRENCE) is not None:
        return None

    def id_of(number: int) -> Any:
        rest = {name: value for name, value in hashed.items() if name != OCCURRENCE}
        return _hash(made, columns, rest if number == 1 else {**rest, OCCURRENCE: number_of(number)})

    return id_of


def _hash(f: Field, columns: Mapping[str, list[Any]], hashed: Mapping[str, Any]) -> Any:
    (hash_,) = content_hashes(f.rule.content_hash, columns, [hashed], 1)
    return f.kind.from_hash(hash_)


def _read(
    dataset: Dataset, row: Any, standard: Mapping[str, Any], enqueued_at: int, occurrence: int | None
) -> tuple[dict[str, list[Any]], dict[str, Any], Mapping[str, Any]]:
    """Return a row's columns, but for those made of a hash, what the hash counts besides, and what is kept besides."""
    if not isinstance(row, dict):
        raise WrongValue(Reason.of("row: expected an object, got {}", shown(row)))
    names, fields = names_of(dataset), fields_of(dataset, standard.get(TIME_UNIT))
    if dataset.unknown == "reject":
        require_known(dataset, row)
    values: dict[str, Any] = {}
    beyond = {name: value for name, value in row.items() if name not in names.ignored}
    nanos: dict[str, int] = {}
    for f in fields:
        present = [name for name in f.names if name in row]
        name, value = _sent_value(f, row)
        if value is None and f.required and f.name not in standard:
            kind = "key column" if f.key else "required"
            state = "null" if present else "missing"
            reason = Reason.of("{state} ({kind}); give it in the row or in defaults", state=state, kind=kind)
            raise WrongValue(reason.at(f.name))
        if value is not None and f.rule.guessed and not f.takes(value):
            values[f.name], nanos[f.name] = None, 0
            continue  # it stays in metadata
        values[f.name] = None if value is None else f.checked(value)
        nanos[f.name] = standard.get(nanos_of(f.name), 0) if value is None else _nanos(f, values[f.name])
        for other in present:
            if other in names.shared or not _is_kept(f, row[other], values[f.name], chosen=other == name):
                beyond.pop(other, None)
    for f in fields:
        if nanos.get(f.rule.nanos_of):
            require_equal(f.name, values[f.name], f.rule.nanos_of, nanos[f.rule.nanos_of])
            values[f.name] = nanos.pop(f.rule.nanos_of)
    kept: Mapping[str, Any] = kept_of(beyond)
    try:
        sent = {**row, **row.cut} if isinstance(row, TableRow) else row
        hashed = hashed_of({k: v for k, v in sent.items() if names.hashed(k)})
    except ValueError as error:
        raise WrongValue(occurrence_problem(row[OCCURRENCE]).at(OCCURRENCE)) from error
    if occurrence is not None and row.get(OCCURRENCE) is None and OCCURRENCE not in standard:
        hashed[OCCURRENCE] = number_of(occurrence)
    try:
        homeless = {name: [number] for name, number in nanos.items() if number}
        keeper = next((f.name for f in fields if f.rule.keeps_unknown), None)
        if homeless and keeper is None:
            reason = Reason.of("nanoseconds have no place in this dataset; send microseconds")
            raise WrongValue(reason.at(next(iter(homeless))))
        (kept,) = with_nanos([values.get(keeper or "")], [kept], 1, homeless)
        return _completed(fields, values, kept, standard, enqueued_at), hashed, kept
    except WrongValue:
        raise
    except (ValueError, TypeError) as error:  # all known fields are checked, so an unknown one is wrong
        raise WrongValue(json_problem(kept).at("metadata")) from error


def _is_kept(f: Field, value: Any, stored: Any, *, chosen: bool) -> bool:
    """Return whether a field is kept beside its column: if the column would lose it."""
    if chosen:
        return isinstance(value, str) and f.kind.loses is not None and f.kind.loses(value)
    try:
        other = _wire_value(f, value)
        return other is not None and _exact(f, f.checked(other)) != _exact(f, stored)
    except ValueError:
        return True


def _exact(f: Field, wire: Any) -> tuple[Any, ...]:
    return (*f.kind.finish([wire]), *f.kind.beyond([wire]))


def _nanos(f: Field, wire: Any) -> int:
    return next(iter(f.kind.beyond([wire])), 0)


def _completed(
    fields: Fields,
    values: dict[str, Any],
    kept: Mapping[str, Any],
    standard: Mapping[str, Any],
    enqueued_at: int,
) -> dict[str, list[Any]]:
    """Fill in defaults; returns stored values."""
    columns: dict[str, list[Any]] = {}
    for f in fields:
        value = values[f.name]
        if f.rule.keeps_unknown and kept:
            (value,) = with_unknown([value], [kept], 1) or [None]
        default = standard.get(f.name, enqueued_at if f.rule.enqueued_at else None)
        columns[f.name] = [default] if value is None else f.kind.finish([value])
    return columns


def _sent_value(f: Field, row: Mapping[str, Any]) -> tuple[str | None, Any]:
    """Return the first of the field's names under which a row has a value, and the value; twice None if none has."""
    return next(((n, value) for n in f.names if (value := _wire_value(f, row.get(n))) is not None), (None, None))


def _wire_value(f: Field, value: Any) -> Any:
    """Return a value as the decoder of a whole message sees it, None for what stands for no value."""
    if isinstance(value, dict) and value.keys() == {"__type__", "__value__"}:  # Celery's objects
        value = value["__value__"]
    return None if f.is_missing(value) else value


def _loads(dataset: Dataset, text: msgspec.Raw) -> Any:
    """Read a row as an object, in which exact numbers are texts: a float would lose digits."""
    row = _loads_object(text)
    names = exact_names(dataset)
    if names and isinstance(row, dict):
        inexact = [name for name in names & row.keys() if isinstance(row[name], float | Unreadable)]
        if inexact:
            try:
                fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            except ValueError:  # with NaN in it
                return row
            row |= {name: bytes(fields[name]).decode() for name in inexact}
    return row


def _loads_object(text: msgspec.Raw) -> Any:
    """Read a row; if possible, only a field that cannot be read becomes `Unreadable`."""
    try:
        return json.loads(bytes(text), parse_float=read_float)
    except ValueError:
        try:
            fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except ValueError as error:
            reason = Reason.of("row: {} cannot be read as an object", shown(Unreadable(bytes(text))))
            raise WrongValue(reason) from error
        return {name: _loads_value(value) for name, value in fields.items()}


def _loads_value(text: msgspec.Raw) -> Any:
    try:
        return json.loads(bytes(text), parse_float=read_float)
    except ValueError:
        return Unreadable(bytes(text))
