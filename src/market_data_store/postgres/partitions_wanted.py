"""The partitions that workers ask for, a row each in `partitions_wanted`: the leading monitor makes them.

A worker may not make a table, and whoever may reads this table every second. It works behind a pooler, which a LISTEN
does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

#: What is asked for again keeps its first time.
_ASK = """
    INSERT INTO partitions_wanted AS wanted (dataset, starts, asked_at)
    SELECT %(dataset)s, starts, clock_timestamp() FROM unnest(%(starts)s::timestamptz[]) AS starts ORDER BY starts
    ON CONFLICT (dataset, starts) DO UPDATE SET starts = excluded.starts
    RETURNING starts, trouble, extract(epoch FROM clock_timestamp() - asked_at)::float8
"""
_ALL = """
    SELECT dataset, starts, trouble, extract(epoch FROM clock_timestamp() - asked_at)::float8
    FROM partitions_wanted ORDER BY asked_at, dataset, starts LIMIT %s
"""
_DONE = "DELETE FROM partitions_wanted WHERE dataset = %s AND starts = ANY (%s::timestamptz[])"
_FAILED = "UPDATE partitions_wanted SET trouble = %s WHERE dataset = %s AND trouble IS DISTINCT FROM %s"
#: How many are made in one round.
_MOST = 1_000


class Wanted(NamedTuple):
    """A partition that rows wait for."""

    dataset: str
    starts: datetime
    #: Why it could not be made; None if nobody has tried.
    trouble: str | None
    #: Seconds since it was first asked for.
    age_s: float


def ask(connection: psycopg.Connection[Any], dataset: str, starts: Sequence[datetime]) -> list[Wanted]:
    """Ask for the partitions with these starts; returns what is known of each request, the oldest first."""
    rows = connection.execute(_ASK, {"dataset": dataset, "starts": list(starts)}).fetchall()
    return sorted((Wanted(dataset, *row) for row in rows), key=lambda each: -each.age_s)


def wanted(connection: psycopg.Connection[Any]) -> list[Wanted]:
    """Return what is asked for."""
    return [Wanted(*row) for row in connection.execute(_ALL, [_MOST]).fetchall()]


def settle(connection: psycopg.Connection[Any], dataset: str, starts: Iterable[datetime]) -> None:
    """Forget requests: the partitions are there, or nobody needs them."""
    connection.execute(_DONE, [dataset, list(starts)])


def fail(connection: psycopg.Connection[Any], dataset: str, trouble: str) -> None:
    """Note why a dataset's partitions cannot be made, for the workers to say."""
    connection.execute(_FAILED, [trouble, dataset, trouble])
