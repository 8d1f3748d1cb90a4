"""A dataset's fields: under which names a message may send a column, and what one value must be.

Follows from the declaration in `datasets`; what a value of a kind is stands in `kinds`.
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
    """What is known of a column."""

    name: str
    names: tuple[str, ...]
    rule: Rule
    kind: Kind
    key: bool
    #: A row without it is rejected.
    required: bool

    def checked(self, value: Any) -> Any:
        """One value as `kind.finish` takes it; raises `WrongValue`, which names field, value and remedy."""
        try:
            if isinstance(value, Decimal | date | UUID) and not isinstance(value, datetime):
                value = str(value)  # Celery's own JSON decodes them
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
        """Whether fields that the dataset does not know have a use: kept in a column, or told apart by a hash."""
        return any(f.rule.keeps_unknown or "*" in f.rule.content_hash for f in self)


@cache
def fields_of(dataset: Dataset) -> Fields:
    """The dataset's fields."""
    return Fields(_field_of(column) for column in dataset.columns)


def _field_of(column: Any) -> Field:
    rule: Rule = column.info["rule"]
    return Field(
        name=str(column.name),  # msgspec takes no subclass of str, such as SQLAlchemy's names
        names=(str(column.name), *rule.aliases),
        rule=rule,
        kind=kind_of(column),
        key=column.primary_key,
        required=not (column.nullable or rule.content_hash or rule.enqueued_at),
    )
