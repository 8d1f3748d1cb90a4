"""A column's side of the wire: what a message may hold for it, how that is stored, and what is said when it is wrong.

Follows from a column's declaration in `datasets`. A column is finished as a whole, which is several times faster than
value by value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, DateTime, Text
from sqlalchemy.dialects.postgresql import DATE, JSONB

from market_data_store.datasets import MAX_KEY_LENGTH, MAX_TEXT_LENGTH, Dataset, Rule
from market_data_store.wire.moments import EPOCH, EPOCH_DATE, MICROSECOND, microseconds
from market_data_store.wire.reasons import (
    date_problem,
    integer_problem,
    json_problem,
    letters_problem,
    number_problem,
    text_problem,
    ts_problem,
)

_FIRST_TS = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
_LAST_TS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND

#: A number beyond 64 bits is a mistake in any field, also in those that are stored as double precision. NaN fails too.
_Number = Annotated[float, msgspec.Meta(ge=-(2.0**63), le=2.0**63)]
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


#: NUL as JSON writes it, behind an even number of backslashes; Postgres has it in no text.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


_Finish = Callable[[list[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Field:
    """What is known of a column."""

    name: str
    names: tuple[str, ...]
    rule: Rule
    key: bool
    #: A row without it is rejected.
    required: bool
    #: Whether the text `null` is a text, and not msgspec's idea of no value.
    is_text: bool
    #: What msgspec accepts.
    wire: Any
    #: From decoded values to stored ones, a column at a time; raises ValueError.
    finish: _Finish
    problem: Callable[[Any], str]

    def checked(self, value: Any) -> Any:
        """One value as `finish` takes it; the ValueError's text names field, value and remedy."""
        try:
            if isinstance(value, Decimal | date | UUID) and not isinstance(value, datetime):
                value = str(value)  # Celery's own JSON decodes them
            elif isinstance(value, datetime) and self.wire is str:
                value = value.isoformat()
            elif isinstance(value, str) and self.wire is datetime:
                value = _moment(value)
            elif isinstance(value, dict):
                json.dumps(value, allow_nan=False)  # msgspec would write null
            decoded = msgspec.convert(value, self.wire, strict=False)
            if isinstance(decoded, str):
                decoded.encode()
                if "\0" in decoded:
                    raise ValueError("NUL")
            self.finish([decoded])
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{self.name}: {self.problem(value)}") from error
        return decoded


def _moment(text: str) -> datetime:
    try:
        return msgspec.convert(text, datetime, strict=False)
    except ValueError:  # Python reads more of ISO 8601: a date alone, a time without seconds
        return datetime.fromisoformat(text)


def _finish_ts(column: list[Any]) -> list[Any]:
    try:
        stored = [(moment - EPOCH) // MICROSECOND for moment in column]
    except TypeError:  # some are naive
        stored = [microseconds(moment) for moment in column]
    if stored and (min(stored) < _FIRST_TS or max(stored) > _LAST_TS):
        raise ValueError("out of range")
    return stored


def _finish_date(column: list[Any]) -> list[Any]:
    # Core's expiry is a datetime at midnight.
    dates = (date.fromisoformat(v) if len(v) == 10 else datetime.fromisoformat(v).date() for v in column)
    return [(value - EPOCH_DATE).days for value in dates]


def _finish_upper(column: list[Any]) -> list[Any]:
    return [value and value.upper() for value in column]


def _finish_letters(letters: str) -> _Finish:
    words = {"C": ("C", "CALL"), "P": ("P", "PUT")}
    stored = {word: letter for letter in letters for word in words[letter]}

    def finish(column: list[Any]) -> list[Any]:
        try:
            return [stored[value.upper()] for value in column]
        except KeyError as error:
            raise ValueError("unknown") from error

    return finish


def _finish_sequence(column: list[Any]) -> list[Any]:
    return [_sequence(value) if isinstance(value, str) else value for value in column]


def has_nul(text: bytes) -> bool:
    """Whether JSON text holds a NUL character."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def _sequence(value: str) -> int:
    # A trade id of digits is itself, any other is hashed.
    if value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return hash63(value.encode())


def hash63(content: bytes) -> int:
    """A hash that fits a bigint and is never negative."""
    return int.from_bytes(blake2b(content, digest_size=8).digest()) >> 1


def _finish_json(column: list[Any]) -> list[Any]:
    stored = [None if value is None else msgspec.json.encode(value) for value in column]
    if any(value is not None and (len(value) > MAX_TEXT_LENGTH or has_nul(value)) for value in stored):
        raise ValueError("too long or with NUL")
    return stored


def _field_of(column: Any) -> Field:
    rule: Rule = column.info["rule"]
    wire: Any
    finish: _Finish = list
    if isinstance(column.type, Text):
        limit = MAX_KEY_LENGTH if column.primary_key else MAX_TEXT_LENGTH
        wire = Annotated[str, msgspec.Meta(min_length=1, max_length=limit)]
        problem = text_problem(limit)
        if rule.upper:
            finish = _finish_upper
        if rule.letters:
            finish, problem = _finish_letters(rule.letters), letters_problem(rule.letters)
    elif isinstance(column.type, DateTime):
        wire, finish, problem = datetime, _finish_ts, ts_problem
    elif isinstance(column.type, DATE):
        wire, finish, problem = str, _finish_date, date_problem
    elif isinstance(column.type, JSONB):
        wire, finish, problem = dict[str, Any], _finish_json, json_problem
    elif isinstance(column.type, BigInteger) and rule.content_hash:
        wire, finish, problem = (
            _Integer | Annotated[str, msgspec.Meta(min_length=1)],
            _finish_sequence,
            integer_problem,
        )
    elif isinstance(column.type, BigInteger):
        wire, problem = _Integer, integer_problem
    else:
        wire, problem = _Number, number_problem
    return Field(
        name=str(column.name),  # msgspec takes no subclass of str, such as SQLAlchemy's names
        names=(str(column.name), *rule.aliases),
        rule=rule,
        key=column.primary_key,
        required=not (column.nullable or rule.content_hash or rule.enqueued_at),
        is_text=isinstance(column.type, Text) or bool(rule.content_hash),
        wire=wire,
        finish=finish,
        problem=problem,
    )


class Fields(tuple[Field, ...]):
    """A dataset's fields in table order."""

    __slots__ = ()

    @property
    def keeps_unknown(self) -> bool:
        """Whether fields that the dataset does not know have a use: kept in `metadata`, or told apart by a hash."""
        return any(f.name == "metadata" or "*" in f.rule.content_hash for f in self)


@cache
def fields_of(dataset: Dataset) -> Fields:
    """The dataset's fields."""
    return Fields(_field_of(column) for column in dataset.columns)
