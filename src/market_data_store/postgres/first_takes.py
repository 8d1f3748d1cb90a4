"""Remembers in Postgres when a worker first took a message, for messages whose broker does not.

Such a message has no usable time of its own. A worker may die with it, and the next worker must not take it for newer
than it is. The table is unlogged: a crash of Postgres voids it, and a commit waits for no disk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import psycopg

from market_data_store.dead_letters import stored_id

#: Also forgets those of workers that were killed, and whose messages others have processed.
_READ = """
    WITH forgotten AS (DELETE FROM first_takes WHERE taken_at < now() - interval '7 days')
    SELECT task_id, extract(epoch FROM taken_at)::float8 FROM first_takes WHERE task_id = ANY(%s)
"""
#: Task ids may repeat: a message that was not delivered before is new, whatever is remembered of its id.
_REMEMBER = """
    WITH forgotten AS (DELETE FROM first_takes WHERE task_id = ANY(%(done)s))
    INSERT INTO first_takes (task_id, taken_at)
    SELECT task_id, to_timestamp(taken_at) FROM unnest(%(ids)s::text[], %(takes)s::float8[]) AS new (task_id, taken_at)
    ON CONFLICT (task_id) DO UPDATE SET taken_at = excluded.taken_at
"""


def read(connection: psycopg.Connection[Any], task_ids: Collection[str]) -> dict[str, float]:
    """Return when these messages were first taken, in epoch seconds, as far as that is remembered."""
    given = {stored_id(task_id): task_id for task_id in task_ids}
    found = connection.execute(_READ, [list(given)]).fetchall()
    return {given[stored]: taken_at for stored, taken_at in found}


def remember(connection: psycopg.Connection[Any], takes: Mapping[str, float], done: Collection[str]) -> None:
    """Remember when messages were first taken, by task id, in epoch seconds, and forget those that are done."""
    # In one order, so that two workers with the same ids do not deadlock.
    stored = dict(sorted((stored_id(task_id), taken_at) for task_id, taken_at in takes.items()))
    forgotten = {stored_id(task_id) for task_id in done} - stored.keys()
    parameters = {"ids": list(stored), "takes": list(stored.values()), "done": sorted(forgotten)}
    connection.execute(_REMEMBER, parameters)
