"""How many processes a message took down with it: counted in Postgres, which outlives them and knows both brokers.

A message that a broker delivers again runs by itself (`worker.coalescing`). Before it does, its pool process opens an
attempt here, and closes it when the message was dealt with or given back. The process that finds an attempt open knows
that the one before it died; only then does it count. An attempt may also be open because Postgres went away while a
process, alive and well, gave the message back. So it does not count when

* Postgres was started since;
* this process itself has had to connect again since: whoever lost its session then need not have died;
* its session is still there: on Redis a slow message is delivered again, and what waits for a lock has not died of
  its rows.

Where the whole worker is killed, by hand or for lack of memory, nobody is left to close the attempt: it counts.
"""

from __future__ import annotations

from typing import Any

import psycopg

from market_data_store.dead_letters import stored_id

_OPEN = """
    INSERT INTO attempts AS earlier (task_id, deaths, backend, backend_start, server_start, opened_at)
    SELECT %(task_id)s, 0, pid, backend_start, pg_postmaster_start_time(), clock_timestamp()
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (task_id) DO UPDATE SET
        deaths = earlier.deaths + (
            earlier.server_start = excluded.server_start
            AND NOT (%(reconnected)s AND excluded.backend_start > earlier.opened_at)
            AND NOT EXISTS (
                SELECT FROM pg_stat_activity AS session
                WHERE session.pid = earlier.backend AND session.backend_start = earlier.backend_start
            )
        )::int,
        backend = excluded.backend,
        backend_start = excluded.backend_start,
        server_start = excluded.server_start,
        opened_at = excluded.opened_at
    RETURNING deaths
"""
#: Also those of messages that never came back: they were purged from the queue, say.
_CLOSE = "DELETE FROM attempts WHERE task_id = %s OR opened_at < now() - interval '7 days'"


def open_attempt(connection: psycopg.Connection[Any], task_id: str, *, reconnected: bool) -> int:
    """Note that this session deals with the message alone; returns how many processes died of it before.

    `reconnected`: the session is not this process's first.
    """
    parameters = {"task_id": stored_id(task_id), "reconnected": reconnected}
    # Two round trips: a statement that a stopped Postgres reads later, after its sender gave up, is not committed.
    with connection.transaction():
        ((deaths,),) = connection.execute(_OPEN, parameters).fetchall()
    return int(deaths)


def close_attempt(connection: psycopg.Connection[Any], task_id: str) -> None:
    """Forget the message: it was dealt with, or given back by a process that lives."""
    connection.execute(_CLOSE, [stored_id(task_id)])
