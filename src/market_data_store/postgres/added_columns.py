"""Adds columns for fields that datasets did not know, of what was seen, where their contract is `unknown = "add"`.

A column can hold every value that was seen. Where none can, the field stays in `metadata`, and a line says why. What
was kept in `metadata` before stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.datasets.declared import MAX_COLUMNS
from market_data_store.datasets.evolved import AddedColumn, column_name, names_in, with_columns
from market_data_store.datasets.kinds import sql_type
from market_data_store.errors import MigrationFailed
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.declared_tables import migrating
from market_data_store.postgres.found import stored_types
from market_data_store.postgres.unknown_fields import UnknownField, listed
from market_data_store.wire.seen import OTHERS, column_kind

#: Of the columns that are still there: their owner may have dropped one.
_READ: LiteralString = """
    SELECT dataset, relation, name, field, kind FROM added_columns
    WHERE EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass(quote_ident(relation)) AND attname = name AND NOT attisdropped
    )
    ORDER BY dataset, added_at, name
"""
_NOTE: LiteralString = """
    INSERT INTO added_columns (dataset, relation, name, field, kind) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (dataset, name) DO UPDATE
    SET relation = excluded.relation, field = excluded.field, kind = excluded.kind, added_at = now()
"""
_ADD: LiteralString = "ALTER TABLE {table} ADD COLUMN {name} {type}"

#: By dataset and table, the columns that were added.
Added = dict[tuple[str, str], tuple[AddedColumn, ...]]


class _Due(NamedTuple):
    columns: list[AddedColumn]
    #: A line for each field that gets no column.
    refused: list[str]


def read(connection: psycopg.Connection[Any]) -> Added:
    """Return all columns that were added; raises psycopg's errors."""
    found: Added = {}
    for dataset, relation, *column in connection.execute(_READ).fetchall():
        found[dataset, relation] = (*found.get((dataset, relation), ()), AddedColumn(*column))
    return found


def evolved(dataset: Dataset, added: Added) -> Dataset:
    """Return the dataset with its added columns."""
    return with_columns(dataset, added.get((dataset.name, dataset.table.name), ()))


def as_stored(connection: psycopg.Connection[Any], dataset: Dataset) -> Dataset:
    """Return the dataset with the columns that were added in this database; raises psycopg's errors.

    Without them where the database is not migrated yet, or the role may not see them.
    """
    try:
        with connection.transaction():
            return evolved(dataset, read(connection))
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return dataset


def add_columns(url: str, datasets: Iterable[Dataset], say: Callable[[str], None]) -> None:
    """Add what is due, each dataset in its own transaction; `say` gets a line for each column and each refusal.

    Raises `DatabaseUnavailable`, and `MigrationFailed`, which names each dataset whose table could not be altered.
    """
    wrong: list[str] = []
    with connect(url) as connection:
        for dataset in datasets:
            try:
                for line in migrating(connection, lambda dataset=dataset: _add(connection, dataset)):  # type: ignore[misc]
                    say(line)
            except psycopg.Error as error:
                wrong.append(f"{dataset.name}: {first_line(error)}")
    if wrong:
        raise MigrationFailed("; ".join(wrong))


def due_columns(connection: psycopg.Connection[Any], datasets: Iterable[Dataset]) -> Iterator[str]:
    """Yield a line for each column that is due; none where the database is not migrated yet."""
    for dataset in datasets:
        try:
            yield from (_line(dataset, each) for each in _due(connection, dataset).columns)
        except psycopg.errors.UndefinedTable:
            return


def _add(connection: psycopg.Connection[Any], dataset: Dataset) -> list[str]:
    found = _due(connection, dataset)
    for column in found.columns:
        # The type is one of this package's words.
        statement = sql.SQL(_ADD).format(
            table=sql.Identifier(dataset.table.name),
            name=sql.Identifier(column.name),
            type=sql.SQL(sql_type(column.kind)),
        )
        connection.execute(statement)
        connection.execute(_NOTE, [dataset.name, dataset.table.name, *column])
    return [*(_line(dataset, each) for each in found.columns), *found.refused]


def _line(dataset: Dataset, column: AddedColumn) -> str:
    of = "" if column.field == column.name else f" for {column.field!r}"
    return f"{dataset.name}: add {column.name} ({column.kind}){of} in the table {dataset.table.name}"


def _due(connection: psycopg.Connection[Any], dataset: Dataset) -> _Due:
    now = evolved(dataset, read(connection))
    known, taken = names_in(now), {*names_in(now), *stored_types(connection, dataset.table.name)}
    due, size = _Due([], []), len(now.columns)
    for seen in sorted(listed(connection, dataset.name), key=lambda seen: seen.first_at):
        if seen.name in known or seen.name == OTHERS:
            continue
        column = _column(seen, taken, is_full=size + len(due.columns) >= MAX_COLUMNS)
        if isinstance(column, str):
            due.refused.append(f"{dataset.name}: {seen.name[:80]!r} stays in metadata: {column}")
        else:
            due.columns.append(column)
            taken.add(column.name)
    return due


def _column(seen: UnknownField, taken: set[str], *, is_full: bool) -> AddedColumn | str:
    """Return the column for a field, or why it gets none."""
    kind = column_kind(seen.kinds)
    if kind is None:
        return f"no column holds {' and '.join(seen.kinds) or 'what was seen'}; send one kind, or declare it"
    name = column_name(seen.name, taken)
    if name is None:
        return "its name cannot be that of a new column; declare one with it as an alias"
    if is_full:
        return f"the dataset has {MAX_COLUMNS} columns, the most that it can have"
    return AddedColumn(name, seen.name, kind)
