"""Decoded columns, shared by JSON rows and Arrow tables: defaults, content hashes and unknown fields are filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, Reason
from market_data_store.wire.fields import Field, fields_of
from market_data_store.wire.hashes import content_hashes
from market_data_store.wire.reasons import reason_of, shown


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can never be written; `position` is its index in the message, from 0."""

    position: int
    reason: str
    #: The reason with … for each value.
    pattern: str
    #: The row as JSON text.
    row: str


@dataclass(slots=True)
class DecodedRows:
    """A message's valid rows by column, in the dataset's column order, and its rejects.

    Values are as Postgres stores them: a timestamp is microseconds and a date is days since 2000-01-01 UTC, JSON is
    bytes.
    """

    dataset: Dataset
    columns: list[list[Any]]
    #: Index in the message of each valid row.
    positions: Sequence[int]
    rejects: list[Reject] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """Number of rows in the message."""
        return len(self.positions) + len(self.rejects)


def finished(f: Field, column: list[Any]) -> list[Any]:
    """Return a column's values as they are stored; None stays None."""
    if None not in column:
        return f.kind.finish(column)
    present = iter(f.kind.finish([value for value in column if value is not None]))
    return [None if value is None else next(present) for value in column]


def completed(
    dataset: Dataset,
    stored: Sequence[list[Any] | None],
    unknown: Sequence[Mapping[str, Any]],
    standard: Mapping[str, Any],
    enqueued_at: int,
    count: int,
) -> list[list[Any]]:
    """Fill in defaults and content hashes; returns stored values by column.

    `stored` is None for a column in which no row has a value.
    """
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
            hashes = content_hashes(f.rule.content_hash, complete, unknown, count)
            complete[f.name] = [
                f.kind.from_hash(value) if own is None else own
                for own, value in zip(complete[f.name], hashes, strict=True)
            ]
    return list(complete.values())


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


def wire_value(f: Field, value: Any) -> Any:
    """Convert one value as the decoder of a whole message does: unwrap Celery's objects, read the text null as None."""
    if isinstance(value, dict) and value.keys() == {"__type__", "__value__"}:
        value = value["__value__"]
    # msgspec reads the text `null` as no value, in all fields except texts.
    return None if isinstance(value, str) and not f.kind.is_text and value.lower() == "null" else value


@lru_cache(maxsize=256)
def _encoded_defaults(dataset: Dataset, defaults: bytes) -> dict[str, Any]:
    given = json.loads(defaults)
    standard = {}
    for f in fields_of(dataset):
        value = next((wire_value(f, given[name]) for name in f.names if given.get(name) is not None), None)
        if value is not None:
            try:
                (standard[f.name],) = f.kind.finish([f.checked(value)])
            except ValueError as error:
                raise InvalidMessage(reason_of(error).at("defaults")) from error
    return standard


def stored_defaults(dataset: Dataset, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored values of `defaults`, by column; raises `InvalidMessage`."""
    if not isinstance(defaults, Mapping):
        raise InvalidMessage(Reason.of("defaults: expected an object, got {}", shown(defaults)))
    try:
        return _encoded_defaults(dataset, json.dumps(dict(defaults), default=str).encode()) if defaults else {}
    except (TypeError, RecursionError) as error:
        raise InvalidMessage(Reason.of("defaults: {} is not JSON", shown(defaults))) from error
    except ValueError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage(Reason.of("defaults: not JSON")) from error
