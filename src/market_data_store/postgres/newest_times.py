"""When the newest row of each key came, and how many rows came in each minute: what tells a feed that has stopped.

As in `series`, Postgres finds one key after the other by the key's index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from market_data_store.datasets import Dataset
from market_data_store.postgres.found import check_types
from market_data_store.postgres.key_index import BY_INDEX, has_index
from market_data_store.postgres.series import composed, names_of

#: Each key without its time, its newest time and Postgres's time, in epoch seconds.
_TIMES = """
    {found}
    SELECT {names_as_texts}, extract(epoch FROM last)::float8, extract(epoch FROM clock_timestamp())::float8 FROM stored
"""
#: The same of the key that is given.
_TIME = """
    SELECT {names_as_texts}, extract(epoch FROM ts)::float8, extract(epoch FROM clock_timestamp())::float8 FROM (
        SELECT * FROM {table} AS each WHERE ({names_of_each}, each.ts) <= ({given}, 'infinity')
        AND ({names_of_each}, each.ts) >= ({given}, '-infinity') ORDER BY {backwards} LIMIT 1
    ) AS stored
"""
#: The rows of each series in each minute since 1970, of the minutes from `start` to before `end` (epoch seconds).
_MINUTES = """
    {found}
    SELECT {as_texts}, minute, sum(rows)::bigint
    FROM (SELECT * FROM stored WHERE last >= to_timestamp({start})) AS stored CROSS JOIN LATERAL (
        SELECT floor(extract(epoch FROM each.ts) / 60)::bigint AS minute, count(*) AS rows FROM {table} AS each
        WHERE ({names_of_each}, each.ts) >= ({names_of_stored}, to_timestamp({start}))
          AND ({names_of_each}, each.ts) < ({names_of_stored}, to_timestamp({end}))
        GROUP BY 1
    ) AS counted
    GROUP BY {series_of_stored}, minute
"""


class Newest(NamedTuple):
    """A key without its time, which are the values of `key_index.prefix` as texts, and the time of its newest row."""

    names: tuple[str, ...]
    #: In epoch seconds; may be infinite.
    ts: float
    #: When Postgres found it, by its clock.
    now: float


def newest_times(
    connection: psycopg.Connection[Any], dataset: Dataset, most: int, after: Sequence[str] = ()
) -> list[Newest] | None:
    """Return the newest time of each key without its time, in the key's order: of the first `most` behind `after`.

    None where the key's index cannot be used, so that it would take as long as the table is large. The caller has a
    transaction open, which may have a time limit. Raises `DatasetUnavailable`.
    """
    check_types(connection, dataset, dataset.key)
    if not has_index(connection, dataset):
        return None
    connection.execute(BY_INDEX)
    rows = connection.execute(composed(_TIMES, dataset, {}, after=after, most=most)).fetchall()
    return [Newest(tuple(names), ts, now) for *names, ts, now in rows]


def newest_of(connection: psycopg.Connection[Any], dataset: Dataset, keys: Iterable[Sequence[str]]) -> list[Newest]:
    """Return the newest time of those of these keys that are there; only after `newest_times` has found some."""
    parts = [sql.SQL("({})").format(composed(_TIME, dataset, {}, after=key)) for key in keys]
    if not parts:
        return []
    connection.execute(BY_INDEX)
    rows = connection.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()
    return [Newest(tuple(names), ts, now) for *names, ts, now in rows]


def rows_by_minute(
    connection: psycopg.Connection[Any], dataset: Dataset, most: int, first: int, last: int
) -> list[tuple[dict[str, str], int, int]]:
    """Return the names of each series, a minute, and its rows in it, for the minutes from `first` to `last`.

    Minutes count from 1970. Of the first `most` keys without their time; only after `newest_times` has found some.
    """
    connection.execute(BY_INDEX)
    query = composed(_MINUTES, dataset, {}, most=most, start=first * 60, end=(last + 1) * 60)
    found = connection.execute(query).fetchall()
    return [(dict(zip(names_of(dataset), names, strict=True)), minute, rows) for *names, minute, rows in found]
