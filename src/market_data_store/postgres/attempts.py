"""Counts the processes that died of a message, in Postgres, which outlives them and serves both brokers.

A redelivered message runs alone (`worker.coalescing`). Before it runs, its pool process opens an attempt here. The
process closes the attempt when the message is done or returned to the broker. A process that finds an open attempt
counts a death: the process before it did not get to close it. But an attempt also stays open if Postgres is lost while
a healthy process returns the message. So an open attempt does not count if, since it was opened,

* Postgres has been restarted;
* this process has had to reconnect: the other process may have lost only its session, too;
* or its session has stayed connected: Redis redelivers a slow message, and a process that waits for a lock is alive.
  Sessions behind a pooler outlive every process, so there this condition never holds.

If the whole worker is killed, by hand or for lack of memory, no process is left to close the attempt: it counts.
"""

from __future__ import annotations

from typing import Any

import psycopg

from market_data_store.dead_letters import stored_id

_OPEN = """
    INSERT INTO attempts AS earlier (task_id, deaths, backend, backend_start, server_start, opened_at)
    SELECT %(task_id)s, 0, CASE pid WHEN %(own_pid)s THEN pid ELSE 0 END, backend_start,
           pg_postmaster_start_time(), clock_timestamp()
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
#: Also deletes attempts of messages that were never redelivered, for example because the queue was purged.
_CLOSE = "DELETE FROM attempts WHERE task_id = %s OR opened_at < now() - interval '7 days'"


def open_attempt(connection: psycopg.Connection[Any], task_id: str, *, reconnected: bool) -> int:
    """Record that this session processes the message alone; returns how many processes have died of it.

    `reconnected` says that the session is not this process's first.
    """
    # A pooler invents the process id that it tells its clients. No session has the process id 0.
    own_pid = connection.info.backend_pid
    parameters = {"task_id": stored_id(task_id), "reconnected": reconnected, "own_pid": own_pid}
    # A transaction takes a second round trip: if a stopped Postgres reads the statement after the sender has given up,
    # it is not committed.
    with connection.transaction():
        ((deaths,),) = connection.execute(_OPEN, parameters).fetchall()
    return int(deaths)


def close_attempt(connection: psycopg.Connection[Any], task_id: str) -> None:
    """Forget the message: it is done, or was returned to the broker by a live process."""
    connection.execute(_CLOSE, [stored_id(task_id)])
