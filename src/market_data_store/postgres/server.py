"""What a Postgres says of itself: version, settings, clock, connections, sizes. It asks in one statement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

#: The oldest version on which the store is tested.
OLDEST = 14
#: Seconds for one statement of a look.
_STATEMENT_TIMEOUT_S = 3
#: A role that is not a superuser sees neither the data directory nor, of other roles' sessions, the program's name.
_FACTS = """
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int / 10000 AS major,
           current_database()::text AS database,
           current_user::text AS role,
           pg_encoding_to_char(encoding)::text AS encoding,
           pg_is_in_recovery() AS is_replica,
           (SELECT reset_val::bool FROM pg_settings WHERE name = 'default_transaction_read_only') AS is_read_only,
           current_setting('fsync')::bool AND current_setting('full_page_writes')::bool AS is_durable,
           current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('autovacuum')::bool AS vacuums,
           (SELECT reset_val::float8 / 1000 FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout_s,
           pg_postmaster_start_time() AS started_at,
           extract(epoch FROM clock_timestamp())::float8 AS clock,
           pg_backend_pid() AS pid,
           pg_database_size(pg_database.oid)::float8 AS size,
           (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
           coalesce(inet_server_addr() = inet_client_addr(), true) AS is_local,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0) AS most_sessions,
           datconnlimit AS most_of_database,
           rolconnlimit AS most_of_role,
           sessions, of_database, of_role, of_store
    FROM pg_database, pg_roles, (
        SELECT count(*)::int AS sessions,
               count(*) FILTER (WHERE datname = current_database())::int AS of_database,
               count(*) FILTER (WHERE usename = current_user)::int AS of_role,
               count(*) FILTER (WHERE application_name LIKE 'mds%')::int AS of_store
        FROM pg_stat_activity WHERE backend_type = 'client backend'
    ) AS activity
    WHERE datname = current_database() AND rolname = current_user
"""


#: A standby is read-only, and so are sessions for which that is the default.
_STATE = """
    SELECT extract(epoch FROM clock_timestamp())::float8,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::bool
"""


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """The answer; limits of -1 mean none."""

    version: str
    major: int
    database: str
    role: str
    encoding: str
    is_replica: bool
    is_read_only: bool
    #: Whether `fsync` and `full_page_writes` are on.
    is_durable: bool
    synchronous_commit: str
    vacuums: bool
    #: Of a session of this role that sets none; 0 for none.
    statement_timeout_s: float
    started_at: datetime
    #: Seconds since 1970.
    clock: float
    pid: int
    #: Bytes of the database.
    size: float
    #: None if this role may not know.
    data_directory: str | None
    #: Whether client and server are on one machine, as far as addresses tell.
    is_local: bool
    most_sessions: int
    most_of_database: int
    most_of_role: int
    sessions: int
    of_database: int
    of_role: int
    of_store: int


@contextmanager
def bounded(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Run the block in a transaction in which no statement takes longer than three seconds."""
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
        yield


def facts_of(connection: psycopg.Connection[Any]) -> tuple[ServerFacts, float]:
    """Return the facts, and by how many seconds the server's clock is ahead of this machine's; raises psycopg's errors.

    Half of the round trip is the error of the difference.
    """
    with bounded(connection), connection.cursor(row_factory=class_row(ServerFacts)) as cursor:
        began = time.time()
        (facts,) = cursor.execute(_FACTS).fetchall()
        return facts, facts.clock - (began + time.time()) / 2


def state_of(connection: psycopg.Connection[Any]) -> tuple[float, bool]:
    """Return the server's time, in epoch seconds, and whether it takes no write; raises psycopg's errors."""
    ((clock, is_read_only),) = connection.execute(_STATE).fetchall()
    return clock, is_read_only


def is_pooled(connection: psycopg.Connection[Any], pid: int) -> bool:
    """Whether a pooler is between: it tells each client a process id that is not the session's `pg_backend_pid()`."""
    return connection.info.backend_pid != pid
