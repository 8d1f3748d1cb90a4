"""The writer when Postgres is not well: nothing is half written, and no row is to blame."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
from support.databases import Connection
from support.waiting import wait_until
from support.writing import AT, TIMEOUT_S, bar, bars, closes, letter, message, select, write

from market_data_store.errors import DatabaseUnavailable
from market_data_store.postgres import schema
from market_data_store.postgres.connection import unavailable
from market_data_store.postgres.writer import Writer
from market_data_store.protocol import Counts

#: The session is looked at or ended: behind a pooler it is not the writer's.
directly = pytest.mark.parametrize("writer_url", ["direct"], indirect=True)


def backend(database: Connection) -> int:
    """Process id of the writer's session."""
    ((pid,),) = select(
        database,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'mds-worker'",
    )
    assert isinstance(pid, int)
    return pid


@directly
def test_a_writer_reconnects_after_its_backend_was_terminated(writer: Writer, database: Connection) -> None:
    sent = message([bar(), 7])
    write(writer, sent)
    first = backend(database)
    database.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with pytest.raises(DatabaseUnavailable) as caught:
        write(writer, sent)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert write(writer, sent) == [Counts(unchanged=1, rejected=1)]
    assert backend(database) != first


@directly
def test_a_write_that_is_interrupted_is_written_not_at_all(
    writer: Writer, database: Connection, database_url: str
) -> None:
    write(writer, message([bar(close=1.0)]))
    sent = message([bar(close=2.0), bar(symbol="IBM"), 7], at=1)
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT * FROM bars_ohlcv FOR UPDATE")
        attempt = pool.submit(write, writer, sent)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting))
        database.execute("SELECT pg_terminate_backend(%s, 5000)", [backend(database)])
        assert isinstance(attempt.exception(TIMEOUT_S), DatabaseUnavailable)
    assert closes(database) == [1.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert write(writer, sent) == [Counts(written=2, rejected=1)]


def test_a_session_that_is_lost_in_the_middle_of_a_copy_is_an_outage(
    writer: Writer, database: Connection, database_url: str
) -> None:
    stored = "INSERT INTO bars_ohlcv SELECT 'ibkr', 'AAPL', '1m', %s, 1, 1, 1, 1, NULL, NULL, NULL, now()"
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(stored, [AT])
        attempt = pool.submit(write, writer, message([bar()]))
        wait_until(lambda: select(database, waiting))
        database.execute("SELECT pg_terminate_backend(%s, 5000)", select(database, waiting)[0])
        assert isinstance(attempt.exception(TIMEOUT_S), DatabaseUnavailable)
        other.rollback()
    assert write(writer, message([bar()])) == [Counts(written=1)]


@pytest.mark.slow
def test_a_pooled_session_that_is_lost_before_a_copy_is_named_so(database: Connection, pooled_url: str) -> None:
    with psycopg.connect(pooled_url) as pooled:
        ((pid,),) = pooled.execute("SELECT pg_backend_pid()").fetchall()
        database.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        with pytest.raises(psycopg.Error) as lost, pooled.cursor().copy("COPY bars_ohlcv (symbol) FROM STDIN"):
            pass
    assert str(unavailable(lost.value)) == "Postgres: the connection was lost"


def test_a_url_that_libpq_cannot_read_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"^DATABASE_URL is not a valid postgresql:// URL$"):
        Writer("postgresql://me:secret@[host/db").time()


TOO_MUCH = """
    CREATE FUNCTION too_much() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF (SELECT count(*) FROM inserted) > {} THEN RAISE SQLSTATE ''53400''; END IF; RETURN NULL; END';
    CREATE TRIGGER too_much AFTER INSERT ON bars_ohlcv REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION too_much()
"""


def test_a_batch_that_exceeds_a_limit_of_the_server_is_written_in_parts(writer: Writer, database: Connection) -> None:
    # As TimescaleDB's limit on rows that a statement decompresses.
    database.execute(TOO_MUCH.format(30))
    assert write(writer, message([*bars(100), 7])) == [Counts(written=100, rejected=1)]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(1,)]


def test_a_limit_that_one_row_exceeds_is_an_outage(writer: Writer, database: Connection) -> None:
    database.execute(TOO_MUCH.format(0))
    with pytest.raises(DatabaseUnavailable, match="53400"):
        write(writer, message(bars(3)))
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize(
    ("setting", "sqlstate"),
    [
        ("lock_timeout = '20ms'", "55P03"),
        ("statement_timeout = '20ms'", "57014"),
        ("default_transaction_read_only = on", "25006"),
    ],
)
def test_an_error_that_is_not_the_rows_fault_leaves_no_dead_letter(
    database_url: str, database: Connection, setting: str, sqlstate: str
) -> None:
    name = urlsplit(database_url).path[1:]
    database.execute(f'ALTER DATABASE "{name}" SET {setting}')
    writer = Writer(database_url)
    with psycopg.connect(database_url) as other:
        if sqlstate != "25006":
            other.execute("LOCK TABLE bars_ohlcv IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match=rf"SQLSTATE {sqlstate}"):
            write(writer, message([bar()]))
    database.execute(f'ALTER DATABASE "{name}" RESET ALL')
    assert write(writer, message([bar()])) == [Counts(written=1)]
    writer.close()
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


def test_a_postgres_that_cannot_be_reached_is_named_without_its_password() -> None:
    writer = Writer("postgresql://user:secret@127.0.0.1:1/db", connect_timeout_s=1)
    with pytest.raises(DatabaseUnavailable, match=r'"127\.0\.0\.1", port 1') as caught:
        write(writer, message([bar()]))
    assert "secret" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable):
        writer.keep([letter()])


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://user:se%cret@127.0.0.1:1/db", id="a percent sign that is not escaped"),
        pytest.param("postgresql://user:se cret@127.0.0.1:1/db", id="a space"),
        pytest.param("postgresql://user:secret@[::1/db", id="half a bracket"),
    ],
)
def test_a_url_that_libpq_cannot_parse_is_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        write(Writer(url, connect_timeout_s=1), message([bar()]))
    assert "cret" not in str(caught.value)


def test_missing_tables_are_unavailable_until_they_are_migrated(unmigrated_url: str) -> None:
    writer = Writer(unmigrated_url)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match='relation "bars_ohlcv" does not exist'):
            write(writer, message([bar()]))
        with pytest.raises(DatabaseUnavailable, match='relation "dead_letters" does not exist'):
            writer.keep([letter()])
    schema.upgrade(unmigrated_url)
    assert write(writer, message([bar(), 7])) == [Counts(written=1, rejected=1)]
    writer.close()


def test_a_writer_survives_the_recreation_of_its_table(writer: Writer, database: Connection) -> None:
    write(writer, message([bar()]))
    database.execute("ALTER TABLE bars_ohlcv ADD COLUMN note text")
    assert write(writer, message([bar(symbol="IBM")])) == [Counts(written=1)]
    database.execute("CREATE TABLE copy (LIKE bars_ohlcv INCLUDING ALL)")
    database.execute("DROP TABLE bars_ohlcv")
    database.execute("ALTER TABLE copy RENAME TO bars_ohlcv")
    assert write(writer, message([bar()])) == [Counts(written=1)]
    assert closes(database) == [1.5]


def test_a_time_limit_in_the_middle_of_a_statement_leaves_nothing_behind_and_the_writer_usable(
    writer: Writer, database: Connection, database_url: str
) -> None:
    class TimeLimit(Exception):
        pass

    def strike(*_: object) -> None:
        raise TimeLimit

    def strike_when_the_writer_waits() -> None:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: select(database, waiting))
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
            other.execute("LOCK TABLE bars_ohlcv IN EXCLUSIVE MODE")
            striking = pool.submit(strike_when_the_writer_waits)
            with pytest.raises(TimeLimit):
                write(writer, message([bar(close=1.0), 7]))
            striking.result(TIMEOUT_S)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert write(writer, message([bar(symbol="IBM", close=2.0)])) == [Counts(written=1)]
    assert closes(database) == [2.0]
    assert select(database, "SELECT count(*) FROM dead_letters") == [(0,)]


@directly
def test_a_closed_writer_opens_again_when_it_is_needed(writer: Writer, database: Connection) -> None:
    write(writer, message([bar()]))
    writer.close()
    writer.close()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    wait_until(lambda: select(database, sessions) == [(1,)])
    assert write(writer, message([bar()])) == [Counts(unchanged=1)]


def test_the_stage_holds_nothing_between_writes(writer: Writer, database: Connection) -> None:
    for symbol in ("A", "B", "C"):
        assert write(writer, message([bar(symbol=symbol)])) == [Counts(written=1)]
    assert len(closes(database)) == 3


def test_counts_are_summed_number_by_number() -> None:
    assert Counts(1, 2, 3, 4) + Counts(10, 20, 30, 40) == Counts(11, 22, 33, 44)
    assert sum([Counts(written=1)] * 3, start=Counts()) == Counts(written=3)
