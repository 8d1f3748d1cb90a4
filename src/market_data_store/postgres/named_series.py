"""Finds the series of a dataset by a part of their names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from market_data_store.datasets import Dataset
from market_data_store.postgres.found import check_types
from market_data_store.postgres.key_index import BY_INDEX, has_index, prefix
from market_data_store.postgres.series import FOUND, composed, names_of

#: The series with a text in one of their names.
_NAMED = """
    {found}
    SELECT {as_texts}, max(last), (SELECT count(*) FROM stored) FROM stored
    WHERE {criteria} AND position(lower({search}) IN lower(concat_ws(' ', {series_of_stored}))) > 0
    GROUP BY {series_of_stored} ORDER BY {series_of_stored} LIMIT {limit}
"""
#: `stored` by reading the whole table.
_READ = "WITH stored AS (SELECT {names}, max(ts) AS last FROM {table} AS each GROUP BY {names})"


class Named(NamedTuple):
    """The names of a series, None where the key has none, and the time of its newest row, in UTC."""

    provider: str
    symbol: str | None
    interval: str | None
    last: datetime


def named(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    criteria: Mapping[str, Any],
    search: str,
    *,
    limit: int,
    most: int,
) -> tuple[list[Named], bool]:
    """Return at most `limit` series with a text in one of their names, and whether there may be others.

    They are in the order of the key. Case does not count. Only `most` keys without their time are looked at. The caller
    has a transaction open, which may have a time limit.
    """
    check_types(connection, dataset, dataset.key)
    found = FOUND if has_index(connection, dataset) else _READ
    if found is FOUND:
        connection.execute(BY_INDEX)
    after: tuple[str, ...] = ()
    keys = prefix(dataset)
    provider = criteria.get("provider")
    if found is FOUND and not search and keys == names_of(dataset):  # each key is a series: the first ones are enough
        most = min(most, limit + 1)
        after = (provider, *("" for _ in keys[1:])) if isinstance(provider, str) else ()
    query = composed(_NAMED, dataset, criteria, found=found, after=after, search=search, limit=limit + 1, most=most)
    rows = connection.execute(query).fetchall()
    series = [
        Named(names.get("provider", ""), names.get("symbol"), names.get("interval"), row[-2].astimezone(UTC))
        for row in rows[:limit]
        if (names := dict(zip(names_of(dataset), row, strict=False)))
    ]
    is_cut = most > limit + 1 and found is FOUND and any(row[-1] >= most for row in rows[:1])
    return series, len(rows) > limit or is_cut
