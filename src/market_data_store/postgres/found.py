"""The table that is there: what the writer may do with it, looked up under a lock that ALTER TABLE waits for.

An owner may alter his tables at any time. Postgres does not tell: a binary COPY stores the eight bytes of a double in a
bigint. So each transaction begins with a print of the table, in the round trip of its BEGIN; what was found out about a
table holds for the same print.

Types that differ from the declared ones are cast to, as far as `casts` knows an exact way. Otherwise, and where a
replay could not find its row, `DatasetUnavailable` says what is the matter. Columns that the store does not know are
left to their owner, defaults and all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.errors import DatasetUnavailable
from market_data_store.postgres.casts import TYPE_NAMES, Cast, StoredType, cast_of
from market_data_store.postgres.connection import first_line
from market_data_store.postgres.statements import Casts, Statements, digits_of, one_line, statements_of, types_of
from market_data_store.postgres.transactions import LOCK_WAIT_AGAIN_S, LOCK_WAIT_S, begin, ended

#: The lock is the one that the write takes anyway: whoever alters the table waits for it, and it waits for him. The
#: types of no rows cost 25 us, where asking pg_attribute costs 120. All of it costs 150 us a batch; the writer
#: takes 12 ms for 5,000 new rows.
_OPEN = """
    {begin};
    LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE;
    SELECT {columns} FROM {table} WHERE false;
    SELECT ARRAY(
        SELECT (indexrelid, indkey, indisvalid, indimmediate) FROM pg_index
        WHERE indrelid = {name}::regclass AND indisunique
    )::text
"""
#: What else a text of a double depends on, see `casts`.
_EXACT_TEXTS = "SET LOCAL extra_float_digits = 1"
_COLUMNS = """
    WITH RECURSIVE typed (attnum, oid, modifier) AS (
        SELECT attnum, atttypid, atttypmod
        FROM pg_attribute WHERE attrelid = to_regclass({name}) AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT attnum, typbasetype, typtypmod FROM typed JOIN pg_type USING (oid) WHERE typtype = 'd'
    )
    SELECT attname, format_type(atttypid, atttypmod), format_type(type.oid, modifier),
           CASE typtype WHEN 'e' THEN 'enum' ELSE typname END, modifier,
           typname <> 'citext' AND coalesce(collisdeterministic, true),
           attgenerated <> '' OR attidentity = 'a',
           relkind <> 'v' OR pg_column_is_updatable(attrelid, typed.attnum, false)
    FROM typed
    JOIN pg_type AS type USING (oid)
    JOIN pg_attribute ON attrelid = to_regclass({name}) AND pg_attribute.attnum = typed.attnum
    JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_collation ON pg_collation.oid = attcollation
    WHERE typtype <> 'd'
"""
#: An INSERT's ON CONFLICT needs such an index. Behind a view it is the other table's.
_TABLE = """
    SELECT relkind, row_security_active(oid), pg_relation_is_updatable(oid, false), EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = stored.oid AND indisunique AND indisvalid AND indimmediate
          AND indpred IS NULL AND indexprs IS NULL
          AND {key}::text[] = ARRAY(
              SELECT attname::text FROM pg_attribute
              WHERE attrelid = indrelid AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1]) ORDER BY attname
          )
    )
    FROM pg_class AS stored WHERE oid = {name}::regclass
"""
#: A trigger for each row, before an INSERT, may fill a column.
_UNFILLED = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass({name}) AND attnum > 0 AND NOT attisdropped AND attnotnull
      AND NOT atthasdef AND attidentity = '' AND attname <> ALL (%s)
      AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = attrelid AND NOT tgisinternal AND tgtype & 7 = 7)
    ORDER BY attnum
"""
#: INSERT and UPDATE, as pg_relation_is_updatable numbers them.
_WRITES = 8 | 4
#: By COPY's names, the kind of the declared types; a varchar without a limit has the same bytes as a text.
_KINDS = {"text[]": ("_text",), "float8[]": ("_float8",), "text": ("text", "varchar")}
#: In a line that says what is the matter, at most this many columns.
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset's table as it is."""

    statements: Statements
    #: Whether the bytes of the declared types may be copied straight into it.
    copies: bool


@dataclass(frozen=True, slots=True)
class _Column:
    #: As Postgres writes its type, that of a domain by its name.
    type: str
    stored: StoredType
    generated: bool
    updatable: bool

    @property
    def is_written(self) -> bool:
        """Whether it takes values."""
        return self.updatable and not self.generated


class _Unfit(Exception):
    """The table takes no rows; with an SQLSTATE and the reason."""


class Tables:
    """The tables that one connection has found."""

    def __init__(self) -> None:
        self._known: dict[Any, Table] = {}
        #: The datasets whose table was locked at the last try.
        self._locked: set[str] = set()

    @contextmanager
    def transaction(self, connection: psycopg.Connection[Any], dataset: Dataset) -> Iterator[Table]:
        """Open a transaction, as `transactions` does, in which the dataset's table stays as it is.

        Raises `DatasetUnavailable` if the table cannot take the dataset's rows as it is.
        """
        try:
            with ended(connection):
                yield self._opened(connection, dataset)
        except psycopg.Error as error:
            self.forget()
            if isinstance(error, psycopg.errors.LockNotAvailable):
                self._locked.add(dataset.name)
            raise
        self._locked.discard(dataset.name)

    def forget(self) -> None:
        """Look at each table anew: an error may come from what a print does not hold, such as the name of a type."""
        self._known.clear()

    def _opened(self, connection: psycopg.Connection[Any], dataset: Dataset) -> Table:
        try:
            wait_s = LOCK_WAIT_AGAIN_S if dataset.name in self._locked else LOCK_WAIT_S
            found = _print(connection.cursor(), dataset, wait_s)
        except psycopg.errors.UndefinedColumn:
            connection.rollback()
            look(connection, dataset)  # says which
            raise
        except psycopg.errors.WrongObjectType as error:  # a foreign table cannot be locked
            reason = f"{dataset.table.name} is not a table: {first_line(error)}"
            raise DatasetUnavailable(dataset.name, error.sqlstate, reason) from error
        table = self._known.get(found)
        if table is None:
            table = self._known[found] = look(connection, dataset)
        if table.statements.casts:
            connection.execute(_EXACT_TEXTS)
        return table


def _print(cursor: psycopg.Cursor[Any], dataset: Dataset, lock_wait_s: float) -> Any:
    """Open the transaction and return what is another value after the table was altered."""
    cursor.execute(_composed(_OPEN, dataset, lock_wait_s))
    for _ in range(3):  # from BEGIN over SET and LOCK
        cursor.nextset()
    result = cursor.pgresult
    columns = [
        (result.ftable(place), result.ftablecol(place), result.ftype(place), result.fmod(place))
        for place in range(result.nfields if result else 0)
        if result
    ]
    cursor.nextset()
    return dataset.name, *columns, *cursor.fetchall()


def look(connection: psycopg.Connection[Any], dataset: Dataset) -> Table:
    """Look at the dataset's table; raises `DatasetUnavailable` if it cannot take the dataset's rows as they are."""
    ((relation, secured, updatable, has_key),) = connection.execute(_composed(_TABLE, dataset)).fetchall()
    name = dataset.table.name
    if relation not in ("r", "p") and not (relation == "v" and updatable & _WRITES == _WRITES):
        what = "a view that takes no rows" if relation == "v" else "not a table"
        raise DatasetUnavailable(dataset.name, "42809", f"{name} is {what}; the store needs a table")
    casts = _casts(dataset, _columns(connection, dataset), types_of(dataset), writes=True)
    if relation != "v" and not has_key:
        reason = f"{name} has no unique index on ({', '.join(dataset.key)}), by which the store finds its rows"
        raise DatasetUnavailable(dataset.name, "42P10", reason)
    return Table(statements_of(dataset, casts), copies=not casts and relation != "v" and not secured)


def check_types(connection: psycopg.Connection[Any], dataset: Dataset, names: Collection[str]) -> Casts:
    """Return the casts of those of these columns that have another type than the declared one.

    Raises `DatasetUnavailable` if one is missing, or has a type that `casts` does not know.
    """
    columns = _columns(connection, dataset)
    # Without a table the next statement says so.
    return _casts(dataset, columns, names, writes=False) if columns else ()


def unfilled(connection: psycopg.Connection[Any], dataset: Dataset) -> list[str]:
    """Return the columns that must not be null and that neither the dataset nor the table fills: no row goes in."""
    query = one_line(_UNFILLED).format(name=sql.Literal(sql.Identifier(dataset.table.name).as_string(None)))
    return [name for (name,) in connection.execute(query, [list(types_of(dataset))]).fetchall()]


def stored_types(connection: psycopg.Connection[Any], table: str) -> dict[str, str]:
    """Return the types of a table's columns as Postgres writes them; none of a table that is not there."""
    query = one_line(_COLUMNS).format(name=sql.Literal(sql.Identifier(table).as_string(None)))
    return {name: type_ for name, type_, *_ in connection.execute(query).fetchall()}


@cache
def _composed(query: str, dataset: Dataset, lock_wait_s: float = LOCK_WAIT_S) -> bytes:
    table = sql.Identifier(dataset.table.name)
    composed = one_line(query).format(
        begin=sql.SQL(begin(lock_wait_s)),
        table=table,
        name=sql.Literal(table.as_string(None)),
        columns=sql.SQL(", ").join(map(sql.Identifier, types_of(dataset))),
        key=sql.Literal(sorted(dataset.key)),
    )
    return composed.as_bytes(None)  # 100 us, if it were done for each batch


def _columns(connection: psycopg.Connection[Any], dataset: Dataset) -> dict[str, _Column]:
    found = connection.execute(_composed(_COLUMNS, dataset)).fetchall()
    return {
        name: _Column(type_, StoredType(base, kind, modifier, exact), generated, updatable)
        for name, type_, base, kind, modifier, exact, generated, updatable in found
    }


def _casts(dataset: Dataset, columns: Mapping[str, _Column], names: Collection[str], *, writes: bool) -> Casts:
    """Return the casts of those of these columns that need one, by name."""
    casts: list[tuple[str, Cast]] = []
    problems: list[tuple[str, str]] = []
    for name in names:
        try:
            column = columns.get(name)
            digits = digits_of(dataset).get(name)
            if column is not None and digits is not None and column.stored.holds_digits(*digits) and column.is_written:
                continue
            cast = _cast(name, types_of(dataset)[name], column, is_key=name in dataset.key, writes=writes)
        except _Unfit as unfit:
            problems.append(unfit.args)
        else:
            casts += [] if cast is None else [(name, cast)]
    if problems:
        reasons = [f"{dataset.table.name}.{reason}" for _, reason in problems]
        more = [f"{len(reasons) - _MAX_NAMED} more"] if len(reasons) > _MAX_NAMED else []
        raise DatasetUnavailable(dataset.name, problems[0][0], ", ".join([*reasons[:_MAX_NAMED], *more]))
    return tuple(casts)


def _cast(name: str, declared: str, column: _Column | None, *, is_key: bool, writes: bool) -> Cast | None:
    """Return how the column's values are cast, None if they need not be; raises `_Unfit`."""
    needed = f"the store needs {TYPE_NAMES[declared]}"
    if column is None:
        raise _Unfit("42703", f"{name} is missing; {needed}")
    if writes and not column.is_written:
        raise _Unfit("428C9", f"{name} is {column.type} and made by the table itself; {needed} that it can write")
    stored = column.stored
    if stored.kind in _KINDS.get(declared, (declared,)) and stored.modifier < 0 and stored.exact:
        return None
    cast = None if name == ENQUEUED_AT else cast_of(declared, stored)
    if cast is None:
        raise _Unfit("42804", f"{name} is {column.type}; {needed}")
    if is_key and not cast.tells_apart:
        raise _Unfit("42804", f"{name} is {column.type} and does not tell all names apart; {needed} that does")
    return cast
