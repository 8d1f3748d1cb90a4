"""Counts dead letters by the pattern of their reason. A pattern holds no values, so anyone may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from market_data_store.dead_letters.selecting import EVERY, Where, selection

_SUMMARY = sql.SQL("""
    SELECT dataset, pattern, count(*), extract(epoch FROM max(created_at))::float8 {selected}
    GROUP BY dataset, pattern ORDER BY count(*) DESC, dataset, pattern LIMIT %(limit)s
""")
#: What letters can be grouped by, besides their reason.
GROUPS = {
    "job": sql.SQL("job, file"),
    "dataset": sql.SQL("dataset"),
    "task": sql.SQL("task_id"),
    "day": sql.SQL("(created_at AT TIME ZONE 'UTC')::date"),
}
_GROUPED = sql.SQL("""
    SELECT count(*), max(created_at), {columns} {selected}
    GROUP BY {columns} ORDER BY count(*) DESC, {columns} LIMIT %(limit)s
""")
#: A letter is new for so many seconds.
NEW_S = 8.0
#: Shown for letters without a pattern: version 0.4 stored none. They get one when a replay is refused.
NOT_CLASSIFIED = "not classified"


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The number of letters with one reason."""

    #: None for messages that are unusable as a whole.
    dataset: str | None
    #: The reason with … for each value; None for letters of version 0.4.
    pattern: str | None
    count: int
    #: When the newest letter was kept, in seconds since 1970.
    last_ts: float

    @property
    def reason(self) -> str:
        """The pattern, or `not classified` for letters without one."""
        return NOT_CLASSIFIED if self.pattern is None else self.pattern


def newly_kept(reasons: Sequence[ReasonCount] | None, now: float) -> str | None:
    """Return the reasons of the letters of the last seconds, in one line; None if none came.

    `now` is Postgres's time, in epoch seconds.
    """
    new = [each for each in reasons or () if now - each.last_ts <= NEW_S]
    if not new:
        return None
    newest = max(new, key=lambda each: each.last_ts)
    others = len(new) - 1
    more = f", and {others} more reason{'s' if others > 1 else ''}" if others else ""
    return f"dead letters grow: {newest.dataset or 'unusable messages'}: {newest.reason} ({newest.count:,} kept{more})"


def summary(
    connection: psycopg.Connection[Any], *, dataset: str | None = None, where: Where = EVERY, limit: int = 20
) -> list[ReasonCount]:
    """Return the most frequent reasons of all letters or of one dataset's, without values, symbols or row numbers."""
    query, parameters = selection(_SUMMARY, None, dataset, where)
    rows = connection.execute(query, {**parameters, "limit": limit})
    return [ReasonCount(*row) for row in rows]


def grouped(
    connection: psycopg.Connection[Any],
    by: str,
    *,
    dataset: str | None = None,
    where: Where = EVERY,
    limit: int = 20,
) -> list[tuple[Any, ...]]:
    """Return the largest groups by one of `GROUPS`: how many letters, when the newest was kept, and what they share."""
    query, parameters = selection(_GROUPED, None, dataset, where, columns=GROUPS[by])
    return connection.execute(query, {**parameters, "limit": limit}).fetchall()
