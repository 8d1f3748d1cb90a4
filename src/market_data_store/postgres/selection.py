"""Selects rows of a dataset for reads and exports: which ones, in which order, and in which form they are sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import psycopg
from psycopg import sql

from market_data_store.datasets import ENQUEUED_AT, Dataset
from market_data_store.errors import InvalidRead
from market_data_store.postgres.found import check_types
from market_data_store.postgres.statements import types_of
from market_data_store.wire.fields import fields_of

#: The criteria that are lists of names, by the column that they select by.
NAMES = ("provider", "symbol", "interval")

#: `csv` and `ndjson`: as texts that `mds load` reads back exactly. `arrow`: as Postgres's own types, JSON as text.
Form = Literal["csv", "ndjson", "arrow"]

_SELECT = """
    SELECT {output} FROM {table} AS stored CROSS JOIN LATERAL (SELECT {values}) AS exported
    WHERE {criteria} ORDER BY {order}
"""
_OUTPUT: Mapping[Form, str] = MappingProxyType(
    {"csv": "exported.*", "ndjson": "row_to_json(exported)", "arrow": "exported.*"}
)
_START, _END = "stored.ts >= {}", "stored.ts < {}"
_AMONG = "stored.{} IN ({})"


def listed(names: str | Iterable[str] | None) -> list[str]:
    """Return the names, each once; None for those that are to be chosen means all, which is an empty list."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def selection(
    dataset: Dataset,
    form: Form,
    criteria: Mapping[str, Any],
    *,
    columns: Sequence[str] = (),
    order: Sequence[str] = (),
) -> sql.Composed:
    """Compose the query for these columns (default: all but `enqueued_at`), in key order unless `order` is given.

    `criteria` may have provider, symbol and interval, each one name or several, `start` (inclusive) and `end`
    (exclusive), both with a time zone; None selects everything.
    """
    output, values = output_of(dataset, form, columns)
    return sql.SQL(_SELECT).format(
        output=output,
        table=sql.Identifier(dataset.table.name),
        values=values,
        criteria=conditions(dataset, criteria),
        order=sql.SQL(", ").join(sql.Identifier("stored", name) for name in order or dataset.key),
    )


def output_of(dataset: Dataset, form: Form, columns: Sequence[str] = ()) -> tuple[sql.Composable, sql.Composable]:
    """Compose what is selected of `exported`, and the values of `stored` that make it."""
    values = sql.SQL(", ").join(_value(dataset, name, form) for name in columns or names_in(dataset))
    return sql.SQL(_OUTPUT[form]), values


def conditions(dataset: Dataset, criteria: Mapping[str, Any]) -> sql.Composed:
    """Compose the condition that rows of `stored` meet; raises `InvalidRead` for a column that the dataset has not."""
    given = {name: value for name, value in criteria.items() if value is not None}
    found: list[sql.Composable] = []
    for name in NAMES:
        if names := listed(given.get(name)):
            if name not in names_in(dataset):
                raise InvalidRead(f"{name}: {dataset.name} have no {name}")
            # Literals without a type take that of the column, also where its owner has altered it.
            among = sql.SQL(", ").join(map(sql.Literal, names))
            found.append(sql.SQL(_AMONG).format(sql.Identifier(name), among))
        elif name in given:
            found.append(sql.SQL("false"))  # an empty list of names: no row
    found += [sql.SQL(text).format(given[name]) for name, text in (("start", _START), ("end", _END)) if name in given]
    return sql.SQL(" AND ").join(found or [sql.SQL("true")])


def names_in(dataset: Dataset) -> list[str]:
    """Return the names of the columns that reads and exports give."""
    return [str(column.name) for column in dataset.columns]


def estimated_rows(connection: psycopg.Connection[Any], query: sql.Composed) -> int:
    """Return the planner's estimate of a query's rows; counting them takes as long as reading them."""
    ((plans,),) = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(query)).fetchall()
    return int(plans[0]["Plan"]["Plan Rows"])


def check_columns(connection: psycopg.Connection[Any], dataset: Dataset, columns: Collection[str]) -> set[str]:
    """Return those of these columns (default: all) that have another type than the declared one.

    Raises `InvalidRead` for a name that is not a column, `DatasetUnavailable` for a column without the right values.
    """
    known = [*names_in(dataset), ENQUEUED_AT]
    for name in columns:
        if name not in known:
            raise InvalidRead(f"columns: {dataset.name} have no column {name!r}; they have {', '.join(known)}")
    return {name for name, _ in check_types(connection, dataset, columns or names_in(dataset))}


def _value(dataset: Dataset, name: str, form: Form) -> sql.Composed:
    # The cast is for a column that its owner has given another type.
    value = sql.SQL("{}::" + types_of(dataset)[name]).format(sql.Identifier("stored", name))
    return sql.SQL(_expression(dataset, name, form) + " AS {1}").format(value, sql.Identifier(name))


def _expression(dataset: Dataset, name: str, form: Form) -> str:
    """Return the SQL of a value, whose column is {0}."""
    if form == "arrow":
        return "{0}::text" if types_of(dataset)[name] == "jsonb" else "{0}"
    kind = next(f.kind for f in fields_of(dataset) if f.name == name)
    return (form == "csv" and kind.export_csv) or kind.export
