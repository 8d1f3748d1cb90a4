"""A dataset's fields: the names under which a message may send a column, and the check of a single value.

The fields follow from the declaration in `datasets`. `kinds` says what values each kind of column takes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import msgspec

from market_data_store.datasets import Dataset, Rule
from market_data_store.wire.hashes import OCCURRENCE
from market_data_store.wire.kind import Kind
from market_data_store.wire.kinds import kind_of
from market_data_store.wire.reasons import WrongValue
from market_data_store.wire.text import name_of

#: Texts that stand for no value where a number, a time or the like is optional, in lower case.
NO_VALUES = ("nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "nat", "<na>")


def is_not_finite(value: Any) -> bool:
    """Return whether a value is NaN or an infinity."""
    if isinstance(value, Decimal):
        return not value.is_finite()
    return isinstance(value, float) and not math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Field:
    """A column as messages see it."""

    name: str
    names: tuple[str, ...]
    rule: Rule
    kind: Kind
    key: bool
    #: A row without it is rejected.
    required: bool

    def is_missing(self, value: Any) -> bool:
        """Return whether a value stands for none, as NaN and blank texts do in an optional field."""
        if isinstance(value, str):
            if not self.kind.is_text and value.lower() == "null":  # so msgspec reads it, in required fields too
                return True
            text = name_of(value).lower()
            return not self.required and (not text or (not self.kind.is_text and text in NO_VALUES))
        return not self.required and is_not_finite(value)

    def takes(self, value: Any) -> bool:
        """Return whether `checked` takes a value."""
        try:
            self.checked(value)
        except WrongValue:
            return False
        return True

    def checked(self, value: Any) -> Any:
        """Decode one value for `kind.finish`; raises `WrongValue`, which names field, value and remedy."""
        try:
            if not isinstance(value, dict):
                value = self.kind.prepare(value)
            if isinstance(value, Decimal | date | UUID) and not isinstance(value, datetime):
                value = str(value)  # Celery's JSON decoder makes these objects
            decoded = msgspec.convert(value, self.kind.wire, strict=False)
            if isinstance(decoded, str):
                decoded.encode()
                if "\0" in decoded:
                    raise ValueError("NUL")
            self.kind.finish([decoded])
        except WrongValue as error:
            raise WrongValue(error.reason.at(self.name)) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise WrongValue(self.kind.problem(value).at(self.name)) from error
        return decoded


class Fields(tuple[Field, ...]):
    """A dataset's fields in table order."""

    __slots__ = ()

    @property
    def keep_unknown(self) -> bool:
        """Whether a column keeps the fields that the dataset does not know."""
        return any(f.rule.keeps_unknown for f in self)


@dataclass(frozen=True, slots=True)
class Names:
    """A dataset's names of fields, beyond those of a single field."""

    #: Names that fill two columns: a `trade_id` is kept as it is, and in `seq`.
    shared: frozenset[str]
    #: Names that are not stored.
    ignored: frozenset[str]
    #: Every name that means something, and those that are ignored.
    known: frozenset[str]
    #: Whether a hash of a row's content covers the fields that version 0.4 did not know. Then equal rows without an
    #: id are told apart by their number, see `hashes`.
    numbered: bool
    #: The names that version 0.4 knew.
    first: frozenset[str]

    def hashed(self, name: str) -> bool:
        """Return whether a hash of a row's content counts a field of this name as unknown."""
        return self.numbered and name not in self.first


@cache
def fields_of(dataset: Dataset, time_unit: str | None = None) -> Fields:
    """Return the dataset's fields, in table order, for a message whose times have this unit."""
    return Fields(_field_of(column, time_unit) for column in dataset.columns)


@cache
def required_names(dataset: Dataset) -> frozenset[str]:
    """Return the names of fields that reject their row when their value is NaN; elsewhere NaN is null."""
    return frozenset(name for f in fields_of(dataset) if f.required for name in f.names)


@cache
def exact_names(dataset: Dataset) -> frozenset[str]:
    """Return the names of fields whose numbers are exact: of which no digit may be lost on the way."""
    return frozenset(name for f in fields_of(dataset) if f.kind.digits is not None for name in f.names)


@cache
def names_of(dataset: Dataset) -> Names:
    """Return what the dataset's names mean."""
    fields = fields_of(dataset)
    every = Counter(name for f in fields for name in f.names)
    numbered = any("*" in f.rule.content_hash for f in fields)
    ignored = dataset.ignored | {OCCURRENCE} if numbered else dataset.ignored
    return Names(
        shared=frozenset(name for name, number in every.items() if number > 1),
        ignored=ignored,
        known=ignored.union(every),
        numbered=numbered,
        first=frozenset(name for f in fields if not f.rule.later for name in f.names),
    )


def _field_of(column: Any, time_unit: str | None) -> Field:
    rule: Rule = column.info["rule"]
    return Field(
        name=str(column.name),  # msgspec rejects subclasses of str, such as SQLAlchemy's names
        names=(str(column.name), *rule.aliases),
        rule=rule,
        kind=kind_of(column, time_unit),
        key=column.primary_key,
        required=not (column.nullable or rule.content_hash or rule.enqueued_at),
    )
