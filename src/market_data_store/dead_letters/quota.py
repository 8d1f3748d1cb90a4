"""The most that dead letters may hold: above MDS_LETTERS_QUOTA_BYTES only reasons are kept.

The size of the table's files is an upper bound, and quick to ask for. Postgres does not return the space of deleted
letters, so above the quota the letters themselves are measured, a sample of them in a large table.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import psycopg

from market_data_store.config import settings

logger = logging.getLogger(__name__)

_FILES = "SELECT coalesce(pg_total_relation_size(to_regclass('dead_letters')), 0)"
#: Reads about 1,000 pages, and none of the bodies. `pg_column_size` is the length as it is stored.
_LETTERS = """
    WITH share AS (
        SELECT least(100.0, 100.0 * 1000 * current_setting('block_size')::int
                            / greatest(pg_relation_size('dead_letters'), 1)) AS percent
    )
    SELECT coalesce(sum(size) * 100 / (SELECT percent FROM share), 0)::float8 FROM (
        SELECT 300 + coalesce(pg_column_size(row), 0) + coalesce(pg_column_size(defaults), 0)
                   + coalesce(pg_column_size(body), 0) + pg_column_size(reason) AS size
        FROM dead_letters TABLESAMPLE SYSTEM ((SELECT percent FROM share))
    ) AS sizes
"""
#: Seconds until letters are measured again, and until another line says that there are too many.
_INTERVAL_S = 10.0
_SAY_AGAIN_S = 600.0


class _Measured:
    """What this process knows of the letters' size."""

    def __init__(self) -> None:
        self.size = 0.0
        self.due_at = float("-inf")
        self.say_at = float("-inf")


_measured = _Measured()


def has_room(connection: psycopg.Connection[Any], size: int) -> bool:
    """Return whether letters with so many bytes of what was sent may hold them; says once if they may not."""
    quota = settings().letters_quota_bytes
    if not quota or size_of_files(connection) + size <= quota:
        return True
    now = time.monotonic()
    if now >= _measured.due_at:
        _measured.size = _letters(connection)
        _measured.due_at = now + _INTERVAL_S
    if _measured.size + size <= quota:
        _measured.size += size
        return True
    if now >= _measured.say_at:
        _measured.say_at = now + _SAY_AGAIN_S
        logger.warning(
            "dead_letters holds about %d MB, and MDS_LETTERS_QUOTA_BYTES allows %d MB: of new letters only the reasons "
            "are kept, and they cannot be replayed; replay or purge others (mds dead-letters)",
            *(_measured.size // 1_000_000, quota // 1_000_000),
        )
    return False


def size_of_files(connection: psycopg.Connection[Any]) -> float:
    """Return the bytes of the files of the table of letters, an upper bound of what the letters hold."""
    return float(connection.execute(_FILES).fetchall()[0][0])


def _letters(connection: psycopg.Connection[Any]) -> float:
    try:
        with connection.transaction():
            return float(connection.execute(_LETTERS).fetchall()[0][0])
    except psycopg.errors.ProgrammingError:  # a view, say, of which no sample can be taken
        return size_of_files(connection)
