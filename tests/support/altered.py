"""A dataset's table as its owner has altered it: one column of another type, and what becomes of every value then."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from market_data_store.datasets import Dataset
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.statements import types_of
from market_data_store.postgres.upsert import FEW_ROWS
from market_data_store.postgres.writer import Writer
from market_data_store.wire.fields import Field, fields_of
from support.databases import Connection
from support.writing import AT, Row, message, written

#: Other types than the declared one, those first that are likeliest.
TYPES = (
    "numeric(18,8)",
    "bigint",
    "real",
    "numeric(10,2)",
    "varchar(8)",
    "integer",
    "text",
    "numeric",
    "timestamptz(0)",
    "timestamp",
    "date",
    "smallint",
    "double precision",
    "character(10)",
    "jsonb",
    "json",
    "boolean",
    "timestamptz",
    "varchar",
    "altered_enum",
    "citext",
    "text[]",
    "varchar(4)[]",
    "altered_domain",
    "uuid",
    "bytea",
    "interval",
    "money",
    "name",
    '"char"',
    "bit(8)",
    "time",
    "inet",
    "oid",
)
_PREPARE = """
    CREATE EXTENSION IF NOT EXISTS citext;
    CREATE TYPE altered_enum AS ENUM ('AAPL', 'buy', 'C', '1');
    CREATE DOMAIN altered_domain AS numeric(12,4) CHECK (VALUE < 5000)
"""
#: By declared type, what is sent. Some of it fits into some of the types.
_VALUES: dict[str, tuple[Any, ...]] = {
    "text": ("AAPL", "buy", "BUY", "AAPL and a long name", "É😀", "7"),
    "float8": (1000.0, 1.5, 1.005, 0.1, 0.1 + 0.2, -2.25, 1e300, 4e-320, 2.0**53 + 2, 2.0**63, 100_000.0, 0.0),
    "int8": (0, 1, -1, 40_000, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**62),
    "int4": (0, 1, 7, 999),
    "bool": (True, False),
    "timestamptz": (
        "2024-01-02T00:00:00+00:00",
        "2024-01-02T14:30:00+00:00",
        "2024-01-02T14:30:00.5+00:00",
        "2024-07-02T23:59:59.999999+00:00",
    ),
    "date": ("2024-01-19", "2024-07-01"),
    "jsonb": ({"a": 1}, {"b": [1.5, None, "x"]}, {}),
    "text[]": (["a"], ["a", "long enough"], [], ["x,y", '"']),
}
_OTHERS: Row = {
    **dict.fromkeys(("open", "high", "low", "close", "price", "strike", "seq"), 1),
    **{"provider": "p", "symbol": "s", "interval": "1m", "id": "i", "name": "n", "title": "t"},
    **{"option_type": "C", "expiry": "2024-01-19"},
}


def prepare(database: Connection) -> None:
    """Make the types of `TYPES` that Postgres does not have."""
    database.execute(_PREPARE)


@contextmanager
def altered(database: Connection, dataset: Dataset, column: str, type_: str) -> Iterator[None]:
    """The dataset's table with a column of another type, for the length of a block."""
    table = dataset.table.name
    database.execute(f"ALTER TABLE {table} RENAME TO declared; CREATE TABLE {table} (LIKE declared INCLUDING ALL)")
    try:
        database.execute(f'ALTER TABLE {table} ALTER "{column}" TYPE {type_} USING NULL')
        yield
    finally:
        database.execute(f"DROP TABLE {table}; ALTER TABLE declared RENAME TO {table}")


def rows_of(dataset: Dataset, column: str, count: int) -> list[Row]:
    """Complete rows in which the column takes its values in turn; no two have the same key."""
    field = next(f for f in fields_of(dataset) if f.name == column)
    values = ("C", "P") if field.rule.letters else _VALUES[types_of(dataset)[column]]
    if field.rule.within:
        values = (*field.rule.within, 7)
    sent = []
    for n in range(count):
        row = {f.name: _OTHERS[f.name] for f in fields_of(dataset) if f.name in _OTHERS}
        row |= {"ts": (AT + timedelta(minutes=n)).isoformat(), column: values[n % len(values)]}
        sent.append(row | ({"symbol": f"s{n}"} if column == "provider" else {"provider": f"p{n}"}))
    return sent


def problem_with(
    writer: Writer, database: Connection, dataset: Dataset, column: str, type_: str, *, count: int
) -> str | None:
    """Write rows into the altered table: new, again, and changed. What is wrong then, or None.

    The stored value is the one that was sent, or there is a letter that names column and type, or nothing was stored
    and the error names them.
    """
    try:
        with altered(database, dataset, column, type_):
            problems = _problems(writer, database, dataset, column, count)
    except psycopg.errors.UndefinedObject:  # an index has no such type
        return None
    return f"{dataset.name}.{column} as {type_}: {problems}" if problems else None


def _problems(writer: Writer, database: Connection, dataset: Dataset, column: str, count: int) -> list[str]:
    name = dataset.name
    sent = rows_of(dataset, column, count)
    try:
        first = written(writer, message(sent, name=name), name=name)
    except DatasetUnavailable as held:
        problems = [] if f"{dataset.table.name}.{column} is " in held.reason else [f"the reason is {held.reason}"]
        return problems + [f"stored {rows}" for rows in stored(database, dataset)]
    refused = {rejection.position: rejection.reason for rejection in first.rejections[0]}
    # Of a value that a domain's CHECK refuses, Postgres names the domain.
    named = (f"{column}: ", "Postgres refuses the row: value for domain altered_domain ")
    problems = [f"reason {reason}" for reason in refused.values() if not reason.startswith(named)]
    kept = [row for n, row in enumerate(sent) if n not in refused]
    problems += differences(database, dataset, kept)
    again = written(writer, message(sent, name=name, at=1), name=name).counts[0]
    if (again.unchanged, again.rejected) != (len(kept), len(refused)):
        problems.append(f"sent again: {again}")
    other = next((f for f in dataset.values if f != column and types_of(dataset)[f] == "float8"), None)
    if other is not None:
        changed = [row | {other: 3.5} for row in sent]
        last = written(writer, message(changed, name=name, at=2), name=name).counts[0]
        if (last.written, last.rejected) != (len(kept), len(refused)):
            problems.append(f"changed: {last}")
        problems += differences(database, dataset, [row | {other: 3.5} for row in kept])
    return problems


def differences(database: Connection, dataset: Dataset, rows: list[Row]) -> list[str]:
    """What is stored and was not sent, and the other way round."""
    known = fields_of(dataset)
    found = stored(database, dataset)
    expected = [tuple(_expected(f, row.get(f.name)) for f in known) for row in rows]
    missing = [f"not stored {row}" for row in expected if row not in found]
    return missing + [f"not sent {row}" for row in found if row not in expected]


def stored(database: Connection, dataset: Dataset) -> list[tuple[Any, ...]]:
    """The dataset's rows, with values in the form in which they can be compared to what was sent."""
    names = [str(column.name) for column in dataset.columns]
    columns = ", ".join(f'"{name}", pg_typeof("{name}")::text' for name in names)
    found = database.execute(f"SELECT {columns} FROM {dataset.table.name}").fetchall()
    declared = [types_of(dataset)[name] for name in names]
    return [tuple(map(_plain, row[::2], row[1::2], declared)) for row in found]


def _plain(value: Any, type_: str, declared: str) -> Any:
    if type_ == "real" and value is not None:
        return struct.unpack("f", struct.pack("f", value))[0]  # psycopg reads the shortest text
    if type_ == "character":
        return None if value is None else value.rstrip(" ")
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, Decimal) and declared == "float8":
        return float(value)
    return value


def _expected(f: Field, value: Any) -> Any:
    type_ = f.kind.copy_type
    if value is None:
        return None
    if type_ == "timestamptz":
        return datetime.fromisoformat(value)
    if type_ == "date":
        return date.fromisoformat(value)
    return value


SIZES = (12, FEW_ROWS + 10)
