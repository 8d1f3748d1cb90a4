"""Datasets with the columns that migrations added for fields that they did not know.

A value that such a column cannot hold stays in `metadata`: nobody has declared the column, so it rejects no row.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from sqlalchemy import Column, MetaData, Table, Text

from market_data_store.datasets.declaration import Dataset, Rule
from market_data_store.datasets.declaring import IDENTIFIER, RESERVED_COLUMNS
from market_data_store.datasets.kinds import type_of


class AddedColumn(NamedTuple):
    """A column that a migration added to a dataset's table."""

    name: str
    #: The name under which rows have it.
    field: str
    #: As a declaration has it.
    kind: str


@cache
def with_columns(dataset: Dataset, columns: tuple[AddedColumn, ...]) -> Dataset:
    """Return the dataset with these columns, but for those whose names it has by now."""
    known = names_in(dataset)
    added = [each for each in columns if not {each.name, each.field} & known]
    if not added:
        return dataset
    own = [column._copy() for column in dataset.table.columns]  # SQLAlchemy has no other way
    return replace(dataset, table=Table(dataset.table.name, MetaData(), *own, *map(_column, added)))


@cache
def without_added(dataset: Dataset) -> Dataset:
    """Return the dataset without columns that migrations added."""
    own = [c for c in dataset.table.columns if not c.info.get("rule", Rule()).guessed]
    if len(own) == len(dataset.table.columns):
        return dataset
    return replace(dataset, table=Table(dataset.table.name, MetaData(), *(column._copy() for column in own)))


def names_in(dataset: Dataset) -> set[str]:
    """Return every name that rows of the dataset may have, and those of its table."""
    rules = [(column.name, column.info.get("rule", Rule())) for column in dataset.table.columns]
    return {name for own, rule in rules for name in (own, *rule.aliases)} | set(dataset.ignored)


def column_name(field: str, taken: Collection[str]) -> str | None:
    """Return a name for the column of a field: its own, or in lower case with _; None if there is no good one."""
    name = re.sub(r"[^a-z0-9_]", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", field).lower())
    return name if IDENTIFIER.fullmatch(name) and name not in RESERVED_COLUMNS and name not in taken else None


def _column(added: AddedColumn) -> Column[object]:
    type_ = type_of(added.kind)
    aliases = () if added.field == added.name else (added.field,)
    # A hash of a row's content counts the field as it did when it was unknown, so that keys stay.
    rule = Rule(aliases=aliases, numbered=isinstance(type_, Text), later=True, guessed=True)
    return Column(added.name, type_, nullable=True, info={"rule": rule})
