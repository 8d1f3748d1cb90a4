"""Behind a transaction pooler a session is everybody's: what the writer leaves in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import psycopg
import pytest
from support.databases import Connection, database_at
from support.pgbouncer import other_clients, pgbouncer
from support.requirements import require_pgbouncer
from support.writing import bar, bars, letter, message, select, write

from market_data_store.postgres.writer import Writer

SESSIONS = 10
#: The pooler sets the name that a client gives itself. Settings of PL/pgSQL appear once a session has run any.
SETTINGS = """
    SELECT name, setting FROM pg_settings WHERE name <> 'application_name' AND name NOT LIKE 'plpgsql.%' ORDER BY name
"""


@pytest.fixture
def pool_of_ten(postgres_url: str, database_url: str) -> Iterator[str]:
    require_pgbouncer()
    with pgbouncer(postgres_url, pool_size=SESSIONS) as url:
        yield database_at(url, urlsplit(database_url).path[1:])


def use(url: str, number: int) -> None:
    """All that a writer does: new rows, replays, changes, rows that are refused, letters."""
    with closing(Writer(url)) as writer:
        for size in (5, 100):
            for at in range(6):
                rows = [*bars(size, symbol=f"S{number}", close=at // 2), bar(symbol=f"NEW{number}-{size}-{at}")]
                write(writer, message([*rows, bar(close=5_000.0), 7], at=at))
        writer.keep([letter(task_id=f"whole-{number}")])


def test_the_writer_leaves_nothing_in_a_pooled_session(pool_of_ten: str, database: Connection) -> None:
    database.execute("ALTER TABLE bars_ohlcv ADD CONSTRAINT sane CHECK (close < 1000)")
    with other_clients(pool_of_ten), ThreadPoolExecutor(SESSIONS) as pool:
        list(pool.map(lambda number: use(pool_of_ten, number), range(SESSIONS)))
    assert select(database, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]
    with ExitStack() as stack:
        sessions = [stack.enter_context(psycopg.connect(pool_of_ten)) for _ in range(SESSIONS)]
        pids = {session.execute("SELECT pg_backend_pid()").fetchall()[0] for session in sessions}
        assert len(pids) == SESSIONS
        for session in sessions:
            assert session.execute(SETTINGS).fetchall() == select(database, SETTINGS)
            for left in (
                "SELECT name FROM pg_prepared_statements",
                "SELECT name FROM pg_cursors WHERE is_holdable",
                "SELECT * FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                "SELECT pg_listening_channels()",
            ):
                assert session.execute(left).fetchall() == []
