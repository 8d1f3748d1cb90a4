"""Rows as dicts: the latest prices, a window of bars, and a window of ticks.

Rows are dicts by column name, with values as stored and times in UTC. The caller owns the connection (`connect(url)`,
or any connection of psycopg) and handles its errors, `psycopg.Error`. The primary keys serve `latest_prices` and
`bars`: these touch only the rows that they return, and one more for each provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from market_data_store.datasets import DATASETS, Dataset
from market_data_store.postgres.statements import types_of
from market_data_store.wire.moments import aware

#: Steps from one provider to the next in the key's index; DISTINCT would read the whole index. Not one recursive query,
#: which Citus refuses.
_NEXT_PROVIDER = "SELECT min(provider) AS provider FROM {table} WHERE provider > %(after)s"
#: Whether Citus is installed, which cannot run `_LATEST`.
_HAS_CITUS = "SELECT to_regclass('pg_dist_partition') IS NOT NULL AS found"
_LATEST = """
    SELECT latest.*
    FROM unnest(%(providers)s::text[]) AS asked (provider)
    CROSS JOIN unnest(%(symbols)s::text[]) AS wanted (symbol)
    CROSS JOIN LATERAL (
        SELECT {columns} FROM {table} AS stored
        WHERE stored.provider = asked.provider AND stored.symbol = wanted.symbol
        ORDER BY ts DESC, seq DESC LIMIT 1
    ) AS latest
    ORDER BY symbol, provider
"""
#: The same for one provider and symbol.
_LATEST_OF_ONE = """
    SELECT {columns} FROM {table}
    WHERE provider = %(provider)s AND symbol = %(symbol)s ORDER BY ts DESC, seq DESC LIMIT 1
"""
_BARS = """
    SELECT {columns} FROM {table}
    WHERE provider = ANY(%(providers)s::text[]) AND symbol = %(symbol)s AND interval = %(interval)s
        AND ts >= %(start)s AND ts < %(end)s
    ORDER BY ts, provider
"""
_TICKS = """
    SELECT {columns} FROM {table}
    WHERE provider = %(provider)s AND symbol = ANY(%(symbols)s::text[]) AND ts >= %(start)s AND ts < %(end)s
    ORDER BY ts, symbol, seq LIMIT %(limit)s
"""
_TICK_COLUMNS = ("provider", "symbol", "price", "ts", "size", "bid", "ask")

Row = dict[str, Any]


def latest_prices(
    connection: psycopg.Connection[Any], symbols: str | Iterable[str], *, provider: str | None = None
) -> list[Row]:
    """Return the newest tick of each symbol and provider, ordered by symbol and provider.

    They have all columns of the dataset `ticks`. A symbol without ticks has no row; its case counts. Of several ticks
    at one instant, the one with the highest `seq` is the newest. Without `provider`, all providers are read.
    """
    wanted = {symbols} if isinstance(symbols, str) else set(symbols)
    ticks = DATASETS["ticks"]
    providers = _providers(connection, ticks, provider)
    if not _selected(connection, ticks, _HAS_CITUS, {})[0]["found"]:
        return _rows(connection, ticks, _LATEST, {"providers": providers, "symbols": list(wanted)})
    keys = [(symbol, name) for symbol in sorted(wanted) for name in sorted(providers)]
    each = (_rows(connection, ticks, _LATEST_OF_ONE, {"symbol": symbol, "provider": name}) for symbol, name in keys)
    return [row for rows in each for row in rows]


def bars(
    connection: psycopg.Connection[Any],
    symbol: str,
    interval: str,
    start: datetime,
    end: datetime,
    *,
    provider: str | None = None,
) -> list[Row]:
    """Return a symbol's bars from `start` (inclusive) to `end` (exclusive), ordered by time and provider.

    They have all columns of the dataset `bars`. A naive time is UTC. Without `provider`, all providers are read.
    """
    dataset = DATASETS["bars"]
    parameters = {
        "providers": _providers(connection, dataset, provider),
        "symbol": symbol,
        "interval": interval,
        "start": aware(start),
        "end": aware(end),
    }
    return _rows(connection, dataset, _BARS, parameters)


def ticks(
    connection: psycopg.Connection[Any],
    provider: str,
    symbols: Iterable[str],
    start: datetime,
    end: datetime,
    limit: int,
) -> list[Row]:
    """Return the first `limit` ticks of these symbols from `start` (inclusive) to `end` (exclusive), ordered by time.

    Columns: provider, symbol, price, ts, size, bid, ask. A naive time is UTC.
    """
    parameters = {
        "provider": provider,
        "symbols": list(symbols),
        "start": aware(start),
        "end": aware(end),
        "limit": limit,
    }
    return _rows(connection, DATASETS["ticks"], _TICKS, parameters, _TICK_COLUMNS)


def _providers(connection: psycopg.Connection[Any], dataset: Dataset, provider: str | None) -> list[str]:
    if provider is not None:
        return [provider]
    found: list[str] = []
    after = ""
    while after is not None:
        (row,) = _selected(connection, dataset, _NEXT_PROVIDER, {"after": after})
        after = row["provider"]
        found += [after] if after is not None else []
    return found


def _rows(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    query: Any,
    parameters: dict[str, Any],
    names: Sequence[str] = (),
) -> list[Row]:
    names = names or [column.name for column in dataset.columns]
    rows = _selected(connection, dataset, query, parameters, names)
    for row in rows:
        row["ts"] = row["ts"].astimezone(UTC)  # psycopg returns it in the session's time zone
    return rows


def _selected(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    query: Any,
    parameters: dict[str, Any],
    names: Sequence[str] = (),
) -> list[Row]:
    composed = sql.SQL(query).format(
        table=sql.Identifier(dataset.table.name),
        # The cast is for a column that its owner has given another type.
        columns=sql.SQL(", ").join(
            sql.SQL("{0}::" + types_of(dataset)[name] + " AS {0}").format(sql.Identifier(name)) for name in names
        ),
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(composed, parameters).fetchall()
