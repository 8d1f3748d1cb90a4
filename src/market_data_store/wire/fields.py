"""A dataset's fields: the names under which a message may send a column, and the check of a single value.

The fields follow from the declaration in `datasets`. `kinds` says what values each kind of column takes.
"""

from __future__ import annotations

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
from market_data_store.wire.kinds import Kind, kind_of
from market_data_store.wire.reasons import WrongValue


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

    def checked(self, value: Any) -> Any:
        """Decode one value for `kind.finish`; raises `WrongValue`, which names field, value and remedy."""
        try:
            if isinstance(value, Decimal | date | UUID) and not isinstance(value, datetime):
                value = str(value)  # Celery's JSON decoder makes these objects
            elif not isinstance(value, dict):
                value = self.kind.prepare(value)
            decoded = msgspec.convert(value, self.kind.wire, strict=False)
            if isinstance(decoded, str):
                decoded.encode()
                if "\0" in decoded:
                    raise ValueError("NUL")
            self.kind.finish([decoded])
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
    #: Whether a hash of a row's content covers the fields that version 0.4.0 did not know. Then equal rows without an
    #: id are told apart by their number, see `hashes`.
    numbered: bool
    #: The names that version 0.4.0 knew.
    first: frozenset[str]

    def hashed(self, name: str) -> bool:
        """Return whether a hash of a row's content counts a field of this name as unknown."""
        return self.numbered and name not in self.first


@cache
def fields_of(dataset: Dataset) -> Fields:
    """Return the dataset's fields, in table order."""
    return Fields(_field_of(column) for column in dataset.columns)


@cache
def names_of(dataset: Dataset) -> Names:
    """Return what the dataset's names mean."""
    fields = fields_of(dataset)
    every = Counter(name for f in fields for name in f.names)
    numbered = any("*" in f.rule.content_hash for f in fields)
    return Names(
        shared=frozenset(name for name, number in every.items() if number > 1),
        ignored=dataset.ignored | {OCCURRENCE} if numbered else dataset.ignored,
        numbered=numbered,
        first=frozenset(name for f in fields if not f.rule.later for name in f.names),
    )


def _field_of(column: Any) -> Field:
    rule: Rule = column.info["rule"]
    return Field(
        name=str(column.name),  # msgspec rejects subclasses of str, such as SQLAlchemy's names
        names=(str(column.name), *rule.aliases),
        rule=rule,
        kind=kind_of(column),
        key=column.primary_key,
        required=not (column.nullable or rule.content_hash or rule.enqueued_at),
    )
