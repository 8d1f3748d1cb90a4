"""Encodes a producer's rows, whatever their type, as the JSON that a worker reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from market_data_store.datasets import Dataset
from market_data_store.errors import InvalidMessage, InvalidRow
from market_data_store.producer.occurrences import Occurrences
from market_data_store.wire.fields import names_of, required_names
from market_data_store.wire.hashes import OCCURRENCE
from market_data_store.wire.occurrences import keys_of
from market_data_store.wire.rows import first_reject, read_rows
from market_data_store.wire.text import with_number


def listed(rows: Iterable[Any]) -> list[Any]:
    """The rows of a call as a list; raises `InvalidMessage` for a single row or a value that cannot be iterated."""
    if isinstance(rows, list):
        return rows
    if isinstance(rows, str | bytes | Mapping | BaseModel) or is_dataclass(rows) or not isinstance(rows, Iterable):
        raise InvalidMessage(f"rows: expected a list of objects, got {str(rows)[:80]!r}")
    return list(rows)


def encode_defaults(dataset: Dataset, defaults: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The defaults of a call as its messages have them, and the same as JSON; raises `InvalidMessage`."""
    standard = dict(defaults)
    if names_of(dataset).numbered:
        standard[OCCURRENCE] = 1  # a worker must not count rows of different calls
    try:
        return standard, msgspec.json.encode(standard, enc_hook=_plain, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"defaults: expected an object of JSON values: {error}") from error


def encode(rows: list[Any], start: int) -> bytes:
    """The rows as a JSON list; raises `InvalidRow` for a row that cannot be JSON. `start` is the first row's index."""
    try:
        return msgspec.json.encode(rows, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        if len(rows) > 1:  # find the one
            for position, row in enumerate(rows):
                encode([row], start + position)
        raise InvalidRow(f"row: cannot be sent as JSON: {error}", position=start) from error


def _plain(value: Any) -> Any:
    """Values that msgspec does not encode itself: pydantic models, mappings, the scalars of numpy and pandas."""
    type_name = type(value).__name__
    if type_name in ("NaTType", "NAType"):
        return None
    if isinstance(value, datetime):  # pandas.Timestamp, with its nanoseconds
        return value.isoformat()
    if type_name == "datetime64":  # its item is a number where it has nanoseconds
        return None if str(value) == "NaT" else str(value)
    if isinstance(value, BaseModel):
        return vars(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def check_rows(dataset: Dataset, rows: list[Any], text: bytes, defaults: dict[str, Any], start: int) -> None:
    """Raise `InvalidRow` for the first row that the worker would reject."""
    # NaN becomes null in JSON. To tell it from a value that was left out, look at the rows themselves.
    required = required_names(dataset)
    given = _objects(rows) if b"null" in text and any(_has_non_finite(row, required) for row in rows) else text
    reject = first_reject(dataset, given, defaults)
    if reject is not None:
        raise InvalidRow(reject.reason, position=start + reject.position)


def numbered(
    dataset: Dataset, rows: list[Any], text: bytes, defaults: dict[str, Any], occurrences: Occurrences
) -> bytes:
    """Return the rows' JSON list with the numbers of those that equal earlier rows and have no id."""
    try:
        keys = keys_of(dataset, read_rows(dataset, text, defaults))
    except InvalidMessage:  # unchecked defaults may be wrong: the worker says so
        return text
    numbers = occurrences.numbers(keys)
    if all(number == 1 for number in numbers):
        return text
    return encode(
        [row if number == 1 else _numbered(row, number) for row, number in zip(rows, numbers, strict=True)], 0
    )


def _numbered(row: Any, number: int) -> msgspec.Raw:
    return msgspec.Raw(with_number(encode([row], 0)[1:-1].decode(), OCCURRENCE, number).encode())


def _objects(rows: list[Any]) -> list[Any]:
    return [msgspec.to_builtins(row, enc_hook=_plain) for row in rows]


def _has_non_finite(row: Any, names: frozenset[str]) -> bool:
    fields = row if isinstance(row, Mapping) else _fields_of(row)
    return any(
        isinstance(value, float) and not math.isfinite(value) and name in names for name, value in fields.items()
    )


def _fields_of(row: Any) -> dict[str, Any]:
    if is_dataclass(row) and not isinstance(row, type):
        return asdict(row)
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    return dict(row) if isinstance(row, Mapping) else dict(getattr(row, "__dict__", {}))


def with_moment(row: Any, now: float) -> Any:
    """Stamp a snapshot that has no timestamp with the current time, in epoch seconds."""
    fields = _fields_of(row)
    if not fields or any(fields.get(name) is not None for name in ("ts", "timestamp", "time", "datetime")):
        return row
    return {**fields, "ts": datetime.fromtimestamp(now, UTC)}
