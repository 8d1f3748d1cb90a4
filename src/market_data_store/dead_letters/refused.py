"""Finds the letters of rows that Postgres has refused before, so that a redelivery does not find that out again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg

from market_data_store.dead_letters.keeping import Origin, stored_id

_REFUSED = """
    SELECT task_id, position, content_hash, sqlstate, reason FROM dead_letters
    WHERE task_id = ANY(%s) AND sqlstate IS NOT NULL
"""


def refused(connection: psycopg.Connection[Any], task_ids: Collection[str]) -> dict[Origin, tuple[str, str]]:
    """Return SQLSTATE and reason of the letters of these tasks' rows that Postgres refused."""
    found = connection.execute(_REFUSED, [sorted(map(stored_id, task_ids))]).fetchall()
    return {(task_id, position, hash_): (sqlstate, reason) for task_id, position, hash_, sqlstate, reason in found}
