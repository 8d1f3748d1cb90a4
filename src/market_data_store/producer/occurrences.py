"""Counts equal rows without an id over a call of `write`, or over a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from market_data_store.wire.hashes import hash63
from market_data_store.wire.occurrences import Key

#: Rows of a file that are counted in memory, of about 200 bytes each; those of a larger file are counted on disk.
_ROWS_IN_MEMORY = 100_000
_TABLE = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;
    CREATE TABLE seen (key INTEGER PRIMARY KEY, number INTEGER NOT NULL);
"""
_COUNT = """
    INSERT INTO seen VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET number = seen.number + excluded.number
    RETURNING number
"""


class Occurrences:
    """How often each row was there. Memory is bounded: the counts of many rows are in a temporary file."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._database: sqlite3.Connection | None = None

    def numbers(self, keys: Sequence[Key | None]) -> list[int]:
        """Count these rows; returns for each its number among its equals, 1 for a row without a key."""
        numbers = [1 if key is None else self._count(hash63(msgspec.json.encode(key)), 1) for key in keys]
        if self._database is None and len(self._counts) > _ROWS_IN_MEMORY:
            # SQLite makes a file without a name, which goes with the connection.
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.executescript(_TABLE)
            for key, number in self._counts.items():
                self._count(key, number)
            self._counts.clear()
        return numbers

    def _count(self, key: int, number: int) -> int:
        if self._database is None:
            self._counts[key] = total = self._counts.get(key, 0) + number
            return total
        ((total,),) = self._database.execute(_COUNT, (key, number)).fetchall()
        return int(total)
