"""A dataset's fields: the names under which a message may send a column, and the check of a single value.

The fields follow from the declaration in `datasets`. `kinds` says what values each kind of column takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

import msgspec

from market_data_store.datasets import Dataset, Rule
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
            elif isinstance(value, dict):
                json.dumps(value, allow_nan=False)  # msgspec would write null
            else:
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
    def use_unknown(self) -> bool:
        """Whether the fields that the dataset does not know are used: kept in a column, or part of a hash."""
        return any(f.rule.keeps_unknown or "*" in f.rule.content_hash for f in self)


@cache
def fields_of(dataset: Dataset) -> Fields:
    """Return the dataset's fields, in table order."""
    return Fields(_field_of(column) for column in dataset.columns)


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
