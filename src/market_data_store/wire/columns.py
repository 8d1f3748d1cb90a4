"""Decoded columns: what JSON rows and Arrow tables have in common, from single values to complete columns."""

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
    """A row that can never be written, `position` counting from 0 in its message."""

    position: int
    reason: str
    #: The reason without values.
    pattern: str
    #: The row as JSON text.
    row: str


@dataclass(slots=True)
class DecodedRows:
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


def finished(f: Field, column: list[Any]) -> list[Any]:
    """A column's values as they are stored; None stays."""
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
            hashes = content_hashes(f.rule.content_hash, complete, unknown, count)
            complete[f.name] = [
                f.kind.from_hash(value) if own is None else own
                for own, value in zip(complete[f.name], hashes, strict=True)
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


def wire_value(f: Field, value: Any) -> Any:
    """As the decoder of a whole message takes it."""
    if isinstance(value, dict) and value.keys() == {"__type__", "__value__"}:
        value = value["__value__"]
    # msgspec takes the text null for no value, in all fields but texts; so does this.
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
    """A dataset's stored values for what rows leave out; raises `InvalidMessage`."""
    if not isinstance(defaults, Mapping):
        raise InvalidMessage(Reason.of("defaults: expected an object, got {}", shown(defaults)))
    try:
        return _encoded_defaults(dataset, json.dumps(dict(defaults), default=str).encode()) if defaults else {}
    except (TypeError, RecursionError) as error:
        raise InvalidMessage(Reason.of("defaults: {} is not JSON", shown(defaults))) from error
    except ValueError as error:
        raise error if isinstance(error, InvalidMessage) else InvalidMessage(Reason.of("defaults: not JSON")) from error
