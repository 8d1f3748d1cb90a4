"""Reads rows one by one: those that are wrong, for the reason, and those that no faster way can read.

Producers and workers run this code, so both report a mistake in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.hashes import content_hashes
from market_data_store.wire.reasons import WrongValue, json_problem, reason_of, shown
from market_data_store.wire.text import Unreadable, row_text


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
    dataset: Dataset, position: int, raw: Any, standard: Mapping[str, Any], enqueued_at: int
) -> list[Any] | Reject:
    """Return a row's stored values in the dataset's column order, or its reject.

    `raw` is an object, or its JSON text as `msgspec.Raw`. `standard` fills fields that are missing or null.
    `enqueued_at` (microseconds since 1970) is the time of a row without one, where the dataset allows that.
    """
    try:
        return _stored(dataset, _loads(raw) if isinstance(raw, msgspec.Raw) else raw, standard, enqueued_at)
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
        return _encoded_defaults(dataset, json.dumps(dict(defaults), default=str).encode())
    except (TypeError, RecursionError) as error:
        raise InvalidMessage(Reason.of("defaults: {} is not JSON", shown(defaults))) from error
    except ValueError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage(Reason.of("defaults: not JSON")) from error


@lru_cache(maxsize=256)
def _encoded_defaults(dataset: Dataset, defaults: bytes) -> Mapping[str, Any]:
    given = json.loads(defaults)
    standard = {}
    for f in fields_of(dataset):
        value = next((_wire_value(f, given[name]) for name in f.names if given.get(name) is not None), None)
        if value is not None:
            try:
                (standard[f.name],) = f.kind.finish([f.checked(value)])
            except ValueError as error:
                raise InvalidMessage(reason_of(error).at("defaults")) from error
    return standard


def with_unknown(column: list[Any] | None, unknown: Sequence[Mapping[str, Any]], count: int) -> list[Any] | None:
    """Add to each row's metadata the fields that the dataset does not know; None for a row without either."""
    if not unknown:
        return column
    own = column or [None] * count
    kept = ({k: v for k, v in extra.items() if v is not None} for extra in unknown)
    return [
        None if value is None and not extra else {**extra, **(value or {})}
        for extra, value in zip(kept, own, strict=True)
    ]


def _stored(dataset: Dataset, row: Any, standard: Mapping[str, Any], enqueued_at: int) -> list[Any]:
    """Return one row's stored values; raises `WrongValue`."""
    if not isinstance(row, dict):
        raise WrongValue(Reason.of("row: expected an object, got {}", shown(row)))
    fields = fields_of(dataset)
    values: dict[str, Any] = {}
    used: set[str] = set()
    for f in fields:
        present = [name for name in f.names if name in row]
        name = next((name for name in present if row[name] is not None), present[0] if present else None)
        value = None if name is None else _wire_value(f, row[name])
        used.update(present)
        if value is None and f.required and f.name not in standard:
            kind = "key column" if f.key else "required"
            state = "missing" if name is None else "null"
            reason = Reason.of("{state} ({kind}); give it in the row or in defaults", state=state, kind=kind)
            raise WrongValue(reason.at(f.name))
        values[f.name] = None if value is None else f.checked(value)
    unknown = {name: value for name, value in row.items() if name not in used and not isinstance(value, Unreadable)}
    try:
        if any(f.rule.keeps_unknown for f in fields):
            json.dumps(unknown, allow_nan=False)
        return _completed(dataset, values, unknown, standard, enqueued_at)
    except (ValueError, TypeError) as error:  # all known fields are checked, so an unknown one is wrong
        raise WrongValue(json_problem(unknown).at("metadata")) from error


def _completed(
    dataset: Dataset, values: dict[str, Any], unknown: dict[str, Any], standard: Mapping[str, Any], enqueued_at: int
) -> list[Any]:
    """Fill in defaults and content hashes; returns stored values."""
    fields = fields_of(dataset)
    columns: dict[str, list[Any]] = {}
    for f in fields:
        value = values[f.name]
        if f.rule.keeps_unknown and unknown:
            (value,) = with_unknown([value], [unknown], 1) or [None]
        default = standard.get(f.name, enqueued_at if f.rule.enqueued_at else None)
        columns[f.name] = [default] if value is None else f.kind.finish([value])
    for f in fields:
        if f.rule.content_hash and columns[f.name] == [None]:
            (hashed,) = content_hashes(f.rule.content_hash, columns, [unknown], 1)
            columns[f.name] = [f.kind.from_hash(hashed)]
    return [value for (value,) in columns.values()]


def _wire_value(f: Field, value: Any) -> Any:
    """Convert one value as the decoder of a whole message does: unwrap Celery's objects, read the text null as None."""
    if isinstance(value, dict) and value.keys() == {"__type__", "__value__"}:
        value = value["__value__"]
    # msgspec reads the text `null` as no value, in all fields except texts.
    return None if isinstance(value, str) and not f.kind.is_text and value.lower() == "null" else value


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
