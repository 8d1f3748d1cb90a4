"""What a dataset holds: its series, with their first and last time and their number of rows, and its newest rows.

A series is what the key names before the time: provider, symbol and interval. Postgres finds one after the other by the
key's index, so a table of any size costs a few index look-ups for each series. The conditions compare whole rows: these
only the key's index can serve, whatever other indexes there are. Where there is no such index (a view, or Citus, which
takes no recursive query), the table is read as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import set_json_loads

from market_data_store.datasets import Dataset
from market_data_store.postgres.found import check_types
from market_data_store.postgres.key_index import BY_INDEX, KEYS, has_index, prefix
from market_data_store.postgres.selection import NAMES, conditions, listed, output_of
from market_data_store.postgres.statements import digits_of

#: Up to this number, the rows of a series are counted; above, they are estimated.
_COUNTED = 100
#: Pages that are read for the estimate: 16 MB.
_SAMPLED_PAGES = 2_000

#: For each key without its time, the first and the last time: `stored`, to be selected from.
FOUND = """
    {keys}, stored AS (
        SELECT keys.*, newest.ts AS last FROM (SELECT * FROM keys LIMIT {most}) AS keys CROSS JOIN LATERAL (
            SELECT ts FROM {table} AS each
            WHERE ({names_of_each}, each.ts) <= ({names_of_keys}, 'infinity')
            ORDER BY {backwards} LIMIT 1
        ) AS newest
    )
"""
_SERIES = """
    {found}
    SELECT {as_texts}, first, last, (
        SELECT count(*) FROM (
            SELECT FROM {table} AS each
            WHERE ({series_of_each}) >= ({series_of_stored}) AND ({series_of_each}) <= ({series_of_stored})
            ORDER BY {key_of_each} LIMIT {counted}
        ) AS counted
    )
    FROM (
        SELECT {series_of_stored}, min(first) AS first, max(last) AS last FROM stored
        WHERE {criteria} GROUP BY {series_of_stored}
    ) AS stored
    ORDER BY {series_of_stored}
"""
#: The same of all rows.
_COUNT = """
    SELECT {as_texts}, min(ts), max(ts), count(*) FROM {table} AS stored
    WHERE {criteria} GROUP BY {series_of_stored} ORDER BY {series_of_stored}
"""
#: The newest rows are among those of the keys with the newest times.
_NEWEST = """
    {found}
    SELECT {output} FROM (SELECT * FROM stored WHERE {criteria} ORDER BY last DESC LIMIT {limit}) AS keys
    CROSS JOIN LATERAL (
        SELECT each.* FROM {table} AS each
        WHERE ({names_of_each}, each.ts) <= ({names_of_keys}, 'infinity')
          AND ({names_of_each}, each.ts) >= ({names_of_keys}, '-infinity')
        ORDER BY {backwards} LIMIT {limit}
    ) AS stored CROSS JOIN LATERAL (SELECT {values}) AS exported
    ORDER BY stored.ts DESC, {key_of_stored} LIMIT {limit}
"""
_NEWEST_OF_ALL = """
    SELECT {output} FROM {table} AS stored CROSS JOIN LATERAL (SELECT {values}) AS exported
    WHERE {criteria} ORDER BY stored.ts DESC, {key_of_stored} LIMIT {limit}
"""
#: Pages of the table with its partitions, or with what inherits from it.
_PAGES = """
    WITH RECURSIVE parts (oid) AS (
        SELECT to_regclass({name})::oid
        UNION ALL
        SELECT inhrelid FROM parts JOIN pg_inherits ON inhparent = parts.oid
    )
    SELECT coalesce(sum(pg_relation_size(oid)), 0)::bigint / current_setting('block_size')::bigint FROM parts
"""
_SAMPLE = """
    SELECT {as_texts}, count(*) FROM {table} AS stored TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0)
    WHERE {criteria} GROUP BY {series_of_stored}
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a dataset."""

    provider: str
    #: None where the key has no symbol or no interval.
    symbol: str | None
    interval: str | None
    #: The times of its first and its last row, in UTC.
    first: datetime
    last: datetime
    rows: int
    #: Whether `rows` was counted; otherwise it is an estimate.
    exact: bool


#: The share of the table that was sampled, and the rows of each series in it, by its names.
_Sample = tuple[float, dict[tuple[Any, ...], int]]
_NOTHING: _Sample = (0.0, {})


def series_of(
    connection: psycopg.Connection[Any], dataset: Dataset, criteria: Mapping[str, Any], *, count: bool = False
) -> list[Series]:
    """Return the series that meet the criteria (provider, symbol, interval), in the order of the key.

    With `count`, or where the key's index cannot be used, all rows are read and counted. Otherwise a series of 100
    rows or more gets an estimate of its rows, from a sample of the table's pages.
    """
    with connection.transaction():
        check_types(connection, dataset, dataset.key)
        if count or not has_index(connection, dataset):
            counted = connection.execute(composed(_COUNT, dataset, criteria)).fetchall()
            return [_series(dataset, row, row[-1], exact=True) for row in counted]
        connection.execute(BY_INDEX)
        found = connection.execute(composed(_SERIES, dataset, criteria)).fetchall()
        connection.execute("SET LOCAL enable_seqscan = on")
        share, sampled = _NOTHING
        if any(row[-1] >= _COUNTED for row in found):
            share, sampled = _sampled(connection, dataset, criteria)
    return [
        _series(
            dataset,
            row,
            row[-1] if row[-1] < _COUNTED else max(row[-1], round(sampled.get(row[:-3], 0) / share)),
            exact=row[-1] < _COUNTED or share == 1.0,
        )
        for row in found
    ]


def newest_rows(
    connection: psycopg.Connection[Any], dataset: Dataset, criteria: Mapping[str, Any], limit: int
) -> list[dict[str, Any]]:
    """Return the rows with the newest times, newest first, as an export as NDJSON has them.

    Exact numbers are Decimals, or integers.
    """
    in_keys = all(name in prefix(dataset) for name in NAMES if listed(criteria.get(name)))
    with connection.transaction():
        check_types(connection, dataset, [str(column.name) for column in dataset.columns])
        by_index = in_keys and has_index(connection, dataset)
        if by_index:
            connection.execute(BY_INDEX)
        # Of one key, the index has the rows in their order.
        is_one = all(len(listed(criteria.get(name))) == 1 for name in prefix(dataset))
        connection.execute("SET LOCAL timezone = 'UTC'")
        query = composed(_NEWEST if by_index and not is_one else _NEWEST_OF_ALL, dataset, criteria, limit=limit)
        with connection.cursor() as cursor:
            set_json_loads(partial(_loaded, digits_of(dataset).keys()), cursor)
            return [row for (row,) in cursor.execute(query).fetchall()]


def _loaded(exact: Collection[str], text: str | bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(text)
    written = json.loads(text, parse_float=Decimal) if exact else row
    return row | {name: written[name] for name in exact}


def _series(dataset: Dataset, row: tuple[Any, ...], rows: int, *, exact: bool) -> Series:
    names = dict(zip(names_of(dataset), row, strict=False))
    first, last = (moment.astimezone(UTC) for moment in row[-3:-1])
    return Series(names["provider"], names.get("symbol"), names.get("interval"), first, last, rows, exact)


def names_of(dataset: Dataset) -> list[str]:
    """Return which of provider, symbol and interval name a series of the dataset."""
    return [name for name in NAMES if name in prefix(dataset)]


def _sampled(connection: psycopg.Connection[Any], dataset: Dataset, criteria: Mapping[str, Any]) -> _Sample:
    table = sql.Literal(sql.Identifier(dataset.table.name).as_string(None))
    ((pages,),) = connection.execute(sql.SQL(_PAGES).format(name=table)).fetchall()
    share = min(1.0, _SAMPLED_PAGES / max(pages, 1))
    rows = connection.execute(composed(_SAMPLE, dataset, criteria, percent=100.0 * share)).fetchall()
    return share, {tuple(names): count for *names, count in rows}


def composed(
    template: str,
    dataset: Dataset,
    criteria: Mapping[str, Any],
    *,
    found: str = FOUND,
    after: Sequence[str] = (),
    **literals: float | str,
) -> sql.Composed:
    """Compose a query of this dataset; its place `{found}` becomes `found`, which has the keys' times as `stored`."""
    names, series = prefix(dataset), names_of(dataset)

    def joined(columns: list[str], alias: str = "", suffix: str = "") -> sql.Composed:
        of = (alias,) if alias else ()
        return sql.SQL(", ").join(sql.Identifier(*of, name) + sql.SQL(suffix) for name in columns)

    output, values = output_of(dataset, "ndjson")
    given = sql.SQL(", ").join(map(sql.Literal, after))
    behind = sql.SQL("WHERE ({}, each.ts) > ({}, 'infinity')").format(joined(names, "each"), given)
    parts = {
        "table": sql.Identifier(dataset.table.name),
        "names": joined(names),
        "names_of_each": joined(names, "each"),
        "names_of_keys": joined(names, "keys"),
        "backwards": joined([*names, "ts"], "each", " DESC"),
        "given": given,
        "names_of_stored": joined(names, "stored"),
        "names_as_texts": joined(names, "stored", "::text"),
        "after": behind if after else sql.SQL(""),
        "most": sql.SQL("ALL"),
        **{name: sql.Literal(value) for name, value in literals.items()},
    }
    return sql.SQL(template).format(
        **parts,
        found=sql.SQL(found).format(**parts, keys=sql.SQL(KEYS).format(**parts)),
        series_of_each=joined(series, "each"),
        series_of_stored=joined(series, "stored"),
        as_texts=joined(series, "stored", "::text"),
        key_of_each=joined(list(dataset.key), "each"),
        key_of_stored=joined(list(dataset.key), "stored"),
        criteria=conditions(dataset, criteria),
        counted=sql.Literal(_COUNTED),
        output=output,
        values=values,
    )
