"""Whether the database is nearly full: beside its quota, or on the disk of a server on this machine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import psycopg

#: The database counts as full from this share of its quota on, and no longer below the other one.
_FULL_FROM, _FULL_UNTIL = 0.95, 0.9
#: So do its disk's free bytes: below the first, and until there are more than the second.
_LEAST_FREE, _ENOUGH_FREE = 1 << 30, 2 << 30
#: Seconds between two looks: Postgres looks at each file of the database.
_INTERVAL_S = 5.0
#: The directory is told only to superusers and monitoring roles, and is this machine's only if the address is too.
_SIZES = """
    SELECT pg_database_size(current_database()),
           (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
           coalesce(inet_server_addr() = inet_client_addr(), true)
"""


class Room:
    """Remembers whether the database is full, because it is so a little longer than it became so. Not thread-safe to
    `look`; every thread may read `is_full`. `quota` is in bytes, 0 if there is none.
    """

    def __init__(self, quota: int) -> None:
        self._quota = quota
        self._due = float("-inf")
        #: What was seen last.
        self.is_full = False

    def look(self, connection: psycopg.Connection[Any]) -> bool:
        """Ask, if that was not just done, and return `is_full`."""
        now = time.monotonic()
        if now >= self._due:
            ((used, directory, is_local),) = connection.execute(_SIZES).fetchall()
            self.is_full = self._judged(used, disk_free(directory) if is_local else None)
            self._due = now + _INTERVAL_S
        return self.is_full

    def _judged(self, used: int, free: int | None) -> bool:
        share = _FULL_UNTIL if self.is_full else _FULL_FROM
        least = _ENOUGH_FREE if self.is_full else _LEAST_FREE
        return (self._quota > 0 and used >= share * self._quota) or (free is not None and free < least)


def disk_free(directory: str | None) -> int | None:
    """Return the free bytes of the disk with a server's data; None where this machine has no such data."""
    if directory is None or not os.access(Path(directory) / "PG_VERSION", os.F_OK):
        return None
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None
