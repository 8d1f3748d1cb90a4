"""What is due for the tables of declared datasets, asked now and then: it takes a query for each of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg

from market_data_store.datasets import DATASETS
from market_data_store.postgres.declared_tables import due

#: Seconds between two looks, and how many times as long as a look takes at least.
_REST_S, _REST_TIMES = 5.0, 20.0


def not_as_declared(due: Sequence[str]) -> str:
    """Return what to say of the steps that are due."""
    more = f", and {len(due) - 1} more" if len(due) > 1 else ""
    return f"a table is not as declared ({due[0]}{more}); run `mds migrate`"


class DueTables:
    """Remembers what was due at the last look. Not thread-safe."""

    def __init__(self) -> None:
        self._due: Sequence[str] = ()
        self._look_at = float("-inf")

    def look(self, connection: psycopg.Connection[Any]) -> Sequence[str]:
        """Return a line for each step that is due; asks Postgres, if that was not just done."""
        started = time.monotonic()
        if started >= self._look_at:
            own = DATASETS.declared.values()
            self._due = [*due(connection, own)] if own else ()
            ended = time.monotonic()
            self._look_at = ended + max(_REST_S, _REST_TIMES * (ended - started))
        return self._due
