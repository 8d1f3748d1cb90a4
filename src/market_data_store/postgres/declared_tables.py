"""Makes the tables of declared datasets what their declarations say, as far as that loses nothing.

A table that is missing is created. One that is there is adopted: what a column lacks is added, as long as the table's
other users need not care: a nullable column, a wider text or number, a null that is allowed. Everything else is refused
with what to do. Nothing is dropped: an older declaration may be at work beside a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.datasets.registry import span_of
from market_data_store.errors import DatasetUnavailable, MigrationFailed
from market_data_store.postgres.casts import TYPE_NAMES, StoredType
from market_data_store.postgres.connection import connect, first_line
from market_data_store.postgres.found import look
from market_data_store.postgres.statements import digits_of, types_of
from market_data_store.postgres.tables import ADVISORY_LOCK
from market_data_store.postgres.transactions import transaction

T = TypeVar("T")

#: How often a table is tried that somebody else has locked, or a migration that another process does.
_TRIES = 6
_BUSY = ("55P03", "40P01")
_EXISTING: LiteralString = """
    SELECT relkind::text, attname::text, format_type(atttypid, atttypmod), typname::text, atttypmod, attnotnull,
           atthasdef OR attidentity <> ''
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    JOIN pg_type ON pg_type.oid = atttypid
    WHERE pg_class.oid = to_regclass(%s)
"""
_LOCK: LiteralString = "SELECT pg_advisory_xact_lock(%s)"
_CREATE: LiteralString = "CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))"
_PARTITIONED: LiteralString = " PARTITION BY RANGE (ts)"
_ALTER: LiteralString = "ALTER TABLE {table} {action}"
#: Older than any message, so that the next one wins; and the table's other users need not give it.
_NEVER: LiteralString = "timestamp with time zone NOT NULL DEFAULT '1970-01-01 00:00:00+00'"
#: What ALTER TABLE changes.
_TABLES = ("r", "p")


class Step(NamedTuple):
    """A statement that is due, and what people call it."""

    what: str
    statement: sql.Composed


class _Column(NamedTuple):
    type: str
    stored: StoredType
    is_required: bool
    #: Whether an INSERT may leave it out, although it is required.
    has_default: bool


class _Refused(Exception):
    """The declaration and the table do not fit; with one line."""


def upgrade_tables(url: str, datasets: Iterable[Dataset], say: Callable[[str], None]) -> None:
    """Do what is due, each dataset in its own transaction; `say` gets a line for each step.

    Safe to call again, and in several processes at once. Raises `DatabaseUnavailable`, and `MigrationFailed`, which
    names each dataset that was refused; the others are done.
    """
    wrong: list[str] = []
    with connect(url) as connection:
        for dataset in datasets:
            try:
                for step in _upgraded(connection, dataset):
                    say(f"{dataset.name}: {step.what}")
            except (_Refused, psycopg.Error) as error:
                reason = first_line(error) if isinstance(error, psycopg.Error) else error
                wrong.append(f"{dataset.name}: {reason}")
    if wrong:
        raise MigrationFailed("; ".join(wrong))


def due(connection: psycopg.Connection[Any], datasets: Iterable[Dataset]) -> Iterator[str]:
    """Yield a line for each step that is due, and for each dataset that would be refused."""
    for dataset in datasets:
        try:
            yield from (f"{dataset.name}: {step.what}" for step in _steps(connection, dataset))
        except _Refused as error:
            yield f"{dataset.name}: {error}"


def migrating(connection: psycopg.Connection[Any], act: Callable[[], T]) -> T:
    """Run `act` in a transaction under the lock of migrations, again if a table is locked; raises psycopg's errors."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with transaction(connection):
                connection.execute(_LOCK, [ADVISORY_LOCK])
                return act()
        except psycopg.OperationalError as error:
            if error.sqlstate not in _BUSY or not tries_left:
                raise
    raise AssertionError  # never: the last try returns or raises


def _upgraded(connection: psycopg.Connection[Any], dataset: Dataset) -> list[Step]:
    def upgrade() -> list[Step]:
        steps = _steps(connection, dataset)
        for step in steps:
            connection.execute(step.statement)
        look(connection, dataset)
        return steps

    try:
        return migrating(connection, upgrade)
    except DatasetUnavailable as error:
        raise _Refused(f"{error.reason}; {_remedy(dataset, error.sqlstate)}") from error


def _remedy(dataset: Dataset, sqlstate: str | None) -> str:
    if sqlstate == "42P10":
        return f"create it: CREATE UNIQUE INDEX ON {dataset.table.name} ({', '.join(dataset.key)})"
    return "alter the table, or declare another one with `table`"


def _steps(connection: psycopg.Connection[Any], dataset: Dataset) -> list[Step]:
    """Return what is due; raises `_Refused`."""
    found = connection.execute(_EXISTING, [sql.Identifier(dataset.table.name).as_string(None)]).fetchall()
    if not found:
        return [creation(dataset)]
    kind = found[0][0]
    columns = {
        name: _Column(type_, StoredType(type_, base, modifier), required, default)
        for _, name, type_, base, modifier, required, default in found
    }
    foreign = [name for name, each in columns.items() if each.is_required and not each.has_default]
    unknown = [name for name in foreign if name not in types_of(dataset)]
    if unknown:
        raise _Refused(
            f"the table has {unknown[0]}, which must not be null and is not declared; declare it, or allow null: "
            f"ALTER TABLE {dataset.table.name} ALTER COLUMN {unknown[0]} DROP NOT NULL"
        )
    return list(_changes(dataset, columns)) if kind in _TABLES else []


def creation(dataset: Dataset) -> Step:
    """Return the step that creates the dataset's table."""
    definitions = [
        sql.SQL(f"{{}} {_type(dataset, name)}{'' if _is_nullable(dataset, name) else ' NOT NULL'}").format(
            sql.Identifier(name)
        )
        for name in types_of(dataset)
    ]
    statement = sql.SQL(_CREATE).format(
        table=sql.Identifier(dataset.table.name),
        columns=sql.SQL(", ").join(definitions),
        key=sql.SQL(", ").join(map(sql.Identifier, dataset.key)),
    )
    span = span_of(dataset)
    if span is None:
        return Step(f"create the table {dataset.table.name}", statement)
    statement += sql.SQL(_PARTITIONED)
    return Step(f"create the table {dataset.table.name}, partitioned by {span.value}", statement)


def _changes(dataset: Dataset, columns: dict[str, _Column]) -> Iterator[Step]:
    for name in types_of(dataset):
        column = columns.get(name)
        if column is None:
            yield _addition(dataset, name)
            continue
        wider = _wider(dataset, name, column)
        if wider is not None:
            what = f"widen {name} from {column.type} to {wider}"
            yield _alteration(dataset, what, f"ALTER COLUMN {{}} TYPE {wider}", name)
        if column.is_required and _is_nullable(dataset, name):
            yield _alteration(dataset, f"allow null in {name}", "ALTER COLUMN {} DROP NOT NULL", name)


def _addition(dataset: Dataset, name: str) -> Step:
    if name == ENQUEUED_AT:
        return _alteration(dataset, f"add {name}", f"ADD COLUMN {{}} {_NEVER}", name)
    if not _is_nullable(dataset, name):
        what = "is in the key" if name in dataset.key else "is required"
        raise _Refused(
            f"{name} {what}, and the rows of {dataset.table.name} have no such column; declare it as one that is not "
            "required and outside of the key, or add it to the table with a value for each row"
        )
    type_ = _type(dataset, name)
    return _alteration(dataset, f"add {name} ({type_})", f"ADD COLUMN {{}} {type_}", name)


def _alteration(dataset: Dataset, what: str, action: str, name: str) -> Step:
    # The action is made of this module's words and of types, which are no texts of users.
    composed = sql.SQL(action).format(sql.Identifier(name))
    statement = sql.SQL(_ALTER).format(table=sql.Identifier(dataset.table.name), action=composed)
    return Step(f"{what} in the table {dataset.table.name}", statement)


def _wider(dataset: Dataset, name: str, column: _Column) -> str | None:
    """Return the type that holds what the column holds, and what is declared; None if it does, or none of a kind."""
    stored, digits = column.stored, digits_of(dataset).get(name)
    if digits is not None and stored.kind == "numeric" and not stored.holds_digits(*digits):
        (precision, scale), (own_precision, own_scale) = digits, stored.digits
        after = max(scale, own_scale)
        return f"numeric({max(precision - scale, own_precision - own_scale) + after},{after})"
    if types_of(dataset)[name] == "text" and stored.kind == "varchar" and stored.modifier >= 0:
        return _type(dataset, name)
    return None


def _is_nullable(dataset: Dataset, name: str) -> bool:
    return bool(dataset.table.columns[name].nullable)


def _type(dataset: Dataset, name: str) -> str:
    type_, digits = types_of(dataset)[name], digits_of(dataset).get(name)
    if digits is not None:
        return f"numeric({digits[0]},{digits[1]})"
    return 'text COLLATE "C"' if type_ == "text" else TYPE_NAMES[type_]
