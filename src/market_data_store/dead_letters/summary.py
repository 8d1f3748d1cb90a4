"""Counts dead letters by the pattern of their reason. A pattern holds no values, so anyone may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

_SUMMARY = """
    SELECT dataset, pattern, count(*), extract(epoch FROM max(created_at))::float8
    FROM dead_letters
    WHERE %(dataset)s::text IS NULL OR dataset = %(dataset)s
    GROUP BY dataset, pattern
    ORDER BY count(*) DESC, dataset, pattern
    LIMIT %(limit)s
"""
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


def summary(connection: psycopg.Connection[Any], *, dataset: str | None = None, limit: int = 20) -> list[ReasonCount]:
    """Return the most frequent reasons of all letters or of one dataset's, without values, symbols or row numbers."""
    return [ReasonCount(*row) for row in connection.execute(_SUMMARY, {"dataset": dataset, "limit": limit})]
